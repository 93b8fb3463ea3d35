"""Parts of a frame of trials: by status, by whether there is an attack or a defense, by axis, and by equal values.

Attacks and defenses are columns of labels. The label of the trials without one is NONE.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool

from bench.api.errors import UserError, choice, unknown
from bench.api.registry import KIND_OF_AXIS
from bench.config.trial import AXES
from bench.config.words import pieces
from bench.engine.record import Status
from reports.frame import Results

NONE = "none"  # the label of a trial without attack, and of one without defense
TEXTS = frozenset({"attack", "defense"})
BASED = TEXTS | {"access"}  # axes whose values are compared with NONE
SLICES = (*AXES, "access")  # axes that select or group trials


def with_result(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials that have a result."""
    return of_status(trials, Status.OK)


def without_result(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials that have no result, whatever the reason."""
    return trials[(trials["status"] != Status.OK.value).to_numpy(dtype=bool)]


def repeated(trials: pd.DataFrame) -> str:
    """A sentence if a trial has several results, as of two numbers of threads; "" if there are none."""
    count = int(with_result(trials).duplicated([*AXES, "training"]).sum())
    which = "trial has" if count == 1 else "trials have"
    return f"{count} {which} several results, of which the one of the latest run counts." if count else ""


def of_status(trials: pd.DataFrame, status: Status) -> pd.DataFrame:
    """The trials of a status."""
    found = (trials["status"] == status.value).to_numpy(dtype=bool)
    return trials if found.all() else trials[found]  # a copy of a wide frame takes a millisecond


def clean(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials without attack."""
    return trials[(trials["attack"] == NONE).to_numpy(dtype=bool)]


def attacked(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials with an attack."""
    return trials[(trials["attack"] != NONE).to_numpy(dtype=bool)]


def undefended(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials without defense."""
    return trials[(trials["defense"] == NONE).to_numpy(dtype=bool)]


def defended(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials with a defense of any kind."""
    return trials[(trials["defense"] != NONE).to_numpy(dtype=bool)]


def none_first(label: str) -> bool:
    """A key that sorts NONE before all other labels."""
    return label != NONE


def narrow(results: Results, conditions: Sequence[str]) -> Results:
    """The trials that match every `axis=a,b`; UserError without any.

    Conditions on one axis add up. NONE always stays, because attacks and defenses are compared with it.
    """
    wanted: dict[str, set[str]] = {}
    for axis, values in map(_condition, conditions):
        wanted.setdefault(axis, set()).update(values)
    trials, scores = results.trials, results.detectors
    for axis, values in wanted.items():
        known = list(dict.fromkeys(str(value) for value in results.trials[axis]))
        for value in values:
            if not meant(results.trials, axis, [value]).any():
                raise UserError(f"no {axis} '{value}' in this run", choice(value, known))
        kept = values | ({NONE} if axis in BASED else set())
        trials, scores = (frame[meant(frame, axis, kept)] for frame in (trials, scores))
    if trials.empty:
        raise UserError(f"no trial matches {' '.join(conditions)}: every value exists, but not in one trial")
    return Results(trials, scores, results.suites, results.command)


def axis_named(word: str) -> str:
    """The axis that a user names, as `attack` or `attacks`; UserError for another word."""
    for axis in SLICES:
        if word in {axis, f"{axis}s"}:
            return axis
    raise unknown("axis", word, SLICES)


def _condition(text: str) -> tuple[str, set[str]]:
    axis, equals, values = text.partition("=")
    if not equals or not values.strip():
        raise UserError(f"'{text}' is not of the form axis=value, for example attack=badnets")
    return axis_named(axis.strip()), set(pieces(values))


def meant(frame: pd.DataFrame, axis: str, values: Collection[str]) -> Bool[np.ndarray, " n"]:
    """The rows whose value of an axis is named; a component also by its name, or by its name and some parameters."""
    labels = frame[axis].astype(str).isin(values).to_numpy(dtype=bool)
    if axis not in KIND_OF_AXIS:
        return labels
    named = np.array([any(map(spec.has, values)) for spec in frame[f"{axis}_spec"]], dtype=bool)
    found: Bool[np.ndarray, " n"] = labels | named
    return found


def groups(frame: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[tuple[Any, ...], pd.DataFrame]]:
    """The parts of a frame with equal values of `by`, in order of appearance; missing values count as equal."""
    if not len(frame):
        return
    for values, part in frame.groupby(list(by), sort=False, dropna=False):
        yield values if isinstance(values, tuple) else (values,), part
