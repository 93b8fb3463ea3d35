"""What an attack's declared threat model grants it."""

from __future__ import annotations

from typing import Any

from bench.api.attack import Attack, Threat, Victim
from bench.api.types import SPLITS, DataProtocol, RetrievalData
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
        data=tuple(_retrieval_data(inputs, context, n) for n, _ in enumerate(_numbered(inputs, "data_load"))),
        granted=granted,
    )


def _numbered(inputs: Inputs, name: str) -> list[str]:
    found: list[str] = []
    while inputs.has(f"{name}{len(found)}"):
        found.append(f"{name}{len(found)}")
    return found


def _retrieval_data(inputs: Inputs, context: Context, number: int) -> RetrievalData:
    load, cut = f"data_load{number}", f"data_split{number}"
    parts = {part: _base.split(inputs, part, load=load, cut=cut).to(context.device) for part in SPLITS}
    protocol = inputs.meta(cut)["protocol"]
    return RetrievalData(**parts, classes=tuple(inputs.meta(load)["classes"]), protocol=DataProtocol(**protocol))
