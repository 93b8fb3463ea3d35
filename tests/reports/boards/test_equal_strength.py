"""Defenses at equal strength: which variant stands for an attack, and what defending it does, by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from bench.api.errors import UserError
from reports.boards.equal_strength import MEAN, WORST, Chosen, choose, equal_strength
from reports.context import contexts
from reports.frame import read
from reports.statistics import crossed_interval
from tests.reports.board_data import data_of, trial

GAIN = {"loud(dose=1)": 0.2, "loud(dose=2)": 0.55, "loud(dose=3)": 0.9, "quiet(dose=1)": 0.7, "kept(dose=1)": 0.1}


def run(targets="01", seeds=(0, 1), after=0.2):
    trials = []
    for target, seed in itertools.product(targets, seeds):
        place = {"target": target, "seed": seed}
        for attack, usual in GAIN.items():
            gain = usual + 0.01 * seed
            trials.append(trial(attack, metrics={"gain": gain, "own_map": 0.2, "map": 0.9}, **place))
            left = {"gain": gain - after - 0.1 * int(target), "own_map": 0.6, "map": 0.8 - 0.1 * ("quiet" in attack)}
            trials.append(trial(attack, "repair", metrics=left, **place))
            scores = {"entropy": {"auroc": gain, "tpr_5": 0.5}, "other": {"auroc": 1.0}}
            guarded = {"gain": gain, "detectors": {"headline": "entropy", "scores": scores}}
            trials.append(trial(attack, "input_detector", metrics=guarded, **place))
        trials.append(trial("none", metrics={"map": 0.9}, **place))
        trials.append(trial("none", "repair", metrics={"map": 0.88 - 0.02 * seed}, defend=f"c{seed}", **place))
    return trials


def test_each_attack_is_met_at_the_strength_nearest_to_one_gain(stock):
    repairs, detectors = equal_strength(data_of(read(stock(run()))))
    assert list(repairs.table["attack"]) == ["loud(dose=2)", "quiet(dose=1)", MEAN, WORST]
    chosen = choose(repairs.basis.context, 0.6)
    assert chosen.near == pytest.approx({"loud(dose=2)": 0.555, "quiet(dose=1)": 0.705})
    assert chosen.far == pytest.approx({"kept": 0.105})
    table = repairs.table.set_index("attack")
    # removed: 0.2 for target 0, 0.3 for target 1
    assert table["removed"].to_dict() == pytest.approx(dict.fromkeys(table.index, 0.25))
    assert table["own-mAP back"].to_dict() == pytest.approx(dict.fromkeys(table.index, 0.4))
    lost = {"loud(dose=2)": 0.1, "quiet(dose=1)": 0.2, MEAN: 0.15, WORST: 0.2}
    assert table["mAP lost"].to_dict() == pytest.approx(lost)
    # a clean model is one model whatever target stands beside it: seeds 0 and 1 lose 0.02 and 0.04
    assert table["mAP lost clean"].to_dict() == pytest.approx(dict.fromkeys(table.index, 0.03))
    expected = crossed_interval(np.array([[0.2, 0.2], [0.3, 0.3]]))
    assert table.loc["loud(dose=2)", "removed ±"] == pytest.approx(expected.half)
    assert detectors.table["attack"].tolist() == ["quiet(dose=1)", "loud(dose=2)"]
    assert detectors.table["AUROC"].tolist() == pytest.approx([0.705, 0.555]), "the main score, not the better one"


def test_another_gain_asks_other_variants(stock):
    (repairs, _) = equal_strength(data_of(read(stock(run()))), gain=0.15)
    assert list(repairs.table["attack"])[:2] == ["loud(dose=1)", "kept(dose=1)"]


def test_a_variant_that_is_not_finished_stands_for_nothing(stock):
    trials = [one for one in run() if (one["attack"], one["defense"], one["target"]) != ("loud(dose=2)", "none", "1")]
    lost = [trial("loud(dose=2)", target="1", seed=s, status="missing") for s in (0, 1)]
    repairs, _ = equal_strength(data_of(read(stock([*trials, *lost]))))
    assert not repairs.table["attack"].str.startswith("loud").any()


def test_no_attack_near_it_is_said_with_the_nearest(stock):
    trials = [trial(a, d, metrics={"gain": g}) for a, g in (("loud", 0.7), ("quiet", 0.05)) for d in ("none", "repair")]
    results = read(stock(trials))
    (context,) = contexts(results.trials, mixed=False)
    assert choose(context, 0.4) == Chosen({}, {"loud": 0.7, "quiet": 0.05})
    with pytest.raises(UserError, match=r"loud .*quiet .*--gain"):
        equal_strength(data_of(results), gain=0.4)
    with pytest.raises(UserError, match=r"0\.15 of 0\.6"):
        equal_strength(data_of(read(stock([trial("loud", metrics={"gain": 0.6})]))))


@pytest.mark.parametrize("level", [float("nan"), float("inf"), 2.0, 0.0, -1.0])
def test_a_gain_that_is_none_is_refused(stock, level):
    with pytest.raises(UserError, match="gain"):
        equal_strength(data_of(read(stock(run()))), gain=level)


def test_a_variant_that_nobody_defended_stands_for_nothing(stock):
    """loud(dose=9) would be nearest, and has no cell but its undefended one."""
    nearest = [trial("loud(dose=9)", target=t, seed=s, metrics={"gain": 0.6}) for t in "01" for s in (0, 1)]
    repairs, _ = equal_strength(data_of(read(stock([*run(), *nearest]))))
    assert "loud(dose=2)" in list(repairs.table["attack"])
    assert set(choose(repairs.basis.context, 0.6).near) == {"loud(dose=2)", "quiet(dose=1)"}


def test_means_over_attacks_are_over_those_that_every_defense_met(stock):
    """A filter met loud alone: nobody's mean takes quiet in, and the caption says so."""
    other = [trial("loud(dose=2)", "sieve", target=t, seed=s, metrics={"gain": 0.0}) for t in "01" for s in (0, 1)]
    repairs, _ = equal_strength(data_of(read(stock([*run(), *other]))))
    table = repairs.table
    assert not table["attack"].isin([MEAN, WORST]).any(), "one common attack has no mean"
    assert "quiet(dose=1)" in repairs.caption.rpartition(WORST)[2], "it is named"


def test_a_clean_model_of_another_seed_counts_for_nothing(stock):
    far = [trial("none", d, target=t, seed=7, metrics={"map": m}, defend="c7")
           for t in "01" for d, m in (("none", 0.9), ("repair", 0.0))]  # fmt: skip
    repairs, _ = equal_strength(data_of(read(stock([*run(), *far]))))
    assert repairs.table["mAP lost clean"].iloc[0] == pytest.approx(0.03)
    assert repairs.basis.cells.seeds == [0, 1]


def test_degrees_of_freedom_are_those_of_the_intervals(stock):
    repairs, _ = equal_strength(data_of(read(stock(run()))))
    assert repairs.table["removed df"].dropna().unique().tolist() == [1.0]
