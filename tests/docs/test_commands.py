"""Every command that the documents show, run in small, and what else they show of its store and of what it prints.

`_small.py` says what is exchanged for what.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.api import errors
from bench.cli.app import app
from bench.engine.record import Record
from bench.engine.store import Store
from tests.docs import _shown
from tests.docs._boards import boards, shape
from tests.docs._markdown import ROOT, Shown, section
from tests.docs._small import HEAVY, SMALL, STORE, commands, done, named, smaller, stages_run, with_fewer_steps
from tests.docs.conftest import Place

pytestmark = pytest.mark.long

# Most of a minute; and what differs by an option from a command that is run anyway, and costs seconds.
SLOW = ("kernels", "figures", "verify --set-aside", "report --kernels", "run --retry", "run --executor")
CHANGE = {"run", "rescore", "verify", "gc", "check", "publish", "merge", "best"}  # these write, so to a copy


def cases() -> list[object]:
    """Commands of ours as words after `python -m bench`, each once."""
    found = [shlex.join(words) for words in _shown.all_commands()]
    return [pytest.param(one, marks=pytest.mark.slow) if one.startswith(SLOW) else one for one in found]


def strongest(store: Path) -> Record:
    """The finished trial with the most gain: the one whose key and gain stand for the reader's."""
    made = [record for record in Store(store).records() if record.stage == "measure" and record.status == "ok"]
    return max(made, key=lambda record: record.metrics.get("gain") or 0)


def damage(store: Path) -> None:
    """A number that its codes do not give."""
    path = store / "records" / f"{strongest(store).key}.json"
    record = json.loads(path.read_text())
    record["metrics"]["t_map"] -= 0.3
    path.write_text(json.dumps(record))


def exchanged(text: str, place: Place) -> list[str]:
    """The words of a command with what is there for what the reader has."""
    best = strongest(place.folder / "runs")
    words = [with_fewer_steps(word) for word in shlex.split(text.replace("--store DIR", "--store runs"))]
    words = named(words, KEY=best.key[:12], ID=Store(place.folder / "runs").runs()[-1].id)
    if words[0] == "new":  # the name of a command alone; a kind without a name
        words += ["--help"] if len(words) == 1 else ["my_part"] if len(words) == 2 else []
    if words in (["merge"], ["rerun"]):  # the name of a command alone
        words += ["--help"]
    if words[:2] == ["report", "equal-strength"]:  # so small a network gains less or more than the default 0.6 and 0.8
        words = [*words[:2], "--gain", f"{best.metrics['gain']:.2f}"]
    if words[0] == "kernels" and "--quick" not in words:  # all sizes and lengths take many minutes
        words.append("--quick")
    return smaller([*words, *(word for suite, less in HEAVY.items() if suite in words for word in less)], SMALL)


@pytest.mark.parametrize("text", cases())
def test_a_command_does_what_it_says(
    text: str, place: Place, kernels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = exchanged(text, place)
    folder = place.folder
    if words[0] in CHANGE:
        folder = Path(shutil.copytree(folder, tmp_path / "copy"))
    elif words[0] == "new":
        folder = tmp_path
    monkeypatch.chdir(folder)
    files = [word for word in words if word.endswith((".png", ".html"))]
    files += ["report.html"] if words == ["report"] or words[:2] == ["report", "--kernels"] else []
    for file in files:
        Path(file).unlink(missing_ok=True)
    if "--set-aside" in words:
        damage(Path("runs"))
    printed = done(words, code=1 if "--set-aside" in words else 0)
    assert printed.strip()
    if "--set-aside" in words:  # "and the next run makes it again"
        assert list(Path("runs/damaged").iterdir())
        assert stages_run(done(smaller(["run"], STORE))) == 1
    assert all(0 < Path(file).stat().st_size < 5e6 for file in files)
    if words[0] == "new" and len(words) == 3:
        assert Path(f"{words[2]}.{'toml' if words[1] == 'suite' else 'py'}").is_file()


@pytest.mark.slow
def test_the_largest_plan_as_it_is_written(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place.folder)
    words = next(words for words in _shown.all_commands() if words[:3] == ["plan", "--suite", "full"])
    done(named(words))


def test_the_overview(capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m bench` alone: every command of it is one, and the documents explain what it names."""
    printed = done([])
    named_ = re.findall(r"python -m bench (\w+)", printed)
    assert len(named_) > 5
    assert {*named_} - {"COMMAND"} <= {*_shown.parsers()}


def test_every_command_is_shown_and_explains_its_options() -> None:
    """A command that exists and that no document shows is as wrong as one that does not exist."""
    assert {words[0] for words in _shown.all_commands()} >= {*_shown.parsers()}
    for name in _shown.parsers():
        assert name in done([name, "--help"])


def test_a_second_run_takes_everything_from_the_store(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (command,) = (line for line in _shown.shown() if line == "python -m bench run")
    monkeypatch.chdir(shutil.copytree(place.folder, tmp_path / "copy"))
    assert stages_run(done(smaller(command.split()[3:], STORE))) == 0


def test_compare_ends_with_1_on_a_change(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the table says of `python -m bench compare A B`; without one it ended with 0, above."""
    monkeypatch.chdir(shutil.copytree(place.folder, tmp_path / "copy"))
    damage(Path("again"))
    done(["compare", "runs", "again"], code=1)


def test_keys_are_printed_where_a_board_is_narrowed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place.folder)
    rows = json.loads(done(["leaderboard", "--where", "target=0", "--format", "json"]))[0]["rows"]
    assert all(row["attack"] in done(["show", row["key"]]) for row in rows[:2])
    assert all("key" not in row for row in json.loads(done(["leaderboard", "--format", "json"]))[0]["rows"])


def test_exit_codes() -> None:
    codes = {
        int(number) for number in re.findall(r"^\| (\d+) ", section("bench/cli/README.md", "Exit codes"), re.MULTILINE)
    }
    assert codes == {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert all(str(code) in str(app.info.epilog) for code in codes)
    done(["run", "--suite", "quik"], code=errors.EXIT_USER)


@pytest.mark.parametrize("block", _shown.blocks_of("python"), ids=str)
def test_python_is_executed_from_top_to_bottom(block: Shown, place: Place, tmp_path: Path) -> None:
    """In a reader's folder, in a process of its own that knows the attack which the text has made by then."""
    folder = Path(shutil.copytree(place.folder, tmp_path / "copy"))
    (folder / "shown.py").write_text(block.text)
    known = "from pathlib import Path; from bench.api import registry; registry.load_plugin(Path('my_attack.py'))"
    python(folder, f"{known}; exec(compile(open('shown.py').read(), 'shown.py', 'exec'), {{'__name__': '__main__'}})")


def test_the_tutorial_runs_from_top_to_bottom(place: Place, tmp_path: Path) -> None:
    """Its code cells as a notebook runs them; what is shown is made, as a front end would."""
    folder = Path(shutil.copytree(place.folder, tmp_path / "copy"))
    cells = json.loads((ROOT / "reports" / "tutorial.ipynb").read_text(encoding="utf-8"))["cells"]
    code = ["def display(*shown):\n    assert shown and all(one._repr_html_() for one in shown)"]
    code += ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") for cell in cells)
    python(folder, "\n".join(code))
    assert (folder / "attacks.png").stat().st_size


@pytest.mark.slow
@pytest.mark.parametrize("block", [block for block in _shown.blocks_of("python") if "test_" in block.text], ids=str)
def test_tests_that_are_shown_pass(block: Shown, place: Place, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(place.folder, tmp_path / "copy"))
    (folder / "test_shown.py").write_text(block.text)
    known = "from pathlib import Path\nfrom bench.api import registry\nregistry.load_plugin(Path('my_attack.py'))\n"
    (folder / "conftest.py").write_text(known)
    python(folder, "import sys, pytest; sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', 'test_shown.py']))")


def python(folder: Path, code: str) -> None:
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=folder, check=False, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]


def empty(column: str) -> bool:
    """Whether a board leaves this column out where nothing was flagged: so small a network names no target."""
    return column == "named" and f'"{column}"' in (ROOT / "reports" / "boards" / "model_detectors.py").read_text()


@pytest.mark.parametrize("block", _shown.blocks_of("boards"), ids=str)
def test_an_excerpt_is_what_a_run_prints(block: Shown, place: Place) -> None:
    """Of the small run: boards, columns in their order, kinds of rows, sentences, and the last line; no numbers."""
    here = boards(place.printed)
    excerpt = boards(block.text)
    assert len(excerpt) > 1
    for kind, (title, columns, rows, below) in excerpt.items():
        assert kind in here, f"no board '{kind}'"
        _, real, printed, captions = here[kind]
        shown = [column for column in columns if column in real or not empty(column)]
        assert [column for column in real if column in columns] == shown, f"{kind}: columns are {real}"
        assert len(title.split(" · ")) == len(here[kind][0].split(" · "))
        for column in {"access", "input detector", "score", "defense"} & {*columns}:
            mine = {row[columns.index(column)] for row in rows}
            known = {row[real.index(column)] for row in printed} | {"model-only"}  # darkhash is not run in small
            assert mine <= known, f"{kind}: {column} {mine - known}"
        assert {*map(shape, below)} <= {*map(shape, captions)}, f"{kind}: below it stands {captions}"


def whole(folder: Path) -> str:
    """The README's first command as it stands, with Ray, in an empty folder."""
    (line,) = {one for block in _shown.blocks_of("commands") for one in commands(block) if one == "python -m bench run"}
    ran = subprocess.run(
        [sys.executable, *line.split()[1:]], cwd=folder, check=False, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout


@pytest.mark.slow
@pytest.mark.parametrize("block", _shown.blocks_of("boards"), ids=str)
def test_the_numbers_of_an_excerpt_are_those_of_its_run(block: Shown, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Two to three minutes. Results are bit-identical on machines with equal arithmetic, which the README names."""
    from bench.engine.provenance import arithmetic

    if f"arithmetic {arithmetic()}" not in (ROOT / "README.md").read_text():
        pytest.skip(f"the numbers are of a machine whose arithmetic is not that of this one, {arithmetic()}")
    printed = whole(tmp_path_factory.mktemp("whole"))
    here = boards(printed)
    for kind, (title, columns, rows, below) in boards(block.text).items():
        heading, real, found, captions = here[kind]
        assert title == heading
        every = [[row[real.index(column)] for column in columns] for row in found]
        assert [row for row in every if row in rows] == [row[: len(columns)] for row in rows], kind
        assert {*below} <= {*captions}
