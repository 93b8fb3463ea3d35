"""The noise floor: absolute differences of trials that differ in one thing, and how `compare` finds them."""

from __future__ import annotations

import pandas as pd
import pytest

from reports.noise_floor import floor_of, kinds_of, shipped
from tests.experiments.noise_floor import METRICS, SOURCES, floors
from tests.stores import spec


def trials() -> pd.DataFrame:
    """One attack on two machines, two seeds and two targets; t-mAP is a sum of what each of them adds."""
    rows = [
        {
            "attack": "badnets(poison_rate=0.1)", "attack_spec": spec("badnets(poison_rate=0.1)"), "defense": "none",
            "defense_kind": "none", "machine": f"m{machine}", "seed": seed, "target": str(target),
            **dict.fromkeys(METRICS), "t_map": 0.1 * machine + 0.02 * seed + 0.003 * target,
        }
        for machine in range(2) for seed in range(2) for target in range(2)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_a_source_of_differences_is_what_alone_differs() -> None:
    found = {(floor.kind, floor.source): floor for floor in floors(trials())}
    assert found.keys() == {(kind, source) for kind in ("badnets, none", "attacked, none") for source in SOURCES}
    for source, apart in (("machine", 0.1), ("seed", 0.02), ("target", 0.003)):
        floor = found["badnets, none", source]
        assert (floor.metric, floor.pairs) == ("t_map", 4)
        assert [floor.median, floor.p95, floor.largest] == pytest.approx([apart] * 3)


def test_the_narrowest_kind_that_was_measured_counts() -> None:
    assert kinds_of("badnets", "repair") == ("badnets, repair", "attacked, repair")
    assert kinds_of("none", "repair") == ("clean, repair",)
    own, other = (floor_of("t_map", attack, "repair") for attack in ("badnets", "an attack of a plugin"))
    assert (own.kind, other.kind) == ("badnets, repair", "attacked, repair")
    assert floor_of("t_map", "badnets", "a kind of the future") is None


def test_the_shipped_floors_are_ordered_and_have_every_metric_and_source() -> None:
    floors_ = shipped().values()
    assert all(0 <= floor.median <= floor.p95 <= floor.largest and floor.pairs > 0 for floor in floors_)
    assert {floor.metric for floor in floors_} == {*METRICS}
    assert {floor.source for floor in floors_} == {*SOURCES}
