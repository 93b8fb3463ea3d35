import csv
import io
import json
import re
import shutil
import subprocess
import unicodedata

import pandas as pd
import pytest

from bench.api.errors import UserError
from reports import cells, render
from reports.board import Board
from reports.boards.attacks import attacks
from reports.frame import read
from reports.render import render as draw
from tests.reports.board_data import data_of, leaderboard_of, trial

EVIL = "[red]x[/red] \x1b[31m & 100 % of $a_b | <b> \\n"


@pytest.fixture
def terminal(monkeypatch):
    """Boards as a terminal with colours shows them: the text alone, and with its escape sequences."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")

    def shown(boards, width=100):
        file = io.StringIO()
        draw(boards, "rich", file=file, width=width)
        return re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue()), file.getvalue()

    return shown


@pytest.fixture
def found(stock):
    trials = [trial(a, d, t, s, metrics={"gain": 0.5 + 0.1 * s + 0.2 * (t == "0")})
             for a in ("none", "loud", "quiet") for d in ("none", "repair") for t in "01" for s in (0, 1)]  # fmt: skip
    return leaderboard_of(read(stock([*trials, trial("kept", status="failed", reason=EVIL)])))


@pytest.mark.parametrize("width", [80, 100, 140, 400])
def test_the_terminal_shows_every_number_whole_at_any_width(found, width, terminal):
    text, _ = terminal(found, width)
    assert all(len(line.rstrip()) <= width for line in text.splitlines())
    for board in found[:-1]:
        for name, column in cells.words(board).items():
            for word in {name.split(" ")[0], *column} - {cells.BLANK}:
                assert word.strip() in text


def test_a_table_of_many_defenses_has_a_row_per_defense_where_it_is_too_wide(terminal):
    names = [f"long_name_of_defense_{i}" for i in range(6)]
    table = pd.DataFrame(
        [{"attack": attack, **dict.fromkeys(names, value)} for attack, value in (("x", 0.25), ("y", 0.5))]
    )
    board = Board("Matrix", table, "", index=("attack",), metrics=dict.fromkeys(names, "t_map"), across=-1)
    narrow, wide = (terminal([board], width)[0].splitlines() for width in (60, 300))
    assert narrow[1].split() == ["x", "y"]
    assert [line.split() for line in narrow[3:9]] == [[name, "0.250", "0.500"] for name in names]
    assert wide[1].split() == ["attack", *names]


def test_captions_of_one_setting_are_printed_once(found, terminal):
    text, _ = terminal(found, 400)
    assert text.count("protocol toy") == 1
    assert "same as above" in text
    assert all("protocol toy" in board.caption for board in found[:-1])


def test_piped_output_is_plain_and_unbroken(found):
    file = io.StringIO()
    draw(found, "rich", file=file)
    text = file.getvalue()
    assert "\x1b" not in text
    assert text.isprintable() or not re.search(r"[\x00-\x08\x0b-\x1f]", text)
    attack = next(line for line in text.splitlines() if line.startswith("dirty-label  loud"))
    assert "0.800" in attack
    assert "20" in attack


def test_text_of_records_is_text(found, terminal):
    text, raw = terminal(found[-1:], 200)
    assert "[red]x[/red]" in text
    assert "\x1b[31m" not in raw
    markdown = render.markdown(found[-1:])
    assert r"\<b\>" in markdown
    assert r"\|" in markdown
    assert r"a\_b" in markdown
    latex = render.latex(found[-1:])
    assert r"\& 100 \% of \$a\_b" in latex
    assert r"\textbackslash{}n" in latex


def test_a_formula_is_not_run_by_a_spreadsheet():
    board = Board("t", pd.DataFrame({"reason": ["=1+1"], "x": [-1.5]}), "", index=("reason",))
    assert render.csv([board]).splitlines()[1] == "t,'=1+1,-1.5"


FORMULAS = ("=1+1", " \t=1", "+1", "-1", "@x", "\r\n=1", "\uff1d1", "\uff0b1", "\u2003@x")


def test_no_text_of_a_csv_file_is_a_formula():
    """Cells, titles and names of columns alike; a number stays a number."""
    table = pd.DataFrame([dict.fromkeys(FORMULAS, -1.5) | {"reason": text} for text in FORMULAS])
    made = render.csv([Board(text, table, "", index=("reason",)) for text in FORMULAS])
    rows = list(csv.reader(io.StringIO(made)))
    assert len(rows) == 1 + len(FORMULAS) ** 2
    assert len(set(rows[0])) == len(rows[0]) == len(FORMULAS) + 2
    for cell in (cell for row in rows for cell in row):
        assert cell == "-1.5" or unicodedata.normalize("NFKC", cell.strip()[:1]) not in {"=", "+", "-", "@"}, cell


def test_columns_of_the_name_of_another_stay():
    table = pd.DataFrame([["x", 1, 2, 3]], columns=["board", "=a", "'=a", "a\x1b"])
    (row,) = csv.DictReader(io.StringIO(render.csv([Board("t", table, "", index=("board",))])))
    assert list(row.values()) == ["t", "x", "1", "2", "3"]


@pytest.mark.parametrize("index", [("attack",), ("attack", "metric"), ("gone",), ()], ids=len)
@pytest.mark.parametrize(
    "columns", [["attack", "metric", "A", "gain", "gain ±"], ["attack", "metric"], ["attack"], []], ids=len
)
def test_a_board_without_rows_is_printed_everywhere(terminal, columns, index):
    metrics = {name: "gain" for name in ("A", "gain", "gain ±") if name in columns}
    empty = Board("Empty", pd.DataFrame(columns=columns), "Nothing.", index=index, metrics=metrics, heat=("A",))
    full = Board("Full", pd.DataFrame({"attack": ["x"]}), "Otherwise.", index=("attack",))
    for width in (10, 80, 300):
        assert "Empty" in terminal([empty, full], width)[0]
    for format_ in ("rich", "markdown", "latex", "json"):
        file = io.StringIO()
        draw([empty, full], format_, file=file)
        assert "Empty" in file.getvalue()
        assert "Full" in file.getvalue()
    assert pd.read_csv(io.StringIO(render.csv([empty, full])))["board"].tolist() == ["Full"]
    assert "Empty" in empty._repr_html_()


def test_intervals_join_their_number_in_text_and_stay_apart_in_data(found):
    words = cells.words(found[0])
    assert re.fullmatch(r"\+0\.650 ± \d\.\d{3}", words["gain"][2])
    assert "gain ±" not in words
    rows = json.loads(render.as_json(found))[0]["rows"]
    assert rows[2]["gain ±"] > 0
    assert rows[0]["gain ±"] is None


def test_json_is_strict_and_complete(found):
    text = render.as_json(found)
    assert "NaN" not in text
    data = json.loads(text)
    assert [board["title"] for board in data] == [board.heading for board in found]
    assert all(board["caption"] and board["rows"] for board in data)
    assert data[0]["rows"][2]["t-mAP"] == 0.8


def test_csv_reads_back(found):
    table = pd.read_csv(io.StringIO(render.csv(found)))
    assert set(table["board"]) == {board.heading for board in found}
    assert len(table) == sum(len(board.table) for board in found)
    assert table["t-mAP"].iloc[2] == 0.8


def test_markdown_tables_have_equal_columns(found):
    for block in render.markdown(found[:2]).split("\n\n"):
        if block.startswith("|"):
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_latex_rows_match_the_head(found):
    text = render.latex(found[:1])
    for part in text.split(r"\begin{tabular}")[1:]:
        lines = [line for line in part.splitlines() if line.endswith("\\\\") and "multicolumn" not in line]
        assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {len(part.split("}")[0]) - 2}
    assert all(rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule"))


PDFLATEX = shutil.which("pdflatex")


@pytest.mark.skipif(PDFLATEX is None, reason="no LaTeX: apt-get install texlive-latex-recommended")
def test_latex_compiles_whatever_labels_hold_and_no_table_is_wider_than_the_text(found, stock, tmp_path):
    nasty = trial("loud([a, b]=#$%&_{}~^<>|\"'`*!?/\\\\ é)", "repair([x)", target="[0]", status="ok")
    failed = trial("quiet", target="1", status="failed", reason="[x] \\\\ & 100 %", log="{")
    boards_ = [*found, *leaderboard_of(read(stock([nasty, failed], folder="nasty")), costs=True)]
    boards_.append(
        Board("t", pd.DataFrame({"a": ["x", "[1]"]}), "", index=("a",))
    )  # a row must not begin with a bracket
    body = render.latex(boards_).replace(r"\end{table}", "\\end{table}\n\\clearpage")
    source = "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n" + body + "\\end{document}\n"
    (tmp_path / "x.tex").write_text(source)
    command = [PDFLATEX, "-interaction=nonstopmode", "-halt-on-error", "x.tex"]
    done = subprocess.run(
        command, check=False, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "x.pdf").stat().st_size > 10_000
    too_wide = [float(points) for points in re.findall(r"Overfull \\hbox \(([\d.]+)pt", done.stdout)]
    assert all(points < 1 for points in too_wide), done.stdout
    assert f"({len(boards_)} pages" in done.stdout.replace("\n", "")


def test_the_best_are_bold(stock):
    trials = [trial(a, "none", t, s, metrics={"gain": g + 0.01 * s * (a == "loud") + 0.01 * (t == "0")})
             for a, g in (("loud", 0.9), ("quiet", 0.1)) for t in "01" for s in (0, 1)]  # fmt: skip
    found = attacks(data_of(read(stock(trials))))
    if found[0].best:
        assert "**loud**" in render.markdown(found)
        assert "**quiet**" not in render.markdown(found)
        assert r"\textbf{loud}" in render.latex(found)


@pytest.mark.parametrize("kind", ["markdown", "latex", "csv", "json", "rich"])
def test_nothing_to_print(kind):
    draw([], kind, file=io.StringIO())


def test_an_unknown_format():
    with pytest.raises(UserError, match="did you mean 'markdown'"):
        draw([], "markdwn", file=io.StringIO())
