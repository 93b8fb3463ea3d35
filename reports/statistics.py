"""Intervals and tests over the cells of a board: targets and seeds are crossed factors (METHODOLOGY.md#statistics).

A matrix holds one value per target (row) and seed (column). A value is a mean over queries, or the paired difference of
two such means. Functions return None if the data do not allow an interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float64

MARGIN = 0.03  # of "mAP kept"
LEVEL = 0.05
RANGE = (0.05, 0.95)  # quantiles
MANY = 100_000  # queries from which chance in their number is negligible, and sums over them are slow
# Imports of scipy are in functions: they take a third of a second, and boards with one seed need none.
_ROUNDING = 1e-12  # smaller differences are rounding errors

Cells = Float64[np.ndarray, "t s"]


@dataclass(frozen=True)
class Interval:
    """mean ± half with 1 - level confidence."""

    mean: float
    half: float
    df: float


@dataclass(frozen=True)
class VarianceOfMean:
    """Mean of a matrix, the variance of that mean, and its degrees of freedom."""

    mean: float
    variance: float
    df: float


def variance_of_mean(cells: Cells, *, fixed_targets: bool = False) -> VarianceOfMean | None:
    """The variance of the mean of a matrix; None with one seed, or with one target that is not fixed.

    MS_T = S var(row means), MS_S = T var(column means), MS_E the interaction mean square;
    V = max(MS_T + MS_S - MS_E, MS_T, MS_S) / (T S), Satterthwaite's df kept inside [min(T, S) - 1, T S - 1].
    fixed_targets: the targets are all classes, so only seeds vary; variance and df are those of the seed means.
    """
    targets, seeds = cells.shape
    if not np.isfinite(cells).all() or seeds < 2 or (targets < 2 and not fixed_targets):
        return None
    mean = float(cells.mean())
    rows, columns = cells.mean(1), cells.mean(0)
    if fixed_targets:
        return VarianceOfMean(mean, float(columns.var(ddof=1)) / seeds, float(seeds - 1))
    free_targets, free_seeds = targets - 1, seeds - 1
    free = free_targets * free_seeds
    between_targets = seeds * float(rows.var(ddof=1))
    between_seeds = targets * float(columns.var(ddof=1))
    rest = float(((cells - rows[:, None] - columns + mean) ** 2).sum()) / free
    total = max(between_targets + between_seeds - rest, between_targets, between_seeds)
    below = between_targets**2 / free_targets + between_seeds**2 / free_seeds + rest**2 / free
    df = total**2 / below if below > 0 else 0.0
    df = min(max(df, float(min(free_targets, free_seeds))), float(targets * seeds - 1))
    return VarianceOfMean(mean, total / (targets * seeds), df)


def crossed_interval(cells: Cells, *, fixed_targets: bool = False, level: float = LEVEL) -> Interval | None:
    """Two-sided interval of the mean, over new targets and seeds or (fixed_targets) over new seeds only."""
    from scipy.special import stdtrit

    found = variance_of_mean(cells, fixed_targets=fixed_targets)
    if found is None:
        return None
    return Interval(found.mean, float(stdtrit(found.df, 1 - level / 2)) * math.sqrt(found.variance), found.df)


def p_value(differences: Cells, *, fixed_targets: bool = False) -> float | None:
    """Two-sided p of the hypothesis that the mean is 0; a constant difference has p = 1 if it is 0, else p = 0."""
    from scipy.special import stdtr

    found = variance_of_mean(differences, fixed_targets=fixed_targets)
    if found is None:
        return None
    if abs(found.mean) <= _ROUNDING:
        return 1.0
    if found.variance <= _ROUNDING**2:
        return 0.0
    return float(2 * stdtr(found.df, -abs(found.mean) / math.sqrt(found.variance)))


def holm(p: Sequence[float]) -> list[float]:
    """The p values, adjusted for multiple tests (Holm's step-down method), in the same order."""
    adjusted = [0.0] * len(p)
    running = 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        running = max(running, min(1.0, (len(p) - rank) * p[place]))
        adjusted[place] = running
    return adjusted


def rank_ranges(
    matrices: Mapping[str, Cells], *, fixed_targets: bool = False, level: float = LEVEL
) -> dict[str, tuple[int, int]] | None:
    """[1 + number significantly better, A - number significantly worse] of each of A paired matrices; higher is better.

    Tests all pairs with Holm's correction. None if the cells allow no test, or with fewer than two matrices.
    """
    names = list(matrices)
    pairs = list(combinations(names, 2))
    tests = [p_value(matrices[a] - matrices[b], fixed_targets=fixed_targets) for a, b in pairs]
    known = [p for p in tests if p is not None]
    if not pairs or len(known) < len(tests):
        return None
    better, worse = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for (a, b), p in zip(pairs, holm(known), strict=True):
        if p < level:
            winner, loser = (a, b) if matrices[a].mean() > matrices[b].mean() else (b, a)
            better[loser] += 1
            worse[winner] += 1
    return {name: (1 + better[name], len(names) - worse[name]) for name in names}


def non_inferior(
    losses: Cells, margin: float = MARGIN, *, fixed_targets: bool = False, level: float = LEVEL
) -> bool | None:
    """Whether the one-sided upper bound of the mean loss (clean minus attacked) is below the margin."""
    from scipy.special import stdtrit

    found = variance_of_mean(losses, fixed_targets=fixed_targets)
    if found is None:
        return None
    return bool(found.mean + float(stdtrit(found.df, 1 - level)) * math.sqrt(found.variance) < margin)


def alarm_range(calibration: int, rate: float, queries: int) -> tuple[float, float] | None:
    """Shares of benign queries that exceed a calibrated threshold: 5 % and 95 % quantile; None without a threshold.

    The rate of a threshold that is the k-th smallest of n scores has the distribution Beta(n + 1 - k, k)
    (METHODOLOGY.md#calibrated-thresholds).
    """
    from scipy.special import betaincinv, betaln

    place = math.ceil((calibration + 1) * (1 - rate))
    if place > calibration or queries < 1:
        return None
    a, b = calibration + 1 - place, place
    if queries > MANY:
        low, high = betaincinv(a, b, RANGE)
    else:  # quantiles of the beta-binomial distribution; scipy.stats has them, but its import takes a second
        alarms = np.arange(queries + 1)
        ways = -math.log(queries + 1) - betaln(queries - alarms + 1, alarms + 1)
        probability = np.exp(ways + betaln(alarms + a, queries - alarms + b) - betaln(a, b))
        low, high = np.searchsorted(probability.cumsum(), RANGE) / queries
    return float(low), float(high)


def clopper_pearson(hits: int, trials: int, level: float = LEVEL) -> tuple[float, float]:
    """Exact interval of a rate: `hits` of `trials` independent models; ValueError for impossible counts."""
    from scipy.special import betaincinv

    if not 0 <= hits <= trials:
        raise ValueError(f"{hits} hits of {trials} trials")
    low = float(betaincinv(hits, trials - hits + 1, level / 2)) if hits else 0.0
    high = float(betaincinv(hits + 1, trials - hits, 1 - level / 2)) if hits < trials else 1.0
    return low, high
