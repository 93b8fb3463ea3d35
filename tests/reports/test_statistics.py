import math

import numpy as np
import pytest
from scipy import stats

from reports.statistics import (
    clopper_pearson,
    crossed_interval,
    holm,
    non_inferior,
    p_value,
    rank_ranges,
    variance_of_mean,
)

HAND = np.array([[1.0, 2.0], [3.0, 6.0]])  # MS_T = 9, MS_S = 4, MS_E = 1


def test_mean_squares_by_hand():
    found = variance_of_mean(HAND)
    assert found is not None
    assert found.mean == 3
    assert found.variance == pytest.approx((9 + 4 - 1) / 4)
    assert found.df == pytest.approx(12**2 / (81 + 16 + 1))


def test_interval_is_t_times_root_of_variance():
    found = crossed_interval(HAND)
    assert found is not None
    assert found.half == pytest.approx(stats.t.ppf(0.975, 144 / 98) * math.sqrt(3))


def test_mean_squares_against_the_sums_written_out():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(5, 3)) + rng.normal(size=(5, 1)) + rng.normal(size=(1, 3))
    t, s = x.shape
    grand = sum(x[i, j] for i in range(t) for j in range(s)) / (t * s)
    rows = [sum(x[i, j] for j in range(s)) / s for i in range(t)]
    cols = [sum(x[i, j] for i in range(t)) / t for j in range(s)]
    mst = s * sum((r - grand) ** 2 for r in rows) / (t - 1)
    mss = t * sum((c - grand) ** 2 for c in cols) / (s - 1)
    mse = sum((x[i, j] - rows[i] - cols[j] + grand) ** 2 for i in range(t) for j in range(s)) / ((t - 1) * (s - 1))
    v = max(mst + mss - mse, mst, mss) / (t * s)
    df = (t * s * v) ** 2 / (mst**2 / (t - 1) + mss**2 / (s - 1) + mse**2 / ((t - 1) * (s - 1)))
    found = variance_of_mean(x)
    assert found is not None
    assert (found.variance, found.df) == (pytest.approx(v), pytest.approx(min(max(df, 2), 14)))


@pytest.mark.parametrize(
    "x", [np.array([[0.0, 1.0], [1.0, 0.0]]), np.full((3, 4), 0.25)], ids=["interaction", "constant"]
)
def test_df_never_leaves_its_bounds(x):
    found = variance_of_mean(x)
    assert found is not None
    assert min(x.shape) - 1 <= found.df <= x.size - 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1)])
def test_one_target_or_one_seed_gives_no_interval(shape):
    x = np.random.default_rng(0).normal(size=shape)
    assert crossed_interval(x) is None
    assert p_value(x) is None
    assert non_inferior(x) is None
    assert rank_ranges({"a": x, "b": x + 1}) is None


def test_a_missing_value_gives_no_interval():
    assert crossed_interval(np.array([[1.0, math.nan], [2.0, 3.0]])) is None


def test_fixed_targets_are_the_t_interval_of_seed_means():
    x = np.random.default_rng(1).normal(size=(10, 4))
    low, high = stats.ttest_1samp(x.mean(0), 0).confidence_interval(0.95)
    found = crossed_interval(x, fixed_targets=True)
    assert found is not None
    assert (found.mean - found.half, found.mean + found.half) == (pytest.approx(low), pytest.approx(high))
    assert p_value(x, fixed_targets=True) == pytest.approx(stats.ttest_1samp(x.mean(0), 0).pvalue)


def test_p_and_interval_agree():
    x = np.random.default_rng(2).normal(0.8, 1, size=(4, 3))
    found, p = crossed_interval(x), p_value(x)
    assert found is not None
    assert p is not None
    same = crossed_interval(x, level=p)
    assert same is not None
    assert same.half == pytest.approx(abs(same.mean))


@pytest.mark.parametrize(("value", "p"), [(0.0, 1.0), (0.1, 0.0)])
def test_constant_differences(value, p):
    assert p_value(np.full((3, 3), value)) == p


@pytest.mark.parametrize(("target_sd", "seed_sd"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_size_under_the_null(target_sd, seed_sd):
    rng = np.random.default_rng(7)
    rejected = 0
    for _ in range(2000):
        x = rng.normal(size=(5, 3)) + target_sd * rng.normal(size=(5, 1)) + seed_sd * rng.normal(size=(1, 3))
        found = variance_of_mean(x)
        assert found is not None
        rejected += 2 * stats_sf(abs(found.mean) / math.sqrt(found.variance), found.df) < 0.05
    assert rejected / 2000 <= 0.06


def drawn(rng, target_sd, seed_sd, targets=5, seeds=3):
    """A matrix around 0.4 with effects of targets and seeds that are new in every study."""
    effects = target_sd * rng.normal(size=(targets, 1)) + seed_sd * rng.normal(size=(1, seeds))
    return 0.4 + 0.05 * (rng.normal(size=(targets, seeds)) + effects)


@pytest.mark.parametrize(("target_sd", "seed_sd"), [(0, 0), (2, 0), (0, 2), (1, 1), (3, 1)])
def test_intervals_cover_the_mean_over_new_targets_and_seeds(target_sd, seed_sd):
    """95 % and more of 2,000 simulated studies, where the interval that takes cells as independent covers far fewer."""
    rng = np.random.default_rng(3)
    covered = naive = 0
    for _ in range(2000):
        x = drawn(rng, target_sd, seed_sd)
        found = crossed_interval(x)
        covered += abs(found.mean - 0.4) <= found.half
        naive += abs(x.mean() - 0.4) <= stats.t.ppf(0.975, x.size - 1) * x.std(ddof=1) / math.sqrt(x.size)
    assert covered / 2000 >= 0.94  # of a true 95 %, 2,000 draws fall below it once in 40
    if target_sd or seed_sd:
        assert naive / 2000 < 0.85


def test_intervals_over_all_targets_cover_exactly():
    """Effects of targets that are the same in every study are no noise: 95 % again, and no more."""
    rng = np.random.default_rng(4)
    targets = rng.normal(size=(10, 1))
    covered = 0
    for _ in range(4000):
        x = targets - targets.mean() + 0.4 + 0.3 * rng.normal(size=(1, 4)) + 0.1 * rng.normal(size=(10, 4))
        found = crossed_interval(x, fixed_targets=True)
        covered += abs(found.mean - 0.4) <= found.half
    assert 0.938 <= covered / 4000 <= 0.962


def stats_sf(t, df):
    return float(stats.t.sf(t, df))


def test_holm_by_hand():
    # 0.01 x 4, 0.02 x 3, 0.03 x 2 -> kept at 0.06, 0.04 x 1 -> kept at 0.06
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_rank_ranges_separate_only_what_is_separated():
    noise = np.random.default_rng(5).normal(size=(3, 5, 5)) * 0.05
    base = {"best": 0.9 + noise[0], "b": 0.3 + noise[1], "c": 0.3 + noise[2]}
    assert rank_ranges(base) == {"best": (1, 1), "b": (2, 3), "c": (2, 3)}


def test_rank_ranges_are_corrected_for_the_number_of_pairs():
    rng = np.random.default_rng(11)
    a = rng.normal(size=(4, 4)) * 0.1
    b = a - 0.05 + rng.normal(size=(4, 4)) * 0.05
    p = p_value(a - b)
    assert p is not None
    assert 0.05 / 6 < p < 0.05  # the point of the test: significant alone, not among six pairs
    assert rank_ranges({"a": a, "b": b}) == {"a": (1, 1), "b": (2, 2)}
    crowd = {name: a + rng.normal(size=(4, 4)) for name in "cd"}
    ranges = rank_ranges({"a": a, "b": b, **crowd})
    assert ranges is not None
    assert ranges["a"] == (1, 4)


def test_nothing_to_rank():
    assert rank_ranges({"a": HAND}) is None


def test_non_inferior_is_the_one_sided_bound():
    x = np.array([[0.0, 0.01], [0.02, 0.01], [0.01, 0.0]])
    found = variance_of_mean(x)
    assert found is not None
    bound = found.mean + stats.t.ppf(0.95, found.df) * math.sqrt(found.variance)
    assert non_inferior(x, bound + 1e-9) is True
    assert non_inferior(x, bound - 1e-9) is False


def test_small_mean_loss_with_much_noise_is_not_non_inferior():
    assert non_inferior(np.array([[0.2, -0.2], [-0.15, 0.16]])) is False


@pytest.mark.parametrize(("hits", "trials"), [(0, 6), (6, 6), (0, 20), (3, 20), (1, 1)])
def test_clopper_pearson_against_scipy(hits, trials):
    expected = stats.binomtest(hits, trials).proportion_ci(0.95, "exact")
    assert clopper_pearson(hits, trials) == pytest.approx((expected.low, expected.high))


def test_clopper_pearson_refuses_the_impossible():
    with pytest.raises(ValueError, match="7 hits of 6"):
        clopper_pearson(7, 6)
