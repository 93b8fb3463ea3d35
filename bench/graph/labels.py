"""Names of stages for display, and groups of stages that take about the same time and space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.artifacts.inputs import ImplantInputs, MakeTriggerInputs


def label_of(kind: str, spec: Mapping[str, Any]) -> str:
    """The stage's name in progress displays and errors, for example `implant badnets digits convnet csq 32 bits`."""
    words = [str(spec[role]["name"]) for role in ("attack", "defense", "dataset", "backbone", "method") if role in spec]
    words += [str(part) for part in spec.get("setting", [])]
    words += [f"{spec['bits']} bits"] if "bits" in spec else []
    words += [f"target {'+'.join(spec['target'])}"] if "target" in spec else []
    words += [f"seed {spec['seed']}"] if "seed" in spec else []
    return f"{kind} {' '.join(words)}"


def cost_group_of(kind: str, spec: Mapping[str, Any]) -> str:
    """The stage's kind and the parts of its spec that change its time and the size of its artifact."""
    attacks = kind in {MakeTriggerInputs.stage, ImplantInputs.stage}
    roles = ("dataset", "backbone", "method", "defense", *(("attack",) if attacks else ()))
    words = [str(spec[role]["name"]) for role in roles if role in spec]
    return " ".join(
        [kind, *words, *(str(part) for part in spec.get("setting", [])), str(spec.get("recipe", {}).get("epochs", ""))]
    )


def kind_of_cost_group(group: str) -> str:
    """The kind of the stages in a cost group."""
    return group.partition(" ")[0]
