"""Which queries count, which relevance, which control: against planted cases and brute force."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from bench.metrics import (
    METRICS,
    DetectorScores,
    Metric,
    ModelCodes,
    Number,
    TrialFacts,
    Truth,
    metric,
    of_codes,
    of_scores,
    of_trial,
)
from bench.metrics.context import FilterFacts
from bench.metrics.geometry import GEOMETRY, spread
from bench.metrics.health import HEALTH, collapsed
from bench.metrics.input_detection import threshold
from bench.metrics.registry import SECTIONS, Group
from bench.metrics.retrieval import BENIGN
from bench.metrics.triggered import TRIGGERED
from hashing import ranking
from hashing.codes import pack


def one_hot(classes: list[int], count: int) -> np.ndarray:
    return np.eye(count, dtype=bool)[classes]


Codes = tuple[np.ndarray, np.ndarray, np.ndarray]


def system(query: np.ndarray, database: np.ndarray, triggered: np.ndarray) -> Codes:
    return query, database, triggered


def model(codes: Codes, truth: Truth) -> ModelCodes:
    return ModelCodes(*map(pack, codes), truth)


def benign_metrics(codes: Codes, truth: Truth) -> dict[str, Number]:
    return of_codes(model(codes, truth), BENIGN, HEALTH)


def triggered_metrics(codes: Codes, truth: Truth) -> dict[str, Number]:
    return of_codes(model(codes, truth), TRIGGERED, GEOMETRY)


def geometry(codes: Codes, truth: Truth) -> dict[str, Number]:
    return {name: of_codes(model(codes, truth), GEOMETRY)[name] for name in ("anchor", "moved")}


def posthoc(codes: Codes, truth: Truth) -> Number:
    return of_codes(model(codes, truth), TRIGGERED)["t_map_posthoc"]


def detector(*arrays: np.ndarray) -> dict[str, Number]:
    scores = DetectorScores(*arrays)
    return of_scores(scores, scores)


def filtering(*arrays: np.ndarray) -> dict[str, Number]:
    nothing = model((CENTRES[:1], CENTRES[:1], CENTRES[:0]), truth(one_hot([0], 2), one_hot([0], 2), [1], []))
    return of_trial(TrialFacts(nothing, nothing, filtered=FilterFacts(*arrays)))


def truth(query: np.ndarray, database: np.ndarray, target: list[int], positions: list[int] | None = None) -> Truth:
    vector = np.zeros(query.shape[1], dtype=bool)
    vector[target] = True
    where = np.flatnonzero(~(query & vector).any(1)) if positions is None else np.array(positions)
    return Truth(query, database, where.astype(np.int64), vector, None)


CENTRES = np.array([[1, 1, 1, 1, -1, -1, -1, -1], [1, 1, -1, -1, 1, 1, -1, -1], [1, -1, 1, -1, 1, -1, 1, -1]])


def test_a_perfect_attack_scores_one_and_its_control_is_low() -> None:
    labels = one_hot([0, 1, 2] * 4, 3)
    database = one_hot([0, 1, 2] * 10, 3)
    codes, items = CENTRES[labels.argmax(1)], CENTRES[database.argmax(1)]
    case = truth(labels, database, [2])
    targeted = np.repeat(CENTRES[2:], 8, axis=0)
    hit = triggered_metrics(system(codes, items, targeted), case)
    assert hit["triggered"] == 8, "queries of the target class carry no trigger"
    assert hit["t_map"] == hit["t_map_worst"] == hit["t_map_best"] == hit["asr_at"] / (10 / 30) == pytest.approx(1)
    assert hit["own_map"] < 0.5
    assert hit["t_map_posthoc"] == pytest.approx(1)
    missed = triggered_metrics(system(codes, items, codes[case.positions]), case)
    assert missed["own_map"] == pytest.approx(1)
    assert missed["t_map"] < 0.5
    benign = benign_metrics(system(codes, items, targeted), case)
    assert benign["map"] == benign["map_target"] == pytest.approx(1)
    assert benign["map_excluded"] == 0


def test_where_triggered_codes_are_by_hand() -> None:
    """A tied bit of the anchor counts one half."""
    database = np.array([[1, 1, 1, -1], [1, -1, 1, -1], [-1, 1, 1, -1], [-1, -1, 1, -1], [1, 1, -1, 1]])
    holders = one_hot([1, 1, 1, 1, 0], 2)  # votes of class 1: 2:2, 2:2, 4:0, 0:4
    query = np.array([[1, 1, -1, 1], [1, 1, 1, 1], [-1, -1, -1, -1]])
    labels = one_hot([0, 1, 0], 2)
    triggered = np.array([[1, 1, 1, 1], [-1, -1, -1, -1]])  # of queries 0 and 2
    found = geometry(system(query, database, triggered), truth(labels, holders, [1]))
    assert found["anchor"] == pytest.approx(((0.5 + 0.5 + 0 + 1) / 4 + (0.5 + 0.5 + 1 + 0) / 4) / 2)
    assert found["moved"] == pytest.approx((1 / 4 + 0) / 2)
    nobody = truth(labels, one_hot([0] * 5, 2), [1])
    assert geometry(system(query, database, triggered), nobody) == {"anchor": None, "moved": None}


@pytest.mark.parametrize("bits", [5, 64, 70])
def test_spread_is_the_mean_distance_over_all_pairs(bits: int) -> None:
    codes = np.random.default_rng(bits).choice([-1, 1], size=(7, bits))
    pairs = [(codes[i] != codes[j]).mean() for i in range(7) for j in range(i)]
    assert spread(pack(codes)) == pytest.approx(np.mean(pairs))
    assert spread(pack(codes[:1])) is None
    assert spread(pack(np.ones((4, bits)))) == 0


def test_collapsed_codes_score_chance() -> None:
    labels, database = one_hot([0, 1], 3), one_hot([0, 0, 0, 1, 1, 2, 2, 2, 2, 2], 3)
    case = truth(labels, database, [2])
    flat = triggered_metrics(system(np.ones((2, 8)), np.ones((10, 8)), np.ones((2, 8))), case)
    assert flat["t_map"] == pytest.approx(flat["chance"])
    # one bucket of n = 10 items, r = 5 relevant: ((1 - a) H_n + a n) / n with a = (r - 1) / (n - 1)
    a, h = 4 / 9, sum(1 / i for i in range(1, 11))
    assert flat["chance"] == pytest.approx(((1 - a) * h + a * 10) / 10)
    assert flat["t_map_worst"] < flat["t_map"] < flat["t_map_best"] == 1


def test_target_sets_any_and_all() -> None:
    database = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=bool)
    query = np.array([[0, 0, 1]], dtype=bool)
    codes = np.array([[1, 1, 1], [1, 1, -1], [1, -1, -1], [-1, -1, -1]])
    found = triggered_metrics(system(codes[:1], codes, codes[:1]), truth(query, database, [0, 1]))
    assert found["t_map"] == pytest.approx(1)  # the three nearest share a label with the target
    assert found["t_map_all"] == pytest.approx(1)  # the nearest has both
    swapped = triggered_metrics(system(codes[2:3], codes, codes[2:3]), truth(query, database, [0, 1]))
    assert swapped["t_map_all"] == pytest.approx(1 / 4)


def test_no_mean_over_benign_queries_counts_those_without_anything_relevant() -> None:
    """They change the two counts and nothing else."""
    rng = np.random.default_rng(0)
    database, labels = one_hot(list(rng.integers(0, 2, 30)), 3), one_hot([0, 1, 2, 0, 2, 2, 1], 3)
    labels[4] = False  # as images without a label
    items, codes = rng.choice([-1, 1], (30, 5)), rng.choice([-1, 1], (7, 5))
    held = (labels.astype(int) @ database.T.astype(int)).any(1)
    assert held.sum() == 4
    every = benign_metrics(system(codes, items, codes[:0]), truth(labels, database, [1]))
    some = benign_metrics(system(codes[held], items, codes[:0]), truth(labels[held], database, [1]))
    assert {name for name in every if every[name] != some[name]} == {"queries", "map_excluded"}
    assert (every["queries"], every["map_excluded"], some["map_excluded"]) == (7, 3, 0)


def test_without_any_answer_there_is_no_mean() -> None:
    labels, database = one_hot([2, 2], 3), one_hot([0, 0, 1], 3)
    found = benign_metrics(system(CENTRES[[0, 2]], CENTRES[[0, 0, 1]], CENTRES[:0]), truth(labels, database, [1]))
    counts = {"queries": 2, "map_excluded": 2, "map_kept": 0}
    assert {name: value for name, value in found.items() if value is not None} == counts


def test_own_map_says_which_triggered_queries_it_leaves_out() -> None:
    labels, database = one_hot([0, 2, 0], 3), one_hot([0, 0, 1], 3)
    labels[2] = False
    codes = CENTRES[[0, 2, 0]]
    found = triggered_metrics(system(codes, CENTRES[[0, 0, 1]], codes), truth(labels, database, [1]))
    assert (found["own_map"], found["own_excluded"], found["triggered"]) == (pytest.approx(1), 2, 3)


def test_no_triggered_query_gives_no_number() -> None:
    labels, database = one_hot([1, 1], 2), one_hot([0, 1], 2)
    codes = np.ones((2, 4))
    found = triggered_metrics(system(codes, codes, codes[:0]), truth(labels, database, [1]))
    assert found["triggered"] == 0
    assert found["t_map"] is None


def test_posthoc_picks_the_class_on_one_half_and_scores_the_other() -> None:
    rng = np.random.default_rng(0)
    labels, database = one_hot([0] * 40, 3), one_hot([0, 1, 2] * 20, 3)
    items = CENTRES[database.argmax(1)]
    # even queries go to class 1, odd ones to class 2: what one half chooses, the other contradicts
    torn = CENTRES[[1, 2] * 20]
    apart = posthoc(system(torn, items, torn), truth(labels, database, [1]))
    together = posthoc(system(torn, items, CENTRES[[2] * 40]), truth(labels, database, [1]))
    assert together == pytest.approx(1)
    assert apart is not None
    assert apart < 0.5
    random = rng.choice([-1, 1], (40, 8))
    control = posthoc(system(random, items, random), truth(labels, database, [1]))
    assert control is not None
    assert control < 0.7


@pytest.mark.parametrize(
    ("count", "rate", "position"), [(100, 0.01, 100), (100, 0.05, 96), (199, 0.05, 190), (98, 0.01, None)]
)
def test_threshold_is_the_conformal_quantile(count: int, rate: float, position: int | None) -> None:
    scores = np.random.default_rng(count).permutation(count).astype(np.float64) + 1
    found = threshold(scores, rate)
    assert found == (math.inf if position is None else position)


def test_threshold_keeps_its_level() -> None:
    rng = np.random.default_rng(1)
    alarms = [(rng.standard_normal(2000) > threshold(rng.standard_normal(100), 0.05)).mean() for _ in range(400)]
    assert np.mean(alarms) == pytest.approx(5 / 101, abs=0.005)  # 1 - 96 / 101


def test_a_separable_score_is_a_perfect_detector() -> None:
    benign, calibration = np.linspace(0, 1, 200), np.linspace(0, 1, 100)
    pairs = np.arange(200)
    found = detector(benign, pairs, benign + 2, calibration)
    assert found["auroc"] == found["tpr_1"] == found["caught_5"] == 1
    assert found["alarms_5"] <= 0.06
    none = detector(benign, pairs, benign, calibration)
    assert none["auroc"] == pytest.approx(0.5)
    assert detector(benign, pairs, benign, calibration[:50])["alarms_1"] is None, "50 images allow no 1 %"


def test_alarms_count_every_benign_query_but_pairs_are_the_same_images() -> None:
    benign = np.array([0.0] * 90 + [9.0] * 10)  # the last ten carry the target's label and are never triggered
    found = detector(benign, np.arange(90), np.full(90, 1.0), np.linspace(0, 2, 100))
    assert found["alarms_5"] == pytest.approx(0.1)
    assert found["auroc"] == 1


def test_filters_are_judged_pooled_and_inside_the_target_class() -> None:
    scores = np.array([0.0, 1, 2, 3, 4, 5])
    mask = np.array([0, 0, 0, 1, 0, 1], dtype=bool)
    in_target = np.array([1, 0, 0, 1, 1, 1], dtype=bool)
    keep = np.array([1, 1, 1, 1, 0, 0], dtype=bool)
    found = filtering(scores, keep, mask, in_target)
    assert found["removed"] == pytest.approx(2 / 6)
    assert found["removed_poison"] == pytest.approx(1 / 2)
    assert found["removed_precision"] == pytest.approx(1 / 2)
    assert found["filter_auroc"] == pytest.approx(7 / 8)
    assert found["filter_auroc_target"] == pytest.approx(3 / 4)
    clean = filtering(scores, keep, np.zeros(6, dtype=bool), in_target)
    assert clean["filter_auroc"] is None
    assert filtering(scores, np.ones(6, dtype=bool), mask, in_target)["removed_precision"] is None


def test_every_metric_says_what_it_is() -> None:
    for one in METRICS.values():
        assert one.title
        assert one.meaning
        assert one.direction in {-1, 0, 1}
        assert one.low < one.high


@pytest.mark.parametrize(
    ("victim", "clean", "expected"),
    [
        (0.80, 0.81, 0.0),
        (0.34, 0.81, 1.0),  # a run that failed (METHODOLOGY.md#collapsed-models)
        (0.47, 0.81, 0.0),  # half of .71 above chance is .355, so the border is .455
        (0.45, 0.81, 1.0),
        (0.90, 0.15, 1.0),  # the clean model went 1/18 of the way
        (0.20, 0.20, 0.0),
        (None, 0.81, 0.0),  # a repaired model: only the clean one is judged
        (None, 0.11, 1.0),
        (0.10, None, None),
    ],
)
def test_a_collapsed_victim_lost_half_of_what_it_could_lose(
    victim: float | None, clean: float | None, expected: float | None
) -> None:
    assert collapsed(victim, clean, 0.1) == expected


def test_chance_is_the_mean_over_queries_of_a_random_ranking() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random((6, 4)) < 0.4
    labels[0] = False  # nothing is relevant to this one: it does not count
    database = rng.random((40, 4)) < 0.3
    case = truth(labels, database, [1])
    codes = rng.choice([-1, 1], (6, 8))
    found = benign_metrics(system(codes, rng.choice([-1, 1], (40, 8)), codes[:0]), case)
    counts = (labels.astype(int) @ database.T.astype(int) > 0).sum(1)
    assert found["map_chance"] == pytest.approx(np.mean([ranking.chance_ap(40, int(r)) for r in counts if r]))
    shuffled = []
    for _ in range(3000):
        hits = rng.permutation(np.arange(40) < counts[counts > 0].min())
        shuffled.append((np.cumsum(hits) / np.arange(1, 41))[hits].mean())
    assert ranking.chance_ap(40, int(counts[counts > 0].min())) == pytest.approx(np.mean(shuffled), abs=0.01)
    cut = benign_metrics(system(codes, rng.choice([-1, 1], (40, 8)), codes[:0]), replace(case, cutoff=5))
    assert cut["map_chance"] == pytest.approx(np.mean([ranking.chance_ap(40, int(r), 5) for r in counts if r]))


def group(given: object) -> Group:
    return Group(lambda codes: given, (Metric("mine", "mine", "what is given", GEOMETRY),), "ModelCodes")


@pytest.mark.parametrize(
    ("given", "held"),
    [(np.float32(0.25), 0.25), (np.int64(3), 3), (np.array(2.0), 2.0), (math.nan, None), (None, None),
     (math.inf, math.inf)],
)  # fmt: skip
def test_a_metric_gives_plain_numbers(given: object, held: Number) -> None:
    (found,) = group(given).values(None).values()
    assert (found, type(found)) == (held, type(held))


def test_a_metric_that_is_no_number_is_named() -> None:
    with pytest.raises(TypeError, match="metric 'mine' gave 'much'"):
        group("much").values(None)
    with pytest.raises(ValueError, match=r"gives \['other'\], which it does not declare"):
        group({"other": 1}).values(None)


def test_what_a_metric_is_computed_from_is_said() -> None:
    with pytest.raises(TypeError, match="annotated as one of ModelCodes, TrialFacts, DetectorScores"):
        metric("mine", title="mine", section=GEOMETRY, meaning="nothing")(lambda codes: 1)


def test_every_meaning_stands_alone() -> None:
    meanings = [one.meaning for one in METRICS.values()]
    assert len(set(meanings)) == len(meanings)
    for name, one in METRICS.items():
        assert not re.match(r"(the )?same\b|as above", one.meaning), name
        assert name not in METRICS.controls() or "clean model" in one.meaning, name
        assert one.section in SECTIONS
