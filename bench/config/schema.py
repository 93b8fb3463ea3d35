"""What a suite file may hold: its tables and keys as types. Every mistake becomes one line with place and value."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.api import registry
from bench.api.errors import nearest
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
    num_gpus: Annotated[float, Field(gt=0, le=1)] = 0.25
    timeout: Annotated[float, Field(gt=0)] = 7200.0


class Axes(_Strict):
    """Values per axis; "all" stands for everything that is registered."""

    datasets: list[Named] | Literal["all"] | None = None
    backbones: list[Named] | Literal["all"] | None = None
    methods: list[Named] | Literal["all"] | None = None
    attacks: list[Named] | Literal["all"] | None = None
    defenses: list[Named] | Literal["all"] | None = None
    bits: list[Bits] | None = None
    targets: list[int | str | list[int | str]] | None = None
    seeds: list[Annotated[int, Field(ge=0, lt=2**31)]] | None = None
    surrogate: list[Surrogate] | None = None
    augment: list[Literal["victim", "none"]] | None = None


DEFAULTS = Axes(
    datasets=["digits"], backbones=["convnet"], methods=["csq"], attacks=["none"], defenses=["none"], bits=[32],
    targets=[0], seeds=[0], surrogate=["other_seed"], augment=["victim"],
)  # fmt: skip


class Block(_Strict):
    """A cross product of axes. Trials must match one `include` filter (if there are any) and no `exclude` filter."""

    axes: Axes = Axes()
    training: dict[str, Any] = {}
    include: list[dict[str, Any]] = []
    exclude: list[dict[str, Any]] = []
    parameters: dict[str, dict[str, dict[str, Any]]] = {}


class SuiteFile(Block):
    """parameters: kind of component to name to parameters, for wherever the suite does not set them itself."""

    name: str = ""
    description: str = ""
    resources: Resources = Resources()
    blocks: list[Block] = []
    reported: list[ReportedTable] = []


def explain(error: ValidationError) -> str:
    known = {*SuiteFile.model_fields, *Axes.model_fields, *Resources.model_fields, *ReportedTable.model_fields}
    lines = []
    for item in error.errors()[:20]:
        place = ".".join(str(part) for part in item["loc"] if not str(part).startswith(("list[", "literal[", "str")))
        if item["type"] == "extra_forbidden":
            lines.append(f"unknown key '{place}'{nearest(str(item['loc'][-1]), known)}")
        else:
            lines.append(f"{place} = {abbreviate(item['input'])}: {item['msg'][0].lower()}{item['msg'][1:]}")
    return "; ".join(dict.fromkeys(lines))
