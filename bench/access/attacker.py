"""What an attack's declared threat model grants it."""

from __future__ import annotations

from typing import Any

from bench.api.attack import Attack, AttackerView, Threat
from bench.api.types import Split
from bench.artifacts import stage_io
from bench.artifacts.models import open_model, without_memory
from bench.artifacts.stage_io import Context, Inputs, Json


def attacker_view(spec: Json, inputs: Inputs, context: Context, attack: Attack) -> AttackerView:
    """What the attack's declared threat model grants, and nothing else."""
    threat = attack.threat()
    granted: dict[str, Any] = {}
    if Threat.TRAIN_SET in threat:
        granted["train"] = stage_io.split(inputs, "train").to(context.device)
    if Threat.MODEL in threat:
        granted["model"] = without_memory(inputs, "clean", context.device)
    setting = stage_io.setting(spec, inputs)
    return AttackerView(
        setting=setting,
        target=stage_io.target(spec, list(setting.classes)),
        public=stage_io.split(inputs, "public").to(context.device),
        surrogates=tuple(open_model(inputs, role, context.device) for role in _numbered(inputs, "surrogate")),
        data=tuple(_proxy_split(inputs, context, n) for n, _ in enumerate(_numbered(inputs, "data_load"))),
        granted=granted,
    )


def _numbered(inputs: Inputs, name: str) -> list[str]:
    found: list[str] = []
    while inputs.has(f"{name}{len(found)}"):
        found.append(f"{name}{len(found)}")
    return found


def _proxy_split(inputs: Inputs, context: Context, number: int) -> Split:
    return stage_io.split(inputs, "train", load=f"data_load{number}", cut=f"data_split{number}").to(context.device)
