"""What an attack's declared threat model grants it."""

from __future__ import annotations

from typing import Any

from bench.api.attack import AttackerView, Threat
from bench.api.errors import ThreatError
from bench.artifacts import stage_io
from bench.artifacts.inputs import AttackerInputs
from bench.artifacts.models import open_model, without_memory
from bench.artifacts.specs import AttackerSpec
from bench.artifacts.stage_io import Context

SHOWN = Threat.TRAIN_SET | Threat.MODEL  # the rest of a threat model changes nothing that a view shows


def attacker_view(spec: AttackerSpec, inputs: AttackerInputs, context: Context, threat: Threat) -> AttackerView:
    """What the threat model grants, and nothing else."""
    granted: dict[str, Any] = {}
    if Threat.TRAIN_SET in threat:
        granted["train"] = stage_io.split(inputs, "train").to(context.device)
    if Threat.MODEL in threat:
        if inputs.clean is None:
            raise ThreatError("the threat model grants the trained model, but the plan holds none for this attack")
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
    """The part of a threat model that decides what a view shows, by the flags' names: for a stage's spec."""
    return [str(flag.name) for flag in SHOWN & threat]


def threat_of(names: list[str]) -> Threat:
    """The inverse of `shown`."""
    threat = Threat.NONE
    for name in names:
        threat |= Threat[name]
    return threat
