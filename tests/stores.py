"""Records, components and trials from as little as a test has to say of them."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bench.api.kinds import Access, DefenseKind
from bench.config.trial import PlannedTrial, Spec, Surrogate, Trial
from bench.config.words import pieces
from bench.engine.record import Record, RunManifest
from bench.engine.store import Store
from bench.graph.plan import Plan

AXES = {"dataset": "toy", "backbone": "net", "method": "csq", "bits": 32, "surrogate": "other_seed",
        "augment": "victim", "attack": "none", "defense": "none", "target": "0", "seed": 0}  # fmt: skip


def record(key: str, stage: str = "measure", **fields: Any) -> Record:
    """A record of a stage that succeeded, unless the fields say otherwise."""
    return Record.model_validate({"key": key, "stage": stage, "label": stage, "status": "ok", "code": "c", **fields})


def changed(one: Record, **fields: Any) -> Record:
    """A record with other fields."""
    return Record.model_validate({**one.as_json(), **fields})


def spec(label: str, **params: Any) -> Spec:
    """The component that prints as `label`; params: those that the label leaves out."""
    name, bracket, inner = label.partition("(")
    if not bracket:
        return Spec(name, params)
    given = {}
    for setting in pieces(inner.removesuffix(")")):
        key, _, value = setting.partition("=")
        try:
            given[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            given[key] = value
    return Spec(name, {**given, **params}, given)


def trial(**axes: Any) -> Trial:
    """A trial by the labels and values of its axes."""
    found = {**AXES, **axes}
    components = {
        axis: value if isinstance(value := found[axis], Spec) else spec(value)
        for axis in ("dataset", "backbone", "method", "attack", "defense")
    }
    surrogate = Surrogate.parse(found["surrogate"])
    return Trial(**{**found, **components, "surrogate": surrogate, "target": tuple(found["target"].split("+"))})


def planned(key: str | None, axes: Mapping[str, Any], **about: Any) -> PlannedTrial:
    """A line of a manifest."""
    return PlannedTrial(trial(**axes), key, **{"access": Access.NONE, "defense_kind": DefenseKind.NONE, **about})


def write_run(store: Store, plan: Plan, suite: str = "tiny", command: str = "python -m bench run") -> None:
    """The manifest of a plan, as `bench run` writes it."""
    store.write_run(RunManifest(suites=[suite], command=command, trials=plan.trials))


def other_surrogate(one: PlannedTrial, surrogate: str) -> PlannedTrial:
    return replace(one, trial=replace(one.trial, surrogate=Surrogate.parse(surrogate)))
