"""How boards are shown: compact, with chosen columns, and several settings side by side."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from bench.api.errors import UserError
from reports import cells, render
from reports.arrange import Layout, arranged, failures_first
from reports.frame import read
from tests.reports.board_data import leaderboard_of, trial

GAIN = {("loud", 16): 0.5, ("quiet", 16): 0.25, ("loud", 32): 0.75, ("quiet", 32): 0.875}


@pytest.fixture
def two_lengths(stock):
    """The boards of two code lengths; attack quiet is better at 32 bits."""
    trials = [
        trial(attack, defense, bits=bits, metrics={"gain": GAIN.get((attack, bits), 0.0)})
        for bits in (16, 32)
        for attack in ("none", "loud", "quiet")
        for defense in ("none", "repair")
    ]
    return leaderboard_of(read(stock(trials)))


def attacks_of(boards):
    return [board for board in boards if board.kind == "attacks"]


def printed(boards, format_="rich", **layout):
    file = io.StringIO()
    render.render(boards, format_, file=file, layout=Layout(**layout))
    return file.getvalue()


def test_a_terminal_prints_the_main_columns_and_files_hold_all(two_lengths):
    board = attacks_of(two_lengths)[0]
    compact = printed([board])
    assert "PSNR" not in compact
    assert "protocol toy" not in compact
    assert "n = 1" in compact
    assert "--wide prints all" in compact
    wide = printed([board], wide=True)
    assert "PSNR" in wide
    assert "protocol toy" in wide
    assert "--wide" not in wide
    for format_ in ("csv", "json"):
        assert "PSNR" in printed([board], format_)


def test_columns_are_chosen_by_both_of_their_names_and_in_this_order(two_lengths):
    first = attacks_of(two_lengths)[0]
    (board,) = arranged([first], Layout(columns=("gain", "attack", "t_map")))
    assert list(cells.words(board)) == ["gain", "attack", "t-mAP"]
    (board,) = arranged([first], Layout(columns=("gain",)), whole=True)
    assert list(board.table) == ["access", "attack", "gain"]  # rows keep their names


def test_an_unknown_column_is_one_line_with_the_nearest(two_lengths):
    with pytest.raises(UserError, match="unknown column 't-mpa': did you mean 't-mAP'"):
        arranged(two_lengths, Layout(columns=("t-mpa",)))
    with pytest.raises(UserError, match=r"known: .*own-mAP"):
        arranged(two_lengths, Layout(columns=("zzzz",)))


def test_boards_without_a_chosen_column_are_left_out(two_lengths):
    found = arranged(two_lengths, Layout(columns=("attack", "poisons")))
    assert {board.kind for board in found} == {"attacks", "attacks-overall"}


def test_names_of_rows_alone_are_columns_too(two_lengths):
    found = arranged(two_lengths, Layout(columns=("attack",)))
    assert {"attacks", "defenses"} <= {board.kind for board in found}
    assert all(list(cells.words(board)) == ["attack"] for board in found)


def test_a_pivot_puts_the_values_of_an_axis_side_by_side(two_lengths):
    (board,) = arranged(attacks_of(two_lengths), Layout(columns=("attack", "gain"), pivot="bits"))
    words = cells.words(board)
    assert list(words) == ["attack", "gain 16 bits", "gain 32 bits"]
    rows = dict(zip(words["attack"], zip(words["gain 16 bits"], words["gain 32 bits"], strict=True), strict=True))
    assert rows["loud"] == ("+0.500", "+0.750")
    assert rows["quiet"] == ("+0.250", "+0.875")
    assert "16 bits" not in board.heading
    assert "n = 1" in board.caption
    data = pd.read_csv(io.StringIO(printed(attacks_of(two_lengths), "csv", columns=("attack", "gain"), pivot="bits")))
    assert data.set_index("attack").loc["quiet", "gain 32 bits"] == GAIN["quiet", 32]


def test_the_best_of_each_column_is_bold_inside_an_access_group(two_lengths):
    """Loud wins at 16 bits, quiet at 32; the clean model is compared with nothing."""
    table = printed(attacks_of(two_lengths), "latex", columns=("attack", "gain"), pivot="bits", wide=True)
    assert r"loud & \textbf{$+$0.500} & $+$0.750" in table
    assert r"quiet & $+$0.250 & \textbf{$+$0.875}" in table
    assert r"none & $+$0.000 & $+$0.000" in table
    assert r"\multicolumn{2}{c}" not in table  # one metric per value
    assert r"& \multicolumn{1}{c}{16 bits} & \multicolumn{1}{c}{32 bits}" in table


def test_a_caption_says_inside_which_groups_the_best_is_bold_and_why_a_pivot_has_no_number(stock, two_lengths):
    assert "Bold: best of each access." in printed(attacks_of(two_lengths), "latex", columns=("attack", "gain"))
    numbers = {16: 0.1, 32: 0.9}  # the attack is too weak at 16 bits
    trials = [
        trial(attack, defense, bits=bits, metrics={"gain": gain, "own_map": 0.9, "own_map_control": 0.9})
        for bits, gain in numbers.items() for attack in ("none", "loud") for defense in ("none", "repair")
    ]  # fmt: skip
    boards = [board for board in leaderboard_of(read(stock(trials))) if board.kind == "defenses"]
    table = printed(boards, "latex", pivot="bits")
    caption = next(line for line in table.splitlines() if "caption" in line)
    assert "too weak" in caption
    assert "16 bits: too weak" in caption


def test_in_a_row_the_defense_that_leaves_least_is_bold(stock):
    left = {"none": 0.9, "repair": 0.5, "sieve": 0.3}
    trials = [trial("loud", name, metrics={"t_map": value, "gain": 0.8}) for name, value in left.items()]
    board = next(board for board in leaderboard_of(read(stock(trials))) if board.title.startswith("t-mAP"))
    (found,) = arranged([board], Layout())
    assert {name for _, name in found.bold} == {"sieve"}


@pytest.mark.parametrize("axis", ["attack", "bits"])
def test_a_pivot_that_joins_nothing_says_why(stock, axis):
    boards = leaderboard_of(read(stock([trial("loud"), trial("none")])))
    with pytest.raises(UserError, match="axis of the setting" if axis == "attack" else "two values of bits"):
        arranged(boards, Layout(pivot=axis))


def test_a_file_per_board(two_lengths):
    found = render.files(two_lengths, "csv")
    assert sum(name.startswith("attacks-") and name.endswith("-bits.csv") for name in found) == 2
    assert all(not text.startswith("board,") for text in found.values())
    assert len(found) == len(two_lengths)
    (name,) = render.files(attacks_of(two_lengths)[:1], "json")
    assert name == "attacks.json"
    assert json.loads(render.files(attacks_of(two_lengths)[:1], "json")[name])[0]["rows"]


def kinds(stock, *statuses: str) -> list[str]:
    trials = [trial("loud", target=str(i), status=status, reason="no memory") for i, status in enumerate(statuses)]
    return [board.kind for board in failures_first(leaderboard_of(read(stock([trial("none"), *trials]))))]


def test_reasons_of_failures_come_first_and_those_of_left_out_trials_last(stock):
    assert kinds(stock, "ok", "failed")[0] == "no-result"
    assert kinds(stock, "ok", "skipped")[-1] == "no-result"


def test_without_any_result_only_the_reasons_are_shown(stock):
    trials = [trial(attack, status="failed", reason="no memory") for attack in ("none", "loud")]
    boards = leaderboard_of(read(stock(trials)))
    assert len(boards) > 1
    assert [board.kind for board in failures_first(boards)] == ["no-result"]


PDFLATEX = shutil.which("pdflatex")


@pytest.mark.skipif(PDFLATEX is None, reason="no LaTeX: apt-get install texlive-latex-recommended")
@pytest.mark.parametrize("options", ["", "twocolumn"])
def test_a_pivoted_table_fits_into_one_column_of_a_paper(two_lengths, options, tmp_path: Path):
    table = printed(attacks_of(two_lengths), "latex", columns=("attack", "t-mAP", "gain"), pivot="bits")
    head = f"\\documentclass[{options}]{{article}}\n\\usepackage{{booktabs}}\n\\begin{{document}}\n"
    (tmp_path / "x.tex").write_text(f"{head}{table}\\end{{document}}\n")
    done = subprocess.run(
        [PDFLATEX, "-interaction=nonstopmode", "-halt-on-error", "x.tex"],
        check=False, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
