"""Estimates are medians over stages like the one asked for, in the store or among measured costs, else similar ones."""

from __future__ import annotations

import pytest

from bench.artifacts.inputs import STAGES
from bench.engine.estimator import MeasuredCosts, RuntimeEstimator, calibration, shipped
from bench.graph.labels import CostGroup, cost_group_of
from tests.stores import record


def spec(name: str, steps: int = 1) -> dict[str, object]:
    return {"dataset": {"name": name, "params": {"train": steps}}}


def group(kind: str, name: str, steps: int = 1) -> CostGroup:
    return cost_group_of(kind, spec(name, steps))


SMALL, MORE, LARGE, OTHER = (group("train", *of) for of in (("small",), ("small", 5), ("large",), ("other",)))
ENCODE = group("encode", "small")
NOTHING = MeasuredCosts(1.0, {}, {})


def done(key: str, kind: str, of: dict[str, object], seconds: float, size: int | None = None, status: str = "ok"):
    artifact = None if size is None else {"sha256": "0" * 64, "bytes": size}
    cost = {"seconds": seconds, "started": 0.0, "host": "here"}
    return record(key, kind, spec=of, status=status, cost=cost, artifact=artifact)


def test_seconds_are_those_of_the_group_else_of_the_setting_else_of_the_kind() -> None:
    records = [done("a", "train", spec("small"), 4.0), done("b", "train", spec("small"), 1.0)]
    estimator = RuntimeEstimator([*records, done("c", "train", spec("large"), 9.0)], NOTHING)
    assert estimator.seconds(SMALL) == 2.5
    assert estimator.seconds(MORE) == pytest.approx(5 * 2.5), "the same setting with five times as many images"
    assert estimator.seconds(OTHER) == pytest.approx(4.0)
    assert estimator.seconds(ENCODE) == 0.0
    assert [estimator.has_history(one) for one in (SMALL, MORE, OTHER)] == [True, False, False]
    assert estimator.total({SMALL: 2, ENCODE: 1, LARGE: 0}) == 2 * 2.5


@pytest.mark.parametrize(
    ("kind", "factor"), [("train", 4 * 10 * 8), ("implant", 4 * 10 * 8), ("encode", 4), ("make_trigger", 4)]
)
def test_a_stage_without_history_costs_as_much_more_as_it_computes(kind: str, factor: int) -> None:
    """Twice the side of images is four times the pixels; only training sees all images in each epoch."""

    def of(name: str, size: int, train: int, epochs: int) -> CostGroup:
        params = {"size": size, "train": train, "query": 10 * size}
        attack = {"name": "x", "params": {"epochs": 3}}
        spec = {"dataset": {"name": name, "params": params}, "attack": attack, "recipe": {"epochs": epochs}}
        return cost_group_of(kind, spec)

    estimator = RuntimeEstimator([], MeasuredCosts(calibration(), {of("small", 16, 100, 5): 2.0}, {}))
    for name in ("small", "other"):
        assert estimator.seconds(of(name, 32, 1000, 40)) == pytest.approx(2.0 * factor)


def test_a_data_set_without_a_size_of_its_own_counts_as_a_large_one() -> None:
    def of(name: str, **params: int) -> CostGroup:
        return cost_group_of("train", {"dataset": {"name": name, "params": params}, "recipe": {"epochs": 2}})

    estimator = RuntimeEstimator([], MeasuredCosts(calibration(), {of("digits", size=16, train=800): 2.0}, {}))
    assert estimator.seconds(of("listed", size=224)) > 1000 * 2.0


def test_measured_costs_are_scaled_by_the_speed_of_this_machine() -> None:
    measured = MeasuredCosts(calibration() / 2, {SMALL: 3.0, MORE: 15.0, ENCODE: 1.0}, {})
    estimator = RuntimeEstimator([], measured)
    assert estimator.seconds(MORE) == pytest.approx(30.0), "this machine is half as fast"
    assert estimator.seconds(group("train", "small", 9)) == pytest.approx(9 * 2 * 3.0)
    assert not estimator.has_history(MORE)


def test_three_groups_tell_the_speed_better_than_the_calibration() -> None:
    kinds = ("train", "encode", "measure")
    measured = MeasuredCosts(1e9, {**{group(kind, "small"): 1.0 for kind in kinds}, MORE: 10.0}, {})
    records = [done(key, kind, spec("small"), cost) for key, kind, cost in zip("abc", kinds, (2, 4, 9), strict=True)]
    estimator = RuntimeEstimator([], measured)
    before = estimator.seconds(MORE)
    for one in records:
        estimator.observe(one)
    assert estimator.seconds(MORE) == 40.0 != before, "also while a run goes on"


def test_what_the_store_has_counts_before_what_was_measured_elsewhere() -> None:
    measured = MeasuredCosts(calibration(), {SMALL: 100.0}, {SMALL: 1e6})
    estimator = RuntimeEstimator([done("a", "train", spec("small"), 2.0, 10)], measured)
    assert estimator.seconds(SMALL) == 2.0
    assert estimator.total_bytes({SMALL: 1}) == 10.0


def test_failures_teach_nothing() -> None:
    estimator = RuntimeEstimator([done("a", "train", spec("small"), 100.0, status="timeout")], NOTHING)
    assert not estimator.has_history(SMALL)
    assert estimator.seconds(SMALL) == 0.0


def test_bytes_are_those_of_the_group_else_of_similar_ones() -> None:
    records = [done("a", "train", spec("small"), 1.0, 10), done("b", "train", spec("small"), 1.0, 30)]
    estimator = RuntimeEstimator(records, NOTHING)
    assert estimator.total_bytes({SMALL: 3, OTHER: 1, ENCODE: 1}) == 4 * 20
    assert estimator.total_bytes({}) == 0.0


def test_the_shipped_costs_know_every_kind_of_stage() -> None:
    known = shipped()
    assert {one.stage for one in known.seconds} == STAGES.keys()
    assert all(seconds > 0 for seconds in known.seconds.values())
