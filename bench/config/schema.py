"""The format of suite files: tables and keys as types. Each error is one line with the place and the value."""

from __future__ import annotations

from dataclasses import fields
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.api import registry
from bench.api.errors import in_words
from bench.api.untrusted import abbreviate
from bench.config.reported import ReportedTable
from bench.config.trial import MOST_BITS, SURROGATE

COMPONENT_AXES = {kind: about.axis for kind, about in registry.KINDS.items()}
AXES = COMPONENT_AXES | {
    "bits": "bits",
    "targets": "target",
    "seeds": "seed",
    "surrogate": "surrogate",
    "augment": "augment",
}
Named = str | dict[str, Any]
Bits = Annotated[int, Field(ge=1, le=MOST_BITS)]
# the attacker's clean model: of another seed (with another backbone, method or number of bits), or the victim's own
SurrogateText = Annotated[str, Field(pattern=SURROGATE)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Resources(_Strict):
    """Limits of one stage."""

    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """CPU threads of one stage; a change makes all stages run again."""
    num_gpus: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Share of a GPU that one stage reserves; 0.25: four stages run on each GPU."""
    timeout: Annotated[float, Field(gt=0)] = 7200.0
    """Seconds after which a stage is stopped."""


class Axes(_Strict):
    """The values of each axis. "all": all registered components of the kind."""

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
    surrogate: list[SurrogateText] | None = None
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
    """The values of each axis."""
    training: dict[str, Any] = {}
    """Fields of the training recipe that differ from the published recipe of the method. A list is a sweep."""
    include: list[dict[str, Any]] = []
    """Filters (axis = value). Only trials that match at least one filter run."""
    exclude: list[dict[str, Any]] = []
    """Filters (axis = value). Trials that match a filter do not run. All axes of a filter must match."""
    parameters: dict[str, dict[str, dict[str, Any]]] = {}
    """Parameters by kind and name of a component. Values in the axes have priority."""


class SuiteFile(Block):
    """A suite file. The tables of its top level hold in all blocks."""

    name: str = ""
    """Name in the store. Default: the name of the file."""
    description: str = ""
    """One sentence, printed by `bench list suites`."""
    resources: Resources = Resources()
    """Limits of one stage."""
    blocks: list[Block] = []
    """More lists of axes. Each block also uses the tables of the top level."""
    reported: list[ReportedTable] = []
    """Numbers that a paper reports."""


TABLES: dict[str, type[BaseModel]] = {
    "": SuiteFile, "axes": Axes, "resources": Resources, "reported": ReportedTable, "blocks": Block,
}  # fmt: skip


def explain(error: ValidationError) -> str:
    """The errors of a suite file in one line: at most 20 places, each with its value or the nearest key or table."""
    lines = []
    for item in error.errors()[:20]:
        names = [str(part) for part in item["loc"] if not str(part).startswith(("list[", "literal[", "str"))]
        place = ".".join(names)
        if item["type"] == "extra_forbidden":
            tables = [name for name in names[:-1] if not name.isdigit()]
            lines.append(f"unknown key '{place}'{_meant(names[-1], tables)}")
        else:
            form = "must be other_seed, same, backbone=NAME, method=NAME or bits=N"
            message = form if item["type"] == "string_pattern_mismatch" else in_words(item["msg"])
            lines.append(f"{place} = {abbreviate(item['input'])}: {message}")
    return "; ".join(dict.fromkeys(lines))


def _meant(key: str, tables: list[str]) -> str:
    """The end of the line about an unknown key. tables: names of the tables around it, from the outside."""
    here = tables[-1] if tables else ""
    homes = {name: table for table in ("reported", "training", "resources", "axes", "") for name in _keys(table)}
    homes |= dict.fromkeys(_keys(here), here)
    name = next(iter(get_close_matches(key, homes, n=1, cutoff=0.5)), "")
    if not name:
        return ""
    home = homes[name]
    if home == here:
        return f"; did you mean '{name}'?"
    inner = "blocks." if tables[:1] == ["blocks"] and home in _keys("blocks") else ""
    where = f"under [{inner}{home}]" if home else "above the first table"
    return f": it belongs {where}" if name == key else f"; did you mean '{name}' {where}?"


def _keys(table: str) -> list[str]:
    if table == "training":
        from bench.api.hashing import Recipe  # imports torch, which takes a second

        return [item.name for item in fields(Recipe)]
    model = TABLES.get(table)
    return [*model.model_fields] if model is not None else []
