"""Checks of an attack before it is planned: threat model, parameters of the trigger, surrogates."""

from __future__ import annotations

from dataclasses import fields, replace

from bench.api import registry
from bench.api.attack import Attack, DataSpec, ModelAttack, ModelSpec, PoisoningAttack, Threat, TrainingAttack
from bench.api.errors import UserError
from bench.config.trial import ComponentSpec, Spec, Trial
from bench.graph.settings import instance, public_setting, spec_of


def check_threat(trial: Trial, attack: Attack) -> None:
    """UserError for an attack whose kind, surrogates or data go beyond the threat model that the attack declares."""
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
            raise UserError(
                f"attack '{name}' trains surrogates on the victim's images: its threat() must declare Threat.TRAIN_SET"
            )
        if isinstance(wish, DataSpec) and wish.name == trial.dataset.name:
            raise UserError(f"attack '{name}' requires the victim's own data set '{wish.name}': require another one")


def trigger_maker(spec: Spec, attack: Attack) -> tuple[Attack, ComponentSpec]:
    """The attack that makes the trigger, and that attack's spec, with only the parameters that change the trigger."""
    maker, name = attack, spec.name
    if attack.shares_trigger_with is not None:
        name = attack.shares_trigger_with
        known = {item.name for item in fields(registry.lookup("attacks", name))}
        maker = instance("attacks", Spec(name, {key: value for key, value in spec.params.items() if key in known}))
    left_out = maker.not_in_trigger - set(registry.required("attacks", name))
    params = {key: value for key, value in registry.parameters(maker).items() if key not in left_out}
    _check_state(maker, name)
    return maker, {"name": name, "params": params}


def _check_state(attack: Attack, name: str) -> None:
    """Refuse an attack that stores more than its parameters: its trigger could read a parameter of `not_in_trigger`."""
    hidden = sorted(attack.not_in_trigger & registry.parameters(attack).keys())
    stored = sorted(vars(attack).keys() - registry.parameters(attack).keys())
    if hidden and stored:
        raise UserError(
            f"attack '{name}' sets '{stored[0]}' when it is created, which may depend on a parameter of its"
            f" not_in_trigger ({', '.join(hidden)}): compute '{stored[0]}' where it is used, or empty not_in_trigger"
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
