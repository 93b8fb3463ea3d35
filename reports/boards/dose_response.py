"""Dose and response: D50, the dose of an attack that reaches half of its largest gain (METHODOLOGY.md#d50)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64

from bench.api.errors import UserError
from reports.board import Board, Column
from reports.board_registry import BoardData, board
from reports.context import contexts
from reports.rows import table
from reports.selection import attacked, undefended
from reports.sweeps import FEWEST, attacks, shared

EFFECT = 0.05  # gain below which a plateau is no effect
DRAWS = 1000  # of targets
FEWEST_TARGETS = 3
ABOUT = (
    "Gain over the values of one parameter, with all other parameters fixed; the fit is isotonic. plateau: the fit at"
    " the largest value. D50: the value at which the fit crosses half of the plateau, interpolated linearly (in the"
    f" logarithm if all values are above 0). low, high: 95 % interval over targets ({DRAWS} bootstrap draws, at least"
    f" {FEWEST_TARGETS} targets). Compare attacks by ratios of D50."
)

Doses = Float64[np.ndarray, " d"]
Gains = Float64[np.ndarray, "t d"]

COLUMNS = {
    "parameter": Column("the parameter of the attack that was swept"),
    "values": Column("smallest and largest value, and number of values"),
    "n": Column("number of targets; the seeds of a target are averaged", "d50"),
    "plateau": Column("gain of the isotonic fit at the largest value", "d50"),
    "D50": Column("value at which the isotonic fit reaches half of the plateau", "d50"),
    "D50 low": Column("lower bound of the 95 % bootstrap interval over targets", "d50"),
    "D50 high": Column("upper bound of the 95 % bootstrap interval over targets", "d50"),
    "remark": Column("why there is no D50, or why it is only a bound"),
}


@board(
    "dose-response",
    chapter="Strength",
    help="the number or share of poisoned images (or another swept value) at which an attack reaches half of its gain"
    " (D50)",
    columns=COLUMNS,
)
def dose_response(data: BoardData) -> list[Board]:
    """A board per setting with a row per swept parameter of an undefended attack; UserError without any sweep."""
    trials = data.results.trials
    plain = attacked(undefended(trials))
    boards = []
    for context in contexts(plain, data.mixed):
        lines = list(_lines(context.trials))
        if lines:
            columns = ("attack", "parameter", "values", "n", "plateau", "D50", "D50 low", "D50 high", "remark")
            boards.append(
                Board(
                    title="Dose and response",
                    setting=context.setting,
                    table=table(lines, columns, keep=columns[:6]),
                    caption="\n".join([*context.about, ABOUT]),
                    index=("attack", "parameter"),
                    metrics={"plateau": "gain"},
                    details=context.background,
                )
            )  # fmt: skip
    if not boards:
        raise UserError(
            "this run has no sweep of an attack",
            f"give a parameter at least {FEWEST} values, for example"
            """ --set 'attacks=["none", { name = "badnets", poison_rate = [0.01, 0.03, 0.1] }]'""",
        )
    return boards


def _lines(trials: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for label, parameter, curve in attacks(trials):
        if (line := _line(curve)) is not None:
            yield {"attack": label, "parameter": parameter, **line}


def _line(curve: pd.DataFrame) -> dict[str, Any] | None:
    """The row of a sweep, over the cells that every value has; seeds of a target are averaged. None for few values."""
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
        return line | {"remark": f"no plateau: gain below {EFFECT}"}
    if half <= values[0]:
        line["remark"] = "the smallest value already reaches half"
    if len(held) >= FEWEST_TARGETS:
        drawn = np.random.default_rng(0).integers(len(held), size=(DRAWS, len(held)))
        found = [each for rows in drawn if (each := d50(values, held[rows].mean(0))[1]) is not None]
        line["D50 low"], line["D50 high"] = (float(q) for q in np.quantile(found, [0.025, 0.975]))
    return line


def d50(values: Doses, gains: Doses) -> tuple[float, float | None]:
    """The plateau of an isotonic fit, and the dose at half of the plateau; None if the plateau is below EFFECT."""
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
