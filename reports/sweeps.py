"""Sweeps: trials of one component that differ in a single number."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from bench.api.kinds import RANKING_CHANGING
from bench.config.trial import canonical
from reports.selection import groups, undefended, with_result

FEWEST = 3  # points that make a curve


def attacks(trials: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """The sweeps of attacks among undefended trials, as `sweeps` returns them."""
    yield from sweeps(undefended(with_result(trials)), "attack")


def defenses(trials: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """The sweeps of repairs, data filters and purifications for all attacks, as `sweeps` returns them."""
    done = with_result(trials)
    yield from sweeps(done[done["defense_kind"].isin(RANKING_CHANGING)], "defense")


def trainings(trials: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """The sweeps of the training recipe among undefended trials, for each attack, as `sweeps` returns them."""
    for (attack,), rows in groups(undefended(with_result(trials)), ["attack"]):
        yield from _swept(attack, rows.assign(params=rows["recipe"]))


def sweeps(rows: pd.DataFrame, axis: str) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """(label, parameter, trials with the value of the parameter as `x`) per sweep of a component of the axis."""
    specs = rows[f"{axis}_spec"]
    for name in dict.fromkeys(spec.name for spec in specs):
        mine = rows[np.array([spec.name == name for spec in specs], dtype=bool)]
        yield from _swept(name, mine.assign(params=[spec.params for spec in mine[f"{axis}_spec"]]))


def shared(curve: pd.DataFrame) -> pd.DataFrame:
    """The trials of the (target, seed) cells that every value has, each once, with the latest code only."""
    alike = curve[curve["own_code"] == curve["own_code"].iloc[0]]
    places = [set(zip(part["target"], part["seed"], strict=True)) for _, part in groups(alike, ["x"])]
    common = set.intersection(*places) if len(places) == curve["x"].nunique() else set()
    keep = [place in common for place in zip(alike["target"], alike["seed"], strict=True)]
    found: pd.DataFrame = alike[np.array(keep, dtype=bool)]
    return found.drop_duplicates(["x", "target", "seed"])


def _swept(name: str, rows: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    found = []
    for parameter in dict.fromkeys(chain.from_iterable(rows["params"])):
        rest = [canonical({k: v for k, v in params.items() if k != parameter}) for params in rows["params"]]
        numeric = [_number(params.get(parameter)) for params in rows["params"]]
        for (_,), part in groups(rows.assign(rest=rest, x=np.array(numeric, dtype=np.float64)), ["rest"]):
            curve = part.dropna(subset=["x"])
            if curve["x"].nunique() >= FEWEST:
                others = _differing(rows, curve, parameter)
                found.append((f"{name}{others}", parameter, curve))
    return found


def _differing(rows: pd.DataFrame, curve: pd.DataFrame, parameter: str) -> str:
    """In brackets, the parameters that differ between this sweep and others of the same component."""
    mine = curve["params"].iloc[0]
    words = [
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in mine.items()
        if key != parameter and len({canonical(params.get(key)) for params in rows["params"]}) > 1
    ]
    return f"({', '.join(words)})" if words else ""


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
