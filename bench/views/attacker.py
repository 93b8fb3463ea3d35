"""What an attack's declared threat model grants it."""

from __future__ import annotations

from typing import Any

from bench.api.attack import Attack, Threat, Victim
from bench.api.types import Split
from bench.stages import _base
from bench.stages._base import Context, Inputs, Json
from bench.stages._models import forgetful, open_model


def victim(spec: Json, inputs: Inputs, context: Context, attack: Attack) -> Victim:
    """What the attack's declared threat model grants, and nothing else."""
    threat = attack.threat()
    granted: dict[str, Any] = {}
    if Threat.TRAIN_SET in threat:
        granted["train"] = _base.split(inputs, "train").to(context.device)
    if Threat.MODEL in threat:
        granted["model"] = forgetful(inputs, "clean", context.device)
    setting = _base.setting(spec, inputs)
    return Victim(
        setting=setting,
        target=_base.target(spec, list(setting.classes)),
        public=_base.split(inputs, "public").to(context.device),
        surrogates=tuple(open_model(inputs, role, context.device) for role in _numbered(inputs, "surrogate")),
        data=tuple(_foreign(inputs, context, n) for n, _ in enumerate(_numbered(inputs, "data_load"))),
        granted=granted,
    )


def _numbered(inputs: Inputs, name: str) -> list[str]:
    found: list[str] = []
    while inputs.has(f"{name}{len(found)}"):
        found.append(f"{name}{len(found)}")
    return found


def _foreign(inputs: Inputs, context: Context, number: int) -> Split:
    return _base.split(inputs, "train", load=f"data_load{number}", cut=f"data_split{number}").to(context.device)
