"""Rules that an attack must keep before it is planned: its threat model, its trigger's parameters, its surrogates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from bench.api import registry
from bench.api.attack import Attack, DataSpec, ModelAttack, ModelSpec, PoisoningAttack, Threat, TrainingAttack
from bench.api.errors import UserError
from bench.config.trial import ComponentSpec, Spec, Trial
from bench.graph.settings import instance, public_setting, spec_of


def check_threat(trial: Trial, attack: Attack) -> None:
    """Refuse an attack whose kind, surrogates or data go beyond the threat model that the attack declares."""
    threat, name = attack.threat(), trial.attack.name
    if not isinstance(threat, Threat):
        raise UserError(f"attack '{name}': threat() must return a Threat, not {threat!r}")
    for kind, flag in (
        (PoisoningAttack, Threat.TRAIN_SET),
        (ModelAttack, Threat.MODEL),
        (TrainingAttack, Threat.TRAINING),
    ):
        if isinstance(attack, kind) and flag not in threat:
            raise UserError(f"attack '{name}' is a {kind.__name__}: its threat() must declare Threat.{flag.name}")
    for wish in attack.requires(public_setting(trial)):
        if isinstance(wish, ModelSpec) and Threat.TRAIN_SET not in threat:
            raise UserError(f"attack '{name}' trains surrogates on the victim's images: declare Threat.TRAIN_SET")
        if isinstance(wish, DataSpec) and wish.name == trial.dataset.name:
            raise UserError(f"attack '{name}' asks for the victim's own data set '{wish.name}': name another one")


def trigger_maker(spec: Spec, attack: Attack) -> tuple[Attack, ComponentSpec]:
    """The attack that makes the trigger, and its name with the parameters that the trigger depends on."""
    maker, name = attack, spec.name
    if attack.shares_trigger_with is not None:
        name = attack.shares_trigger_with
        known = {item.name for item in fields(registry.lookup("attacks", name))}
        maker = instance("attacks", Spec(name, {key: value for key, value in spec.params.items() if key in known}))
    left_out = maker.not_in_trigger - set(registry.required("attacks", name))
    params = {key: value for key, value in registry.parameters(maker).items() if key not in left_out}
    _check_derived(maker, name, params)
    return maker, {"name": name, "params": params}


def _check_derived(attack: Attack, name: str, params: Mapping[str, Any]) -> None:
    """Refuse an attack that stores a value computed from a parameter of `not_in_trigger`: its trigger could read that.

    params: the parameters that the trigger depends on. Where the trigger is made, the others have their defaults.
    """
    full = registry.parameters(attack)
    given, again, shared = (vars(registry.create("attacks", name, of)) for of in (full, full, params))
    for attribute in given.keys() - full.keys():
        reproducible = repr(given[attribute]) == repr(again[attribute])
        if reproducible and repr(given[attribute]) != repr(shared.get(attribute)):
            raise UserError(
                f"attack '{name}' computes '{attribute}' from a parameter of its not_in_trigger: remove that parameter"
                f" from not_in_trigger ({', '.join(sorted(attack.not_in_trigger))})"
            )


def surrogate_trial(trial: Trial, wish: ModelSpec) -> Trial:
    """The setting of a surrogate. The suite's `surrogate` axis decides what the attack leaves open."""
    given = trial.surrogate
    backbone, method = wish.backbone or given.backbone, wish.method or given.method
    return replace(
        trial,
        seed=trial.surrogate_seed,
        bits=wish.bits or given.bits or trial.bits,
        method=spec_of("methods", method) if method else trial.method,
        backbone=spec_of("backbones", backbone) if backbone else trial.backbone,
    )
