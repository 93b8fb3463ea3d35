import json
from dataclasses import replace

import pytest

from bench.api.errors import UserError
from bench.config.trial import Spec
from bench.engine.record import RunManifest
from bench.engine.store import Store
from bench.metrics import METRICS
from reports.frame import columns, detector_metrics, read
from tests.reports.board_data import trial
from tests.stores import planned

DETECTED = {"detectors": {"headline": "entropy", "scores": {
    "entropy": {"auroc": 0.9, "tpr_1": 0.1, "alarms_5_control": 0.04}, "other": {"auroc": None}}}}  # fmt: skip


def test_one_row_per_cell_with_all_columns(stock):
    frame = read(stock([trial(), trial("loud", seed=1, training={"lr": 0.1})])).trials
    assert tuple(frame.columns) == columns()
    assert len(frame) == 2
    row = frame.iloc[1]
    assert (row["attack"], row["seed"], row["access"], row["status"]) == ("loud", 1, "dirty-label", "ok")
    assert (row["t_map"], row["classes"], row["protocol"], row["protocol_version"]) == (0.8, 10, "toy", "2")
    assert (row["changes"], frame.iloc[0]["changes"]) == ("lr 0.1", "")
    assert (row["recipe"], frame.iloc[0]["recipe"]) == ({"lr": 0.1}, {})
    assert row["training"] != frame.iloc[0]["training"]


def test_components_stand_beside_their_labels(stock):
    frame = read(stock([trial("loud(dose=0.5)"), trial("loud(dose=1)", "repair"), trial()])).trials
    assert [spec.label for spec in frame["attack_spec"]] == list(frame["attack"])
    assert [spec.params.get("dose") for spec in frame["attack_spec"]] == [0.5, 1, None]
    assert frame.groupby("attack_spec", sort=False).size().tolist() == [1, 1, 1]
    assert set(frame["defense_spec"]) == {Spec("none"), Spec("repair")}


def test_every_metric_is_in_one_of_the_frames():
    assert set(METRICS) <= {*columns(), *detector_metrics()}


def test_cells_without_a_result_have_a_status_a_reason_and_no_metrics(stock):
    frame = read(
        stock([
            trial("loud", status="failed", reason="it broke"),
            trial("quiet", status="skipped", reason="no data"),
            trial("kept", status="missing"),
        ])
    ).trials  # fmt: skip
    assert list(frame["status"]) == ["failed", "skipped", "missing"]
    assert list(frame["reason"])[:2] == ["it broke", "no data"]
    assert frame["t_map"].isna().all()
    assert frame["key"].iloc[1] == ""


def test_what_a_failure_blocked_is_missing_once_the_cause_succeeded(stock):
    store = stock(
        [trial("loud", status="failed", reason="x", cause="10ad"), trial("quiet", status="failed", cause="dead")]
    )
    assert list(read(store).trials["status"]) == ["missing", "failed"]


def test_the_latest_run_or_all(stock):
    store = stock([trial("loud", metrics={"t_map": 0.1}), trial("quiet")], [trial("loud", metrics={"t_map": 0.2})])
    assert list(read(store).trials["t_map"]) == [0.2]
    both = read(store, run="all").trials
    assert sorted(zip(both["attack"], both["t_map"], strict=True)) == [("loud", 0.2), ("quiet", 0.8)]


@pytest.mark.parametrize("status", ["failed", "missing", "skipped"])
def test_with_all_no_later_run_hides_a_result(stock, status):
    """The newest result counts; without any result, the newest reason."""
    later = {"status": status, "reason": "later"}
    store = stock(
        [trial("loud", metrics={"t_map": 0.1}), trial("quiet", status="failed", reason="before")],
        [trial("loud", metrics={"t_map": 0.2}), trial("quiet", **later), trial("kept")],
        [trial("loud", **later)],
    )
    frame = read(store, run="all").trials.set_index("attack")
    assert dict(frame["status"]) == {"loud": "ok", "quiet": status, "kept": "ok"}
    assert frame["t_map"]["loud"] == 0.2
    assert "before" not in frame["reason"]["quiet"]
    assert list(read(store).trials["status"]) == [status]


def test_with_all_a_collapsed_victim_is_the_newest_result(stock):
    frame = read(stock([trial("loud")], [trial("loud", metrics=DEAD)]), run="all").trials
    assert list(frame["status"]) == ["collapsed"]


@pytest.mark.parametrize(("later", "shown"), [("ok", ["ok", "skipped"]), ("failed", ["skipped", "ok"])])
def test_one_model_for_all_seeds_counts_once_with_a_result(stock, later, shown):
    runs = [trial("loud", seed=0, seed_dependent=False)], [trial("loud", seed=1, seed_dependent=False, status=later)]
    frame = read(stock(*runs), run="all").trials
    assert list(frame["seed"]) == [1, 0]
    assert list(frame["status"]) == shown


def test_suites(stock):
    store = stock([trial()], suite="toy")
    assert read(store, suite="toy").suites == {"toy": "A toy."}
    with pytest.raises(UserError, match="did you mean 'toy'"):
        read(store, suite="toi")


def test_an_empty_store_and_a_foreign_plan(stock):
    store = stock()
    with pytest.raises(UserError, match="no run"):
        read(store)
    (store.root / "manifests" / "x.json").write_text(json.dumps({"schema": 99}))
    with pytest.raises(UserError, match=r"x\.json"):
        read(store)


def test_detectors_are_a_frame_of_their_own(stock):
    frame = read(stock([trial("loud", "input_detector", metrics=DETECTED), trial("loud")])).detectors
    assert list(frame["score"]) == ["entropy", "other"]
    assert list(frame["headline"]) == [True, False]
    assert frame["auroc"].iloc[0] == 0.9
    assert frame["auroc"].isna().iloc[1]
    assert (frame["attack"] == "loud").all()


def test_a_metric_that_is_no_number_is_no_value(stock):
    frame = read(stock([trial("loud", metrics={"t_map": "[bold]0.9", "unheard_of": 1})])).trials
    assert frame["t_map"].isna().all()


def test_keys_are_those_of_the_records(stock):
    store = stock([trial("loud")])
    assert store.record(read(store).trials["key"].iloc[0]).label == "measure loud"


HEALTH = {"map_clean": 0.81, "map_chance": 0.1}
DEAD = {**HEALTH, "map": 0.34, "collapsed": 1.0}


def test_a_collapsed_victim_is_no_result_but_keeps_its_numbers(stock):
    frame = read(
        stock([trial("loud", metrics=DEAD), trial("quiet", metrics={**HEALTH, "collapsed": 0.0}), trial("kept")])
    ).trials
    assert list(frame["status"]) == ["collapsed", "ok", "ok"], "records of before the field count as before"
    assert frame["reason"].iloc[0] == "victim collapsed (mAP 0.34, clean 0.81, chance 0.10)"
    assert (frame["map"].iloc[0], frame["collapsed"].iloc[0]) == (0.34, 1.0)


def test_a_clean_model_that_learnt_nothing_is_named_as_such(stock):
    frame = read(
        stock([trial("loud", metrics={"map": 0.12, "map_clean": 0.12, "map_chance": 0.1, "collapsed": 1.0})])
    ).trials
    assert frame["reason"].iloc[0] == "clean model collapsed (mAP 0.12, chance 0.10)"


def test_what_was_made_of_a_collapsed_victim_is_none_either(stock):
    """`measure` cannot judge the victim of a repaired model: that cell has the same implant as the undefended one."""
    trials = [
        trial("loud", metrics=DEAD, implant="a1"),
        trial("loud", "repair", metrics={**HEALTH, "collapsed": 0.0}, implant="a1"),
        trial("loud", "repair", seed=1, metrics={**HEALTH, "collapsed": 0.0}, implant="b2"),
    ]
    frame = read(stock(trials)).trials
    assert list(frame["status"]) == ["collapsed", "collapsed", "ok"]
    assert frame["reason"].iloc[1] == frame["reason"].iloc[0]
    assert list(frame["collapsed"]) == [1.0, 1.0, 0.0]


def test_a_flag_that_is_no_number_is_no_flag(stock):
    assert (
        read(stock([trial("loud", metrics={"collapsed": "yes", "map_clean": None})])).trials["status"].iloc[0] == "ok"
    )
    odd = {"collapsed": 1.0, "map": None, "map_clean": "x", "map_chance": None}
    assert "clean unknown" in read(stock([trial("loud", metrics=odd)])).trials["reason"].iloc[0]


@pytest.mark.parametrize(
    "axes",
    [
        [{"target": ("a+b",)}, {"target": ("a", "b")}],
        [{"attack": Spec("loud", given, given)} for given in ({"path": "x", "size": 16}, {"path": "x, size=16"})],
    ],
)
def test_trials_whose_labels_are_equal_are_two_trials(tmp_path, axes):
    """The class "a+b" and the set of the classes "a" and "b"; the commas of a text and those between parameters."""
    trials = [replace(planned("", {}).trial, **one) for one in axes]
    assert trials[0].axes() == trials[1].axes()
    store = Store(tmp_path, create=True)
    lines = [replace(planned(None, {}, skipped="no"), trial=one) for one in trials]
    store.write_run(RunManifest(suites=["toy"], command="x", trials=lines))
    assert len(read(store).trials) == 2
