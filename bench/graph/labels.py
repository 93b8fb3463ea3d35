"""Names of stages for display, and groups of stages that take about the same time and space."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from bench.artifacts.inputs import DefendInputs, ImplantInputs, MakeTriggerInputs, TrainInputs

# for data sets whose parameters do not have them: the published protocols train on about 10,000 images
USUAL = {"size": 224, "train": 10_000, "epochs": 1}
TRAINING = frozenset({TrainInputs.stage, ImplantInputs.stage, DefendInputs.stage})  # a recipe is in their specs


class CostGroup(NamedTuple):
    """Stages that take about the same time and space.

    stage: their kind. setting: the names in their specs that count. counts: the numbers of images, steps, epochs and
    the like in their specs.
    """

    stage: str
    setting: str
    counts: str

    @property
    def work(self) -> float:
        """How much a stage computes, compared with others of its kind.

        It is the number of pixels of an image; for stages that train, times images and epochs.
        """
        return _work(self)


@cache  # progress displays ask for hundreds of groups after each stage
def _work(group: CostGroup) -> float:
    found = USUAL | {name: int(value) for name, value in (pair.split("=") for pair in group.counts.split())}
    trained = found["train"] * found["epochs"] if group.stage in TRAINING else 1  # recipes come last
    return float(max(1, found["size"] ** 2 * trained))


def label_of(kind: str, spec: Mapping[str, Any]) -> str:
    """The stage's name in progress displays and errors, for example `implant badnets digits convnet csq 32 bits`."""
    words = [str(spec[role]["name"]) for role in ("attack", "defense", "dataset", "backbone", "method") if role in spec]
    words += [str(part) for part in spec.get("setting", [])]
    words += [f"{spec['bits']} bits"] if "bits" in spec else []
    words += [f"target {'+'.join(spec['target'])}"] if "target" in spec else []
    words += [f"seed {spec['seed']}"] if "seed" in spec else []
    return f"{kind} {' '.join(words)}"


def cost_group_of(kind: str, spec: Mapping[str, Any]) -> CostGroup:
    """The kind of the stage and those parts of its spec that change how long it takes and how much it stores.

    Whole numbers count something (images, steps, epochs, channels); other parameters cost nothing.
    """
    attacks = kind in {MakeTriggerInputs.stage, ImplantInputs.stage}
    roles = ("dataset", "backbone", "method", "defense", *(("attack",) if attacks else ()))
    found = [spec[role] for role in (*roles, "recipe") if isinstance(spec.get(role), Mapping)]
    words = [*(str(one["name"]) for one in found if "name" in one), *map(str, spec.get("setting", []))]
    counts = (
        f"{name}={value}"
        for one in found
        for name, value in one.get("params", one).items()
        if isinstance(value, int) and not isinstance(value, bool)
    )
    return CostGroup(kind, " ".join(words), " ".join(counts))
