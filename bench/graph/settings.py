"""Components and settings of trials: instances, training recipes, and the specs of victims."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import cache
from typing import Any

from pydantic import ValidationError

from bench.api import registry
from bench.api.errors import NO_BOOLEAN, UserError
from bench.api.hashing import Backbone, Recipe
from bench.api.types import Setting
from bench.api.untrusted import boolean_as_number
from bench.artifacts.specs import SettingSpec
from bench.config.trial import PlannedTrial, Spec, Trial, canonical
from bench.graph.cache_key import content_of
from hashing.train import fast_precision


def instance(kind: str, spec: Spec) -> Any:
    """The component of a kind ("attacks", ...) with a spec's parameters. Trials share instances, which are frozen."""
    return _instance(kind, spec, registry.generation())


@cache
def _instance(kind: str, spec: Spec, generation: int) -> Any:
    """generation: of the registry, since a reloaded plugin may give the same name another class."""
    del generation
    return registry.create(kind, spec.name, spec.params)


def spec_of(kind: str, name: str, params: Mapping[str, Any] | None = None) -> Spec:
    """The spec of a component: default values, except for `params`."""
    return Spec(name, registry.parameters(registry.create(kind, name, params or {})))


def public_setting(trial: Trial) -> Setting:
    """The part of a setting that is known before the data are read: classes are empty, sizes are 0."""
    return Setting(
        dataset=trial.dataset.name, backbone=trial.backbone.name, method=trial.method.name, bits=trial.bits,
        classes=(), image_shape=(0, 0, 0), train_size=0,
        proxy_dataset=registry.lookup("datasets", trial.dataset.name).proxy_dataset,
    )  # fmt: skip


def setting_spec(trial: Trial, device: str) -> SettingSpec:
    """The spec of the trial's victim before any attack."""
    backbone: Backbone = instance("backbones", trial.backbone)
    spec: SettingSpec = {
        "dataset": trial.dataset.as_json(),
        "backbone": trial.backbone.as_json(),
        "method": trial.method.as_json(),
        "bits": trial.bits,
        "seed": trial.seed,
        "recipe": _recipe(trial.method.name, canonical(dict(trial.training)), device, registry.generation()),
    }
    if weights := backbone.files():
        spec["weights"] = content_of(weights)
    return spec


def hardly_trained(trials: Iterable[PlannedTrial]) -> tuple[str, ...]:
    """A line for each network of random weights that a method's own recipe trains slower than the hash layer.

    Recipes for public weights do so. A suite that gives `backbone_lr` itself means it.
    """
    left_open = dict.fromkeys(
        (planned.trial.backbone, planned.trial.method.name)
        for planned in trials
        if planned.key is not None and "backbone_lr" not in planned.trial.training
    )
    found = []
    for backbone, method in left_open:
        factor = registry.lookup("methods", method).recipe.backbone_lr
        if factor < 1 and not instance("backbones", backbone).files():
            rate = f"at {factor:g} times the rate of the hash layer" if factor else "not at all"
            found.append(
                f"{backbone.label} starts from random weights, and the recipe of {method} trains the backbone {rate},"
                " as suits public weights: `--set training.backbone_lr=1` trains all of it"
            )
    return tuple(found)


def recipe_of(method: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a method's recipe with a suite's changes. UserError: unknown method, or an impossible change."""
    paper = asdict(registry.lookup("methods", method).recipe)
    try:
        recipe = Recipe(**{**paper, **changes})
    except ValidationError as error:
        raise registry.invalid("training", error, list(paper)) from None
    if place := boolean_as_number(changes, recipe):
        raise UserError(f"training: {place} {NO_BOOLEAN}")
    return asdict(recipe)


@cache
def _recipe(method: str, training: str, device: str, generation: int) -> dict[str, Any]:
    """A recipe whose changes are canonical JSON.

    It is a part of keys, so the precision "auto" is replaced here by the device's fast precision.
    """
    del generation
    found = recipe_of(method, json.loads(training))
    return found | ({"precision": fast_precision(device)} if found["precision"] == "auto" else {})
