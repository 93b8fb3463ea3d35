"""Dose and response: how much of an attack it takes for half of what it can do (METHODOLOGY.md#d50)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64

from bench.api.errors import UserError
from reports.board_registry import BoardData, board
from reports.context import Board, contexts
from reports.rows import table
from reports.sweeps import FEWEST, attacks, shared

EFFECT = 0.05  # a plateau of less gain is none
DRAWS = 1000  # of targets
FEWEST_TARGETS = 3
ABOUT = (
    "Gain over the values of one number, everything else equal; fitted to rise (isotonic); plateau: the fit at the"
    " largest value. D50: where the fit crosses half of the plateau (linear between values, in the logarithm where all"
    f" are above 0); low, high: 95 % over targets drawn again ({DRAWS} draws, {FEWEST_TARGETS} targets at least)."
    " Compare attacks by ratios of D50."
)

Doses = Float64[np.ndarray, " d"]
Gains = Float64[np.ndarray, "t d"]


@board("dose-response", chapter="Strength", help="how much of a swept attack does half of what it can do")
def dose_response(data: BoardData) -> list[Board]:
    """A board per setting with a row per swept number of an attack, undefended; UserError where none was swept."""
    trials = data.results.trials
    plain = trials[(trials["defense"] == "none") & (trials["attack"] != "none")]
    boards = []
    for context in contexts(plain, data.mixed):
        lines = list(_lines(context.trials))
        if lines:
            columns = ("attack", "parameter", "values", "n", "plateau", "D50", "D50 low", "D50 high", "remark")
            boards.append(
                Board(
                    title=f"Dose and response · {context.title}",
                    table=table(lines, columns, keep=columns[:6]),
                    caption="\n".join([*context.about, ABOUT]),
                    index=("attack", "parameter"),
                    metrics={"plateau": "gain"},
                )
            )  # fmt: skip
    if not boards:
        raise UserError(
            f"no attack of this run was swept: a list of at least {FEWEST} numbers makes a curve, for example"
            """ --set 'attacks=["none", { name = "badnets", poison_rate = [0.01, 0.03, 0.1] }]'"""
        )
    return boards


def _lines(trials: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for label, parameter, curve in attacks(trials):
        if (line := _line(curve)) is not None:
            yield {"attack": label, "parameter": parameter, **line}


def _line(curve: pd.DataFrame) -> dict[str, Any] | None:
    """Over the trials that every value has: a seed is one more reading of its target."""
    gains = shared(curve).pivot_table(index="target", columns="x", values="gain", aggfunc="mean").dropna()
    if gains.shape[1] < FEWEST or gains.empty:
        return None
    values, held = gains.columns.to_numpy(dtype=np.float64), gains.to_numpy(dtype=np.float64)
    plateau, half = d50(values, held.mean(0))
    line: dict[str, Any] = {
        "values": f"{values[0]:g} to {values[-1]:g} ({len(values)})", "n": len(held), "plateau": plateau,
        "D50": half, "D50 low": None, "D50 high": None, "remark": "",
    }  # fmt: skip
    if half is None:
        return line | {"remark": f"no plateau: less than {EFFECT} gain"}
    if half <= values[0]:
        line["remark"] = "half of it at the smallest value already"
    if len(held) >= FEWEST_TARGETS:
        drawn = np.random.default_rng(0).integers(len(held), size=(DRAWS, len(held)))
        found = [each for rows in drawn if (each := d50(values, held[rows].mean(0))[1]) is not None]
        line["D50 low"], line["D50 high"] = (float(q) for q in np.quantile(found, [0.025, 0.975]))
    return line


def d50(values: Doses, gains: Doses) -> tuple[float, float | None]:
    """The plateau of the rising fit, and the dose at half of it; None where there is no plateau to speak of."""
    from sklearn.isotonic import isotonic_regression

    fit = isotonic_regression(gains)
    plateau = float(fit[-1])
    if plateau < EFFECT:
        return plateau, None
    if fit[0] >= plateau / 2:
        return plateau, float(values[0])
    at = int(np.argmax(fit >= plateau / 2))
    share = float((plateau / 2 - fit[at - 1]) / (fit[at] - fit[at - 1]))
    if values[0] > 0:
        low, high = math.log(values[at - 1]), math.log(values[at])
        return plateau, math.exp(low + share * (high - low))
    return plateau, float(values[at - 1] + share * (values[at] - values[at - 1]))
