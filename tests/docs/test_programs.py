"""What the documents show of pip and nox, and the variable of the environment."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from bench.api import errors
from tests.docs import _shown
from tests.docs._markdown import ROOT, section
from tests.docs._small import done, words_of


def programs() -> list[str]:
    return [text for text in _shown.shown() if text.split()[0] in {"pip", "nox"}]


def program(*words: str) -> subprocess.CompletedProcess[str]:
    """`python -m` these words, in the repository."""
    done_ = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done_.returncode == 0, done_.stdout[-2000:] + done_.stderr[-2000:]
    return done_


@pytest.mark.parametrize("text", programs())
def test_what_installs_and_checks(text: str) -> None:
    """Pip resolves what is here without installing it; the rest is what CI runs. nox: the session is one."""
    words = words_of(text)
    ci = (ROOT / ".ci" / "run").read_text()
    if words[0] == "nox":
        listed = program("nox", "--list")
        sessions = {line.split()[1]: line[0] for line in listed.stdout.splitlines() if line[:2] in {"* ", "- "}}
        wanted = words[2:3] if words[1:2] == ["-s"] else [name for name, mark in sessions.items() if mark == "*"]
        assert wanted
        assert {*wanted} <= {*sessions}
        if words == ["nox"]:
            assert all(name in text.partition("#")[2] for name in wanted), "the comment names what it runs"
            assert all(re.search(rf"^nox .*\b{name}\b", ci, re.MULTILINE) for name in wanted)
        for word in words[words.index("--") + 1 :] if "--" in words else []:
            assert word.startswith("-") or word.isupper() or (ROOT / word).exists()
        return
    packages = [word for word in words[2:] if not word.startswith("-")]
    if "-e" not in words:
        assert all(re.search(rf"^pip install .*\b{re.escape(package)}\b", ci, re.MULTILINE) for package in packages)
        code = "".join(file.read_text() for file in (ROOT / "hashing" / "backbones").glob("*.py"))
        assert all(f'"{name.replace("-", "_")}"' in code for name in packages)
        return
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {extra for word in packages for extra in re.findall(r"\[(.*)\]", word)} <= {*extras}
    offline = ["--dry-run", "--no-deps", "--no-build-isolation"]  # a dry run: the environment is the one of the tests
    assert "hashdoor" in program(*words[:2], *offline, *words[2:]).stdout


@pytest.mark.slow
@pytest.mark.parametrize("text", [one for one in programs() if one.startswith("nox")])
def test_a_session_begins(text: str) -> None:
    """Sessions that run tests only collect them: one of them would run this one. `lint` and `types` are run."""
    words = words_of(text)
    if words[1:] == [] or words[2:3] == ["bench"]:
        words = ["nox", "-s", "lint", "types"] if words[1:] == [] else [*words, "--", "--quick", "--collect-only"]
    if words[2:3] == ["fuzz"]:
        words = [*words, "--", "suites", "2"]
    elif words[2:3] in (["tests"], ["portable"], ["plugin"], ["faults"]):
        words = [*words, *([] if "--" in words else ["--"]), "--collect-only", "-q"]
    if words[2:3] == ["bench"]:
        pytest.skip("CI runs it: nox -s bench -- --quick")
    if words[2:3] == ["gpu"]:
        pytest.skip("eight minutes on a machine with a GPU")
    program(*words)


def test_the_gate_takes_the_options_that_nox_hands_on() -> None:
    """`-- --quick` and `-- --against REVISION`, as CONTRIBUTING shows them."""
    gate = [sys.executable, "tests/benchmarks/gate.py", "--against", "HEAD", "--quick", "--help"]
    printed = subprocess.run(gate, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    shown = section("CONTRIBUTING.md", "Kernel benchmark")
    for option in ("--quick", "--against"):
        assert option in printed
        assert f"`nox -s bench -- {option}" in shown
        assert option in (ROOT / "noxfile.py").read_text()


def test_the_variable_of_the_data_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "`$HASHDOOR_DATA`" in section("hashing/README.md", "Data")
    monkeypatch.setenv("HASHDOOR_DATA", str(tmp_path / "nowhere"))
    done(["plan", "--suite", "smoke"], code=errors.EXIT_USER)
