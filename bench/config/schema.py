"""What a suite file may hold: its tables and keys as types. Every mistake becomes one line with place and value."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.api import registry
from bench.api.errors import in_words, nearest
from bench.api.untrusted import abbreviate
from bench.config.reported import ReportedTable

COMPONENT_AXES = {kind: about.axis for kind, about in registry.KINDS.items()}
AXES = COMPONENT_AXES | {
    "bits": "bits",
    "targets": "target",
    "seeds": "seed",
    "surrogate": "surrogate",
    "augment": "augment",
}
Named = str | dict[str, Any]
Bits = Annotated[int, Field(ge=1, le=4096)]
# whose clean model the attacker holds: another repetition's (of another backbone, method, length) or the victim's own
Surrogate = Annotated[str, Field(pattern=r"^(other_seed|same|(backbone|method)=[a-z0-9_]+|bits=[1-9][0-9]*)$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Resources(_Strict):
    """What a stage may use.

    threads: of each stage, part of its key. num_gpus: the share of a GPU that a stage reserves, on GPUs only.
    timeout: seconds that a stage may run.
    """

    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """CPU threads of one stage; a change makes all stages run again."""
    num_gpus: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Share of a GPU that one stage reserves; 0.25: four stages run on each GPU."""
    timeout: Annotated[float, Field(gt=0)] = 7200.0
    """Seconds after which a stage is stopped."""


class Axes(_Strict):
    """Values per axis; "all" stands for everything that is registered."""

    datasets: list[Named] | Literal["all"] | None = None
    """Data sets (hashing/README.md)."""
    backbones: list[Named] | Literal["all"] | None = None
    """Networks (hashing/README.md)."""
    methods: list[Named] | Literal["all"] | None = None
    """Hashing methods (hashing/README.md)."""
    attacks: list[Named] | Literal["all"] | None = None
    """Attacks (attacks/README.md)."""
    defenses: list[Named] | Literal["all"] | None = None
    """Defenses (defenses/README.md)."""
    bits: list[Bits] | None = None
    """Code lengths."""
    targets: list[int | str | list[int | str]] | None = None
    """Target classes by number or name; a list inside the list is a set of labels: [["dog", "cat"]]."""
    seeds: list[Annotated[int, Field(ge=0, lt=2**31)]] | None = None
    """Seeds of the initialisation, of the batch order and of the random choices of the attacker."""
    surrogate: list[Surrogate] | None = None
    """Surrogate model of the attacker: other_seed, same, backbone=NAME, method=NAME or bits=N."""
    augment: list[Literal["victim", "none"]] | None = None
    """Augmentation of poisoned images: like all images of the victim (victim), or no augmentation (none)."""


DEFAULTS = Axes(
    datasets=["digits"], backbones=["convnet"], methods=["csq"], attacks=["none"], defenses=["none"], bits=[32],
    targets=[0], seeds=[0], surrogate=["other_seed"], augment=["victim"],
)  # fmt: skip


class Block(_Strict):
    """A cross product of axes. Trials must match one `include` filter (if there are any) and no `exclude` filter."""

    axes: Axes = Axes()
    """Values per axis."""
    training: dict[str, Any] = {}
    """Fields of the training recipe that differ from the published recipe of the method."""
    include: list[dict[str, Any]] = []
    """Filters (axis = value). Only trials that match at least one filter run."""
    exclude: list[dict[str, Any]] = []
    """Filters (axis = value). Trials that match a filter do not run. All axes of a filter must match."""
    parameters: dict[str, dict[str, dict[str, Any]]] = {}
    """Parameters by kind and name of a component. Values in the axes have priority."""


class SuiteFile(Block):
    """parameters: kind of component to name to parameters, for wherever the suite does not set them itself."""

    name: str = ""
    """Name in the store; default: the name of the file."""
    description: str = ""
    """One sentence, printed by `bench list suites`."""
    resources: Resources = Resources()
    """Limits of one stage."""
    blocks: list[Block] = []
    """More lists of axes. Each block also uses the tables of the top level."""
    reported: list[ReportedTable] = []
    """Numbers that a paper reports."""


def explain(error: ValidationError) -> str:
    known = {*SuiteFile.model_fields, *Axes.model_fields, *Resources.model_fields, *ReportedTable.model_fields}
    lines = []
    for item in error.errors()[:20]:
        place = ".".join(str(part) for part in item["loc"] if not str(part).startswith(("list[", "literal[", "str")))
        if item["type"] == "extra_forbidden":
            lines.append(f"unknown key '{place}'{nearest(str(item['loc'][-1]), known)}")
        else:
            form = "must be other_seed, same, backbone=NAME, method=NAME or bits=N"
            message = form if item["type"] == "string_pattern_mismatch" else in_words(item["msg"])
            lines.append(f"{place} = {abbreviate(item['input'])}: {message}")
    return "; ".join(dict.fromkeys(lines))
