"""Builds the attacker's view, with the data that the attack's threat model grants."""

from __future__ import annotations

from typing import Any

from bench.api.attack import AttackerView, Threat
from bench.api.errors import ThreatError
from bench.artifacts import stage_io
from bench.artifacts.inputs import AttackerInputs
from bench.artifacts.models import open_model, without_memory
from bench.artifacts.specs import AttackerSpec
from bench.artifacts.stage_io import Context

SHOWN = Threat.TRAIN_SET | Threat.MODEL  # the flags that change a view


def attacker_view(spec: AttackerSpec, inputs: AttackerInputs, context: Context, threat: Threat) -> AttackerView:
    """The view of an attack. threat: decides whether the view has the training set and the trained model."""
    granted: dict[str, Any] = {}
    if Threat.TRAIN_SET in threat:
        granted["train"] = stage_io.split(inputs, "train").to(context.device)
        granted["numbers"] = {name: number for number, name in enumerate(inputs.load.names)}
    if Threat.MODEL in threat:
        if inputs.clean is None:
            raise ThreatError("the threat model grants the trained model, but the inputs hold no clean model")
        granted["model"] = without_memory(inputs.clean, context.device)
    setting = stage_io.setting(spec, inputs)
    return AttackerView(
        setting=setting,
        target=stage_io.target(spec["target"], list(setting.classes)),
        public=stage_io.split(inputs, "public").to(context.device),
        surrogates=tuple(open_model(surrogate, context.device) for surrogate in inputs.surrogates),
        data=tuple(stage_io.split(proxy, "train").to(context.device) for proxy in inputs.proxies),
        granted=granted,
    )


def shown(threat: Threat) -> list[str]:
    """Names of the flags of a threat model that change the view, for the spec of a stage."""
    return [str(flag.name) for flag in SHOWN & threat]


def threat_of(names: list[str]) -> Threat:
    """The inverse of `shown`."""
    threat = Threat.NONE
    for name in names:
        threat |= Threat[name]
    return threat
