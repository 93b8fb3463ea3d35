"""The self-check: what of a run counts as the same as the shipped reference, and what does not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import typer

from bench.api.errors import EXIT_FAILED_TRIALS, UserError
from bench.cli import selfcheck as command
from bench.config import suite
from bench.engine.collection import opened
from reports import frame, selfcheck
from reports.compare import pairs
from reports.frame import Results
from reports.selection import narrow
from reports.selfcheck import ONLY, SUITE, Verdict, of


@pytest.fixture(scope="module")
def reference() -> Results:
    return frame.read(opened(Path("reference")), suite=SUITE)


@pytest.fixture
def rerun(reference) -> Results:
    """The trials of the check as the reference has them."""
    return narrow(reference, list(ONLY))


def changed(results: Results, attack: str, defense: str, **values: object) -> Results:
    """The results with other values of one trial."""
    trials = results.trials.copy()
    rows = (trials["attack"] == attack) & (trials["defense"] == defense)
    assert rows.sum() == 1
    for name, value in values.items():
        trials.loc[rows, name] = value
    return replace(results, trials=trials)


def verdicts(reference: Results, measured: Results) -> dict[tuple[str, str, str], Verdict]:
    return {(one.attack, one.defense, one.metric): one.verdict for one in of(reference, measured).checks}


def test_every_trial_of_the_check_has_an_expected_value(reference, rerun):
    planned = {
        (trial.axes()["attack"], trial.axes()["defense"], trial.axes()["target"])
        for trial in suite.load(SUITE, only=list(ONLY)).trials(None)
    }
    assert {(attack, defense) for attack, defense, _ in planned} == {
        (attack, defense) for attack in selfcheck.ATTACKS for defense in selfcheck.DEFENSES
    }
    assert planned == set(rerun.trials[["attack", "defense", "target"]].itertuples(index=False, name=None))
    assert {pair.axes["attack"] for pair in pairs(reference, rerun)} == set(selfcheck.ATTACKS)


def test_the_reference_agrees_with_itself(reference, rerun):
    found = of(reference, rerun)
    assert found.passed
    assert {check.verdict for check in found.checks} == {Verdict.OK}
    assert found.sentence == "Verdict: passed. 24 of 24 values are inside their allowed range."
    assert found.machines.endswith("(the same machine).")


def test_an_attack_that_does_not_work_is_outside(reference, rerun):
    found = of(reference, changed(rerun, "badnets", "none", t_map=0.4, own_map=0.9))
    assert not found.passed
    outside = {(one.attack, one.defense, one.metric) for one in found.checks if one.verdict is Verdict.OUTSIDE}
    assert outside == {("badnets", "none", "t-mAP"), ("badnets", "none", "own-mAP")}
    assert found.sentence == "Verdict: failed. 22 of 24 values are inside their allowed range; 2 outside."


def test_a_repair_that_does_nothing_is_outside(reference, rerun):
    trials = rerun.trials.set_index(["attack", "defense"])
    without = {name: trials.loc[("badnets", "none"), name] for name in ("t_map", "own_map", "gain")}
    found = verdicts(reference, changed(rerun, "badnets", "fine_pruning", **without))
    assert [found["badnets", "fine_pruning", metric] for metric in ("t-mAP", "own-mAP", "gain")] == [
        Verdict.OUTSIDE
    ] * 3


@pytest.mark.parametrize(
    ("part", "verdict"),
    [("floor", Verdict.OK), ("between", Verdict.RARE), ("allowance", Verdict.RARE), ("beyond", Verdict.OUTSIDE)],
)
def test_a_value_is_judged_by_the_floor_and_the_allowed_range(reference, rerun, part, verdict):
    (check,) = [
        one for one in of(reference, rerun).checks if (one.attack, one.defense, one.metric) == ("none", "none", "mAP")
    ]
    assert 0 < check.floor < check.allowance
    by = {"floor": check.floor, "between": (check.floor + check.allowance) / 2, "allowance": check.allowance,
          "beyond": check.allowance + 1e-4}[part] - 1e-9  # fmt: skip
    found = verdicts(reference, changed(rerun, "none", "none", map=check.expected - by))
    assert found["none", "none", "mAP"] is verdict


def test_the_allowed_difference_is_the_largest_that_was_measured_by_machine_or_seed(reference, rerun):
    text = (Path(selfcheck.__file__).parent / "assets" / "noise_floor.json").read_text(encoding="utf-8")
    largest = max(
        one["largest"]
        for one in json.loads(text)["floors"]
        if (one["metric"], one["kind"]) == ("t_map", "badnets, none") and one["source"] in {"machine", "seed"}
    )
    (check,) = [
        one
        for one in of(reference, rerun).checks
        if (one.attack, one.defense, one.metric) == ("badnets", "none", "t-mAP")
    ]
    assert check.allowance == largest


def test_a_trial_without_a_result_fails_the_check_and_says_why(reference, rerun):
    found = of(reference, changed(rerun, "blend", "strip", status="failed", reason="it broke"))
    assert not found.passed
    assert found.sentence.endswith("trials without a result: 1.")
    board = selfcheck.board(found)
    assert "No result: it broke." in board.caption
    (row,) = board.table[board.table["verdict"] == "no result"].to_dict("records")
    assert (row["attack"], row["defense"]) == ("blend", "strip")
    assert pd.isna(row["measured"])


def test_a_trial_that_the_reference_lacks_is_no_success(reference, rerun):
    found = of(narrow(reference, ["attack=none,badnets"]), rerun)
    assert {check.reason for check in found.checks if check.verdict is Verdict.NO_RESULT} == {
        "the published run has no such trial"
    }
    assert not found.passed


def test_a_store_that_cannot_be_used_is_wrong_input(tmp_path):
    (tmp_path / "file").write_text("no store")
    with pytest.raises(UserError):
        command.selfcheck(store=tmp_path / "file")


@pytest.mark.long  # trains two models
def test_the_command_runs_what_is_missing_and_compares_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(selfcheck, "ONLY", ("attack=none,badnets", "defense=none", "target=0"))
    command.selfcheck(store=tmp_path / "check", executor="serial")
    first = capsys.readouterr().out
    assert "Verdict: passed. 7 of 7 values" in " ".join(first.split())
    command.selfcheck(store=tmp_path / "check", format_="json")
    (board,) = json.loads(capsys.readouterr().out)
    assert [row["metric"] for row in board["rows"]] == ["mAP", "t-mAP", "own-mAP", "mAP", "t-mAP", "gain", "own-mAP"]
    monkeypatch.setattr(
        selfcheck, "of", lambda reference, measured: of(reference, changed(measured, "badnets", "none", t_map=0.2))
    )
    with pytest.raises(typer.Exit) as stopped:
        command.selfcheck(store=tmp_path / "check")
    assert stopped.value.exit_code == EXIT_FAILED_TRIALS
