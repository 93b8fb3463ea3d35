"""Every command that the documents show, run in small: `_small.py` says what is exchanged for what."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from bench.api import errors
from bench.cli.app import app
from bench.store import Store
from tests.docs import _rules
from tests.docs._markdown import ROOT, all_blocks, all_spans, section
from tests.docs._small import HEAVY, SMALL, STORE, commands, done, named, smaller, words_of
from tests.docs.conftest import Place

SLOW = ("kernels",)  # most of a minute
CHANGE = {"run", "rescore", "verify", "gc", "check"}  # what a command may write to is a copy
# The command that an option is said of, where the option stands alone. Options without a value are only looked up.
SAID_OF = {
    "--suite cifar10_attacks": "plan", "--kernels kernels.json": "report", "--where target=0": "leaderboard",
    "--gain 0.8": "report matched", "--where attack=badnets": "leaderboard", "--by access": "leaderboard",
    "--store DIR": "leaderboard", "--workers N": "plan", "--executor serial": "run", "--data DIR": "plan",
    "--retry failed,timeout,oom": "run", "--set bits=16,32": "plan", "--only attack=badnets": "plan",
    "--trial KEY --store DIR": "kernels --quick", "--format json": "kernels --quick", "--set-aside": "verify",
}  # fmt: skip


def shown() -> list[str]:
    """The lines of blocks and the words in backticks that run something, in the documents' order."""
    lines = [line for block in all_blocks() if _rules.of_block(block) == "commands" for line in commands(block)]
    words = [span.text for span in all_spans() if _rules.of_words(span.text) in {"command", "program"}]
    return [*dict.fromkeys([*lines, *words])]


def cases() -> list[object]:
    """Commands of ours as `words after python -m bench`, each once."""
    found = [" ".join(words) for text in shown() if (words := _rules.command_of(" ".join(words_of(text))))]
    found += [
        f"{SAID_OF[span.text]} {span.text}"
        for span in all_spans()
        if _rules.of_words(span.text) == "option" and span.text in SAID_OF
    ]
    return [
        pytest.param(one, marks=pytest.mark.slow) if one.startswith(SLOW) else one
        for one in dict.fromkeys(found)
    ]  # fmt: skip


def programs() -> list[str]:
    return [text for text in shown() if text.split()[0] in {"pip", "nox"}]


def strongest(store: Path) -> Store | dict:
    """The finished trial with the most gain: the one whose key and gain stand for the reader's."""
    made = [record for record in Store(store).records() if record["stage"] == "measure" and record["status"] == "ok"]
    return max(made, key=lambda record: record["metrics"].get("gain") or 0)


def damage(store: Path) -> None:
    """A number that its codes do not give."""
    path = store / "records" / f"{strongest(store)['key']}.json"
    record = json.loads(path.read_text())
    record["metrics"]["t_map"] -= 0.3
    path.write_text(json.dumps(record))


def exchanged(text: str, place: Place) -> list[str]:
    """The words of a command with what is there for what the reader has."""
    best = strongest(place.folder / "runs")
    words = text.replace("--store DIR", "--store runs").split()
    words = named(words, KEY=best["key"][:12])
    if words[0] == "new":  # the name of a command alone; a kind without a name
        words += ["--help"] if len(words) == 1 else ["my_part"] if len(words) == 2 else []
    if words[:2] == ["report", "matched"]:  # so small a network gains less or more than the default 0.6 and 0.8
        words = [*words[:2], "--gain", f"{best['metrics']['gain']:.2f}"]
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
        assert "Stages: 1 run" in done(smaller(["run"], STORE))
    assert all(0 < Path(file).stat().st_size < 5e6 for file in files)
    for word, command in _rules.PRINTED.items():
        if command.replace("KEY", words[1] if len(words) > 1 else "") == " ".join(words):
            assert word.replace("~", str(Path.home())) in printed, f"`{text}` does not say {word}"
    if words[0] == "new" and len(words) == 3:
        assert Path(f"{words[2]}.py").is_file()


@pytest.mark.slow
def test_the_largest_plan_as_it_is_written(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place.folder)
    (text,) = (text for text in shown() if "--suite full" in text and text.startswith("python -m bench plan"))
    done(named(text.split()[3:]))


def test_every_word_that_prints_is_looked_for() -> None:
    said = {span.text for span in all_spans()}
    ran = {" ".join(_rules.command_of(text) or []) for text in shown()}
    for word, command in _rules.PRINTED.items():
        assert word in said, f"no document says {word} any more"
        assert command in ran, f"no document shows {command} any more"


@pytest.mark.parametrize("text", [s.text for s in all_spans() if _rules.of_words(s.text) == "option"])
def test_an_option_is_one_of_a_command(text: str) -> None:
    """One with a value is run, above; one alone is looked up."""
    assert {word for word in text.split() if word.startswith("--")} <= _rules.options()
    assert len(text.split()) == 1 or text in SAID_OF, f"`{text}` is not executed: name its command in SAID_OF"


def test_every_command_explains_its_options() -> None:
    """`--help` after a command; every command and option that a document names stands there."""
    for name in _rules.parsers():
        assert name in done([name, "--help"])
    named_ = {word for text in shown() for word in words_of(text) if _rules.command_of(text)}
    assert {word for word in named_ if word.startswith("--")} <= _rules.options()


def test_the_overview(capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m bench` alone: every command of it is one, and the documents explain what it names."""
    printed = done([])
    named_ = re.findall(r"python -m bench (\w+)", printed)
    assert len(named_) > 5
    assert {*named_} - {"COMMAND"} <= {*_rules.parsers()}


def test_every_command_is_in_the_table() -> None:
    """A command that exists and is not in the README is as wrong as one that does not."""
    rows = {word[0] for text in shown() if (word := _rules.command_of(text))}
    assert {*_rules.parsers()} <= rows


def test_a_second_run_takes_everything_from_the_store(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (command,) = (line for line in shown() if line == "python -m bench run")
    monkeypatch.chdir(shutil.copytree(place.folder, tmp_path / "copy"))
    assert "Stages: 0 run (0 trainings)" in done(smaller(command.split()[3:], STORE))


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
    text = " ".join(section("README.md", "What you can do").split())
    said = re.search(r"Exit codes: (.*?)\.", text)
    assert said
    codes = {int(number) for number in re.findall(r"(?:^|[,] )(\d+) ", said.group(1))}
    assert codes == {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert all(str(code) in str(app.info.epilog) for code in codes)
    done(["run", "--suite", "quik"], code=errors.EXIT_USER)


@pytest.mark.parametrize("text", programs())
def test_what_installs_and_checks(text: str) -> None:
    """Pip resolves what is here without installing it; the rest is what CI runs. nox: the session is one."""
    words = words_of(text)
    ci = (ROOT / ".ci" / "run").read_text()
    if words[0] == "nox":
        listed = subprocess.run([sys.executable, "-m", "nox", "--list"], cwd=ROOT, capture_output=True, check=True, text=True)  # fmt: skip
        sessions = {line.split()[1]: line[0] for line in listed.stdout.splitlines() if line[:2] in {"* ", "- "}}
        wanted = words[2:3] if words[1:2] == ["-s"] else [name for name, mark in sessions.items() if mark == "*"]
        assert wanted
        assert {*wanted} <= {*sessions}
        if words == ["nox"]:
            assert all(name in text.partition("#")[2] for name in wanted), "the comment names what it runs"
            assert all(re.search(rf"^nox .*\b{name}\b", ci, re.MULTILINE) for name in wanted)
        for word in words[words.index("--") + 1 :] if "--" in words else []:
            assert word.startswith("-") or (ROOT / word).exists()
        return
    packages = [word for word in words[2:] if not word.startswith("-")]
    if "-e" not in words:
        assert all(re.search(rf"^pip install .*\b{re.escape(package)}\b", ci, re.MULTILINE) for package in packages)
        package = importlib.util.find_spec("hashing.backbones.mobilenet_v2")
        assert package is not None
        assert all(name.replace("-", "_") in Path(str(package.origin)).read_text() for name in packages)
        return
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {extra for word in packages for extra in re.findall(r"\[(.*)\]", word)} <= {*extras}
    offline = ["--dry-run", "--no-deps", "--no-build-isolation"]  # a dry run: the environment is the one of the tests
    done_ = subprocess.run([sys.executable, "-m", *words[:2], *offline, *words[2:]], cwd=ROOT, check=False, capture_output=True, text=True)  # fmt: skip
    assert done_.returncode == 0, done_.stderr[-2000:]
    assert "hashdoor" in done_.stdout


@pytest.mark.slow
@pytest.mark.parametrize("text", [one for one in programs() if one.startswith("nox")])
def test_a_session_begins(text: str, tmp_path: Path) -> None:
    """Sessions that run tests only collect them: one of them would run this one. `lint` and `types` are run."""
    words = words_of(text)
    if words[1:] == [] or words[2:3] == ["bench"]:
        words = ["nox", "-s", "lint", "types"] if words[1:] == [] else [*words, "--", "--quick", "--collect-only"]
    if words[2:3] == ["fuzz"]:
        words = [*words, "--", "suites", "2"]
    elif words[2:3] in (["tests"], ["plugin"]):
        words = [*words, *([] if "--" in words else ["--"]), "--collect-only", "-q"]
    if words[2:3] == ["bench"]:
        pytest.skip("CI runs it: nox -s bench -- --quick")
    done_ = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, check=False, capture_output=True, text=True, env={**os.environ})  # fmt: skip
    assert done_.returncode == 0, done_.stdout[-2000:] + done_.stderr[-2000:]


@pytest.mark.parametrize("text", [s.text for s in all_spans() if _rules.of_words(s.text) == "after nox"])
def test_what_stands_after_a_session(text: str) -> None:
    """Options of the comparison with a base revision, which `nox -s bench` hands on."""
    words = named(text.split()[1:])
    gate = [sys.executable, "tests/benchmarks/gate.py", *words, "--help"]
    done_ = subprocess.run(gate, cwd=ROOT, check=True, capture_output=True, text=True)
    assert words[0] in done_.stdout
    assert words[0] in (ROOT / "noxfile.py").read_text()


@pytest.mark.parametrize("text", [s.text for s in all_spans() if _rules.of_words(s.text) == "variable"])
def test_a_variable_is_read(text: str, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert any(text[1:] == param.envvar for parser in _rules.parsers().values() for param in parser.params)
    monkeypatch.setenv(text[1:], str(place.folder / "nowhere"))
    done(["plan", "--suite", "smoke"], code=errors.EXIT_USER)
