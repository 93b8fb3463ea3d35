"""What the documents show as code: fenced blocks, words in backticks, tables. Read when the tests are collected."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "SECURITY.md")
FENCE = re.compile(r"^(```+)[ ]*(\w*)[^\n]*\n(.*?)^\1[ ]*$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
OTHER = re.compile(r"^~~~|<pre|<code|(?<=\n\n)(?: {4}|\t)\S", re.MULTILINE)  # ways to show code that nobody looks for


@dataclass(frozen=True)
class Shown:
    """A fenced block (`language` may be empty) or words in backticks (no language), and where they stand."""

    document: str
    line: int
    section: str
    text: str
    language: str | None = None

    def __str__(self) -> str:
        return f"{self.document}:{self.line}: {self.text.splitlines()[0][:60]}"


@cache
def read(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def _place(document: str, at: int) -> tuple[int, str]:
    """Line and heading of a position; a `#` inside a block is no heading."""
    before = prose(document)[:at]
    headings = re.findall(r"^#+ (.*)$", before, re.MULTILINE)
    return before.count("\n") + 1, headings[-1] if headings else ""


def _blank(found: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", found.group())


def prose(document: str) -> str:
    """The document with its blocks left blank."""
    return FENCE.sub(_blank, read(document))


@cache
def blocks(document: str) -> tuple[Shown, ...]:
    return tuple(
        Shown(document, *_place(document, found.start()), found.group(3), found.group(2))
        for found in FENCE.finditer(read(document))
    )


@cache
def spans(document: str) -> tuple[Shown, ...]:
    """Words in backticks, each text once per document."""
    made = [
        Shown(document, *_place(document, found.start()), " ".join(found.group(2).split()))
        for found in SPAN.finditer(prose(document))
    ]
    return tuple(shown for n, shown in enumerate(made) if shown.text not in {one.text for one in made[:n]})


def all_blocks() -> list[Shown]:
    return [shown for document in DOCUMENTS for shown in blocks(document)]


def all_spans() -> list[Shown]:
    """Each text once, where it stands first."""
    first: dict[str, Shown] = {}
    for document in DOCUMENTS:
        for shown in spans(document):
            first.setdefault(shown.text, shown)
    return [*first.values()]


def section(document: str, heading: str) -> str:
    """The text under a heading, up to the next one."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", prose(document), re.MULTILINE | re.DOTALL)
    assert found, f"{document} has no section '{heading}'"
    return found.group(1)


def table(document: str, heading: str, *columns: str) -> list[dict[str, str]]:
    """The table of a section that has these columns: a row each, as markdown."""
    rows = [
        [trial.strip() for trial in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        for line in section(document, heading).splitlines()
        if line.strip().startswith("|")
    ]
    for at, row in enumerate(rows):
        if row == list(columns):
            body = rows[at + 2 :]
            assert all(len(trials) == len(columns) for trials in body), f"{document}: rows of another width: {body}"
            return [dict(zip(columns, trials, strict=True)) for trials in body]
    raise AssertionError(f"{document}, '{heading}': no table with the columns {columns}")


def words_in(text: str) -> list[str]:
    """What a piece of markdown has in backticks."""
    return [found.group(2) for found in SPAN.finditer(text)]
