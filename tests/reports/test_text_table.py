"""The printer of tables: what is folded, what is repeated, and what a table looks like that is too wide."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from reports.text_table import TextTable, drawn

PARTS = TextTable(
    {"group": ["a", "a", "b"], "name": ["x", "y", "b"], "first number": ["1", "22", "3"], "second": ["4", "5", "6"]},
    index=("group", "name"), right=frozenset({"first number", "second"}), fixed=frozenset({"first number", "second"}),
    rule=True, grouped=True,
)  # fmt: skip


def printed(table: TextTable, width: int = 80) -> list[list[str]]:
    """The lines of each piece, without blanks at their ends."""
    found = []
    for piece in drawn(table, width):
        file = io.StringIO()
        Console(file=file, width=width).print(piece)
        found.append([line.rstrip() for line in file.getvalue().splitlines()])
    return found


def test_groups_of_rows_have_a_heading_and_heads_are_folded() -> None:
    (lines,) = printed(PARTS)
    assert lines == [
        "       first",
        "name  number  second",
        "────────────────────",
        "a",
        "  x        1       4",
        "  y       22       5",
        "b          3       6",
    ]


def test_a_wide_table_is_printed_in_pieces_that_name_their_rows() -> None:
    numbers, seconds = printed(PARTS, 16)
    assert numbers[1] == "name  number"
    assert seconds[0] == "name  second"
    for lines in (numbers, seconds):
        assert all(len(line) <= 16 for line in lines)
        assert [line.split()[0] for line in lines[-4:]] == ["a", "x", "y", "b"]


def test_a_list_is_as_wide_as_it_needs_and_folds_what_may_be_folded() -> None:
    table = TextTable({"kind of thing": ["one"], "text": ["word " * 10]}, fixed=frozenset({"kind of thing"}))
    (lines,) = printed(table, 40)
    assert lines[0].startswith("kind of thing  text")
    assert lines[1].startswith("one            word")
    assert len(lines) == 3


def test_heads_of_blanks_are_not_printed() -> None:
    assert printed(TextTable({"": ["a"], " ": ["b"]})) == [["a  b"]]


@pytest.mark.parametrize("text", ["[red]x[/red]", "a\x1b[31mb"])
def test_texts_of_strangers_are_text(text: str) -> None:
    (lines,) = printed(TextTable({text: [text]}))
    assert "\x1b" not in "".join(lines)
    assert len(set(lines)) == 1
    assert lines[0] == text.replace("\x1b", " ")


def test_nothing_is_a_table_too() -> None:
    assert printed(TextTable({})) == [[""]]
