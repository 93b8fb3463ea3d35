"""Two stores side by side: what counts as a change, what as noise, and what is lost."""

from __future__ import annotations

import pytest
import typer

from bench.api.errors import UserError
from bench.cli import results as command
from reports import frame
from reports.compare import compare
from reports.noise_floor import floor_of
from tests.stores import record


def trials(shift=(), **changes):
    """Three targets by three seeds of one attack; `shift` is added to the t-mAP of each in turn."""
    places = [(str(target), seed) for target in range(3) for seed in range(3)]
    moved = [*shift, *[0.0] * (len(places) - len(shift))]
    return [
        {"attack": "loud", "defense": "none", "target": target, "seed": seed, "metrics": {"t_map": 0.5 + by}, **changes}
        for (target, seed), by in zip(places, moved, strict=True)
    ]


@pytest.fixture
def verdicts(stock):
    """What is found between two runs: {metric: verdict} of the rows that are shown, and all of it."""

    def find(one, other):
        a, b = stock(one, folder="a"), stock(other, folder="b")
        found = compare(frame.read(a), frame.read(b), a, b)
        rows = found.boards[0].table.to_dict("records")
        return {row["metric"]: row["verdict"] for row in rows}, found

    return find


def test_equal_stores_have_nothing_to_show(verdicts):
    rows, found = verdicts(trials(), trials([1e-12]))
    assert rows == {}
    assert not found.changed
    assert found.counts == {"equal": 4, "within noise": 0}
    assert [board.title for board in found.boards] == [
        "Changes (B minus A)", "Noise floor by metric", "Other differences",
    ]  # fmt: skip
    assert found.boards[-1].table.empty


def test_a_shift_of_all_cells_is_beyond_noise_and_one_that_scatters_is_not(verdicts):
    rows, found = verdicts(trials(), trials([0.1] * 9))
    assert rows == {"t-mAP": "beyond noise"}
    assert found.changed
    (row,) = found.boards[0].table.to_dict("records")
    assert (row["A"], row["B"], row["difference"], row["n"]) == pytest.approx((0.5, 0.6, 0.1, 9))
    assert row["difference ±"] == pytest.approx(0.0, abs=1e-9)
    rows, found = verdicts(trials(), trials([0.1, -0.1, 0.05, -0.2, 0.2, -0.02, 0.1, -0.1, 0.0]))
    assert rows == {"t-mAP": "within noise"}
    assert not found.changed


@pytest.mark.parametrize(("by", "verdict", "changed"), [(-0.001, "within", False), (0.001, "beyond", True)])
def test_a_single_cell_is_compared_with_the_noise_floor(verdicts, by, verdict, changed):
    floor = floor_of("t_map", "loud", "none").p95
    rows, found = verdicts(trials()[:1], trials([floor + by])[:1])
    assert rows == {"t-mAP": f"no interval, {verdict} the noise floor {floor:.3f}"}
    assert found.changed == changed


def test_each_metric_is_inside_or_outside_its_noise_floor(verdicts):
    """Of two attacks one moves by less than the floor and one by more; their mAP does not move."""
    floor = floor_of("t_map", "loud", "none").p95
    one = [*trials()[:1], *({**trial, "attack": "other"} for trial in trials()[:1])]
    moved = [
        {**trial, "metrics": {"t_map": 0.5 + by}}
        for trial, by in zip(one, (floor - 0.001, -floor - 0.002), strict=True)
    ]
    _, found = verdicts(one, moved)
    rows = {row["metric"]: row for row in found.boards[1].table.to_dict("records")}
    assert [rows["t-mAP"][name] for name in ("rows", "equal", "inside", "outside")] == [2, 0, 1, 1]
    assert rows["t-mAP"]["difference"] == pytest.approx(floor + 0.002)
    assert rows["t-mAP"]["its floor"] == floor
    assert (rows["mAP"]["equal"], rows["mAP"]["inside"], rows["mAP"]["outside"]) == (2, 0, 0)


def test_only_cells_of_both_count_and_a_lost_result_is_a_change(verdicts):
    whole, broken = trials(), trials()
    broken[0] = {**broken[0], "status": "failed", "reason": "it broke"}
    rows, found = verdicts(whole, broken)
    assert rows == {}
    (lost,) = found.boards[1].table.to_dict("records")
    assert (lost["only in"], lost["trials"], lost["missing because"]) == ("A", 1, "it broke")
    assert found.changed
    assert not verdicts(broken, whole)[1].changed  # a result won


def test_other_training_is_another_trial_and_other_code_is_named(verdicts):
    _, found = verdicts(trials(training={"epochs": 3}), trials(training={"epochs": 4}))
    assert found.boards[0].table.empty
    assert set(found.boards[1].table["only in"]) == {"A", "B"}
    _, found = verdicts(trials(code="one"), trials(code="two"))
    assert "code" in set(found.boards[-1].table["what"])


def test_other_code_of_an_attack_is_named(stock):
    a, b = stock(trials(implant="aaaa"), folder="a"), stock(trials(implant="bbbb"), folder="b")
    for store, code in ((a, "one"), (b, "two")):
        store.write_record(record("aaaa", "implant", code="one"))
        store.write_record(record("bbbb", "implant", code=code))
    assert "code of loud and defense none" in set(compare(frame.read(a), frame.read(b), a, b).boards[-1].table["what"])
    assert compare(frame.read(a), frame.read(a), a, a).boards[-1].table.empty


def test_the_command_ends_with_one_where_something_changed(stock, capsys):
    a, b = stock(trials(), folder="a"), stock(trials([0.1] * 9), folder="b")
    command.compare(a.root, a.root)
    with pytest.raises(typer.Exit) as stop:
        command.compare(a.root, b.root)
    assert stop.value.exit_code == 1
    assert "beyond noise" in capsys.readouterr().out


def test_two_runs_of_one_store_are_compared_by_their_ids(stock, capsys):
    store = stock(trials(), trials([0.1] * 9))
    earlier, later = (run.id for run in store.runs())
    with pytest.raises(typer.Exit):
        command.compare(store.root, run=[earlier, later])
    assert "beyond noise" in capsys.readouterr().out
    command.compare(store.root, run=[later, later])
    with pytest.raises(UserError, match="one store is given") as caught:
        command.compare(store.root, run=[earlier])
    assert "--run ID --run ID" in caught.value.hint
    with pytest.raises(UserError, match="3 times"):
        command.compare(store.root, store.root, run=["latest"] * 3)


def test_the_leaderboard_ends_with_the_command_of_the_run_in_one_line(stock, capsys):
    store = stock(trials(), suite="'toy\nnote: forged'")
    command.leaderboard(store.root)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"Run {store.runs()[0].id}: python -m bench run --suite")
    assert last.endswith("note: forged'")


def test_stores_without_a_common_number_are_said_to_be_not_compared(verdicts):
    """A collapsed model has no numbers: "no number changed" would be read as agreement."""
    dead = [{**trial, "metrics": {**trial["metrics"], "collapsed": 1.0}} for trial in trials()]
    assert "Nothing was compared" in verdicts(dead, dead)[1].boards[0].caption
    assert "Nothing was compared" not in verdicts(trials(), trials())[1].boards[0].caption
