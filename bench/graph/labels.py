"""Names of stages for display, and groups of stages that take about the same time and space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from bench.artifacts.inputs import ImplantInputs, MakeTriggerInputs


class CostGroup(NamedTuple):
    """Stages that take about the same time and space. stage: their kind. setting: the parts of their specs that count.

    A record stores the setting as its `cost_group`, beside its stage.
    """

    stage: str
    setting: str


def label_of(kind: str, spec: Mapping[str, Any]) -> str:
    """The stage's name in progress displays and errors, for example `implant badnets digits convnet csq 32 bits`."""
    words = [str(spec[role]["name"]) for role in ("attack", "defense", "dataset", "backbone", "method") if role in spec]
    words += [str(part) for part in spec.get("setting", [])]
    words += [f"{spec['bits']} bits"] if "bits" in spec else []
    words += [f"target {'+'.join(spec['target'])}"] if "target" in spec else []
    words += [f"seed {spec['seed']}"] if "seed" in spec else []
    return f"{kind} {' '.join(words)}"


def cost_group_of(kind: str, spec: Mapping[str, Any]) -> CostGroup:
    """The kind of the stage and those parts of its spec that change how long it takes and how much it stores."""
    attacks = kind in {MakeTriggerInputs.stage, ImplantInputs.stage}
    roles = ("dataset", "backbone", "method", "defense", *(("attack",) if attacks else ()))
    words = [str(spec[role]["name"]) for role in roles if role in spec]
    words += map(str, spec.get("setting", []))
    words += [f"{spec['recipe']['epochs']} epochs"] if "recipe" in spec else []
    return CostGroup(kind, " ".join(words))
