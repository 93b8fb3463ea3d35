"""`bench rerun`, and the recipe that calls it for pull requests with bundles."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from bench.api.errors import EXIT_FAILED_TRIALS, UserError
from bench.cli.rerun import rerun
from bench.engine import draw
from bench.engine.collection import opened
from bench.engine.store import Store
from tests.bundles import Forger

ROOT = Path(__file__).parents[2]
(QUICK,) = (ROOT / "bench" / "reference").glob("quick-*.zip")
SEED = 7


def forged(to: Path) -> Path:
    """The reference with other numbers, by somebody who writes every checksum anew."""
    to.write_bytes(QUICK.read_bytes())
    held = Forger(to)

    def claim(record: dict) -> None:
        if record["stage"] == "measure":
            record["metrics"]["t_map"] = 0.1234

    held.each(claim)
    held.reseal()
    held.save(to)
    return to


def test_a_run_of_which_nothing_can_run_here_is_wrong_input(monkeypatch):
    monkeypatch.setattr(draw, "_planned", lambda *_: (None, "the data are not here"))
    with pytest.raises(UserError, match=re.escape("the data are not here (72 trials)")):
        rerun(Path("reference"))


def test_results_are_not_compared_with_themselves(tmp_path):
    store = Store(tmp_path / "runs", create=True)
    (quick,) = opened(QUICK).runs()
    store.write_run(quick)
    with pytest.raises(UserError, match="results of other runs"):
        rerun(QUICK, seed=SEED, store=store.root, executor="serial")


@pytest.mark.long  # trains a model
def test_a_drawn_trial_agrees_and_a_forged_one_does_not(tmp_path, capsys):
    rerun(QUICK, seed=SEED, store=tmp_path / "store", executor="serial", format_="json")
    said = capsys.readouterr()
    (board,) = json.loads(said.out)
    assert {row["verdict"] for row in board["rows"]} <= {"ok", "ok, above floor"}
    assert f"drawn with seed {SEED} among 72 trials" in said.err
    with pytest.raises(typer.Exit) as stopped:
        rerun(forged(tmp_path / "forged.zip"), seed=SEED, store=tmp_path / "store", executor="serial", format_="json")
    assert stopped.value.exit_code == EXIT_FAILED_TRIALS
    (board,) = json.loads(capsys.readouterr().out)
    assert [row["metric"] for row in board["rows"] if row["verdict"] == "outside"] == ["t-mAP"]


def git(folder: Path, *words: str) -> None:
    about = ("-c", "user.name=A Stranger", "-c", "user.email=stranger@example.org")
    subprocess.run(["git", *about, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def submitted(tmp_path):
    """Runs the recipe on bundles of a pull request, by name. Returns exit code and summary."""
    recipe = yaml.safe_load((ROOT / ".github/workflows/submission.yml").read_text())
    steps = recipe["jobs"]["check"]["steps"]
    (script,) = [step["run"] for step in steps if "rerun" in step.get("run", "")]

    def check(bundles: dict[str, Path]) -> tuple[int, str]:
        theirs, here = tmp_path / "theirs", tmp_path / "here"
        git(tmp_path, "init", "--quiet", str(theirs))
        git(theirs, "commit", "--quiet", "--allow-empty", "-m", "base")
        git(tmp_path, "clone", "--quiet", str(theirs), str(here))
        folder = theirs / "reports/results/submissions"
        folder.mkdir(parents=True)
        for name, bundle in bundles.items():
            shutil.copy(bundle, folder / name)
        (theirs / "bench.py").write_text("raise SystemExit('code of the pull request ran')")
        git(theirs, "add", ".")
        git(theirs, "commit", "--quiet", "-m", "results")
        git(theirs, "update-ref", "refs/pull/1/head", "HEAD")
        summary = tmp_path / "summary"
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        told = {"HEAD": "refs/pull/1/head", "SEED": str(SEED), "GITHUB_STEP_SUMMARY": str(summary)}
        done = subprocess.run(
            ["bash", "-c", script], cwd=here, env={**os.environ, **told, "PATH": path, "PYTHONPATH": str(ROOT)},
            check=False, capture_output=True,
        )  # fmt: skip
        return done.returncode, summary.read_text()

    return check


@pytest.mark.long  # trains a model
def test_the_recipe_accepts_a_sound_bundle(submitted):
    code, said = submitted({"quick.zip": QUICK})
    assert "72 of 72 trials agree with their stored codes" in said
    assert re.search(r"\| *badnets *\|.*\| *ok", said)
    assert said.rstrip().endswith("The trial that ran again agrees.")
    assert code == 0


@pytest.mark.long  # recomputes 72 trials
def test_the_recipe_refuses_numbers_that_do_not_follow_from_the_codes(submitted, tmp_path):
    code, said = submitted({"quick.zip": forged(tmp_path / "forged.zip")})
    assert "Do not use these numbers" in said
    assert "ran again" not in said
    assert code == 1


def test_the_recipe_refuses_other_files(submitted):
    code, said = submitted({"$(touch x).zip": QUICK, "notes.txt": QUICK})
    assert said.count("is no bundle") == 2
    assert code == 1
