"""Robust estimation of a covariance: leave out rows until all quadratic forms vary as those of a normal distribution.

The filter of Diakonikolas et al., "Being Robust (in High Dimensions) Can Be Practical" (ICML 2017), as in the code of
SPECTRE (SewoongLab/spectre-defense, dkk17.jl).
"""

from __future__ import annotations

from math import log

import numpy as np
from jaxtyping import Bool, Float64

TAU = 0.1  # the authors' code: accepted probability that the estimate is wrong
FACTOR, SHIFT = 10.0, 3.0  # the authors' code: of the accepted excess, and of the distances from the median
ROUNDING = 1e-10  # eigenvalues below this share of the largest, or of the mean square of the rows, are rounding errors


def covariance(rows: Float64[np.ndarray, "m k"], less: int) -> Float64[np.ndarray, "k k"]:
    """The covariance, divided by the number of rows less `less`; 0 for a single row."""
    centred = rows - rows.mean(0)
    return np.asarray(centred.T @ centred / max(1, len(rows) - less))


def whitened(rows: Float64[np.ndarray, "n k"], by: Float64[np.ndarray, "k k"]) -> Float64[np.ndarray, "n k"]:
    """The rows times the inverse square root of a covariance, which may be that of some of them that are equal."""
    values, vectors = np.linalg.eigh(by)
    largest = max(float(values[-1]), float((rows**2).mean()))
    values = np.maximum(values, max(largest * ROUNDING, np.finfo(np.float64).tiny))
    return np.asarray(rows @ (vectors / np.sqrt(values)) @ vectors.T)


def robust_rows(rows: Float64[np.ndarray, "n k"], share: float, limit: int) -> Bool[np.ndarray, " n"]:
    """The rows that remain after filtering rows, at most `limit`, until no quadratic form has a suspicious variance."""
    kept = np.arange(len(rows))
    while limit > 0:
        white = whitened(rows[kept], rows[kept].T @ rows[kept] / len(kept))
        stay = stays(white, share, len(kept) - limit)
        if stay is None or stay.all():
            break
        limit -= int((~stay).sum())
        kept = kept[stay]
    return np.isin(np.arange(len(rows)), kept)


def stays(white: Float64[np.ndarray, "n k"], share: float, least: int) -> Bool[np.ndarray, " n"] | None:
    """The rows that pass one step of the filter, at least `least`; None: the variances are as expected."""
    n, k = white.shape
    norms = (white**2).sum(1)
    if (far := norms >= FACTOR * k * log(n / TAU)).any():
        return np.asarray(~far | lowest(norms, least))
    variance, form = suspicious_form(white)
    if variance <= 1 + FACTOR * share * log(1 / share) ** 2:
        return None
    values = ((white @ form) * white).sum(1) / np.sqrt(2)
    distances = np.abs(values - np.median(values))
    for rank, cut in enumerate(np.sort(distances) - SHIFT, 1):
        if cut > 0 and rank / n >= tail(cut, share):
            return np.asarray((distances <= cut) | lowest(distances, least))
    return None


def suspicious_form(white: Float64[np.ndarray, "n k"]) -> tuple[float, Float64[np.ndarray, "k k"]]:
    """The symmetric matrix V of norm 1 for which y'Vy varies most over the rows y, and this variance."""
    from scipy.sparse.linalg import LinearOperator, eigsh

    n, k = white.shape

    def times(form: Float64[np.ndarray, " e"]) -> Float64[np.ndarray, " e"]:
        values = ((white @ form.reshape(k, k)) * white).sum(1)
        return np.asarray((white.T * values @ white / n - np.trace(form.reshape(k, k)) * np.eye(k)).ravel())

    operator = LinearOperator((k * k, k * k), matvec=times, dtype=np.float64)
    variances, forms = eigsh(operator, 1, which="LA", v0=np.ones(k * k))
    form = forms.reshape(k, k)
    return float(variances[0]), (form + form.T) / 2


def tail(cut: float, share: float) -> float:
    """The largest share of clean rows that is expected beyond a cut."""
    return 1.0 if cut <= FACTOR * log(1 / share) else 3 * share / (cut * log(cut)) ** 2


def lowest(values: Float64[np.ndarray, " n"], count: int) -> Bool[np.ndarray, " n"]:
    """The rows with the `count` smallest values, and those that equal the last of them."""
    return values <= np.sort(values)[count - 1] if count > 0 else np.zeros(len(values), dtype=bool)
