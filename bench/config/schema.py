"""What a suite file may hold: its tables and keys as types. Every mistake becomes one line with place and value."""

from __future__ import annotations

from dataclasses import fields
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.api import registry
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
    """CPU threads of one stage; part of its key."""
    num_gpus: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Share of a GPU that one stage reserves."""
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
    """Target classes by number or name; a list inside the list is a set of labels."""
    seeds: list[Annotated[int, Field(ge=0, lt=2**31)]] | None = None
    """Repetitions: initialisation, batch order and the draws of the attacker."""
    surrogate: list[Surrogate] | None = None
    """Model on which an attacker prepares: other_seed, same, backbone=NAME, method=NAME or bits=N."""
    augment: list[Literal["victim", "none"]] | None = None
    """Poisons in training: augmented like all images (victim) or not at all (none)."""


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
    """Filters (axis = value): a trial must match at least one of them."""
    exclude: list[dict[str, Any]] = []
    """Filters (axis = value): a trial must match none of them."""
    parameters: dict[str, dict[str, dict[str, Any]]] = {}
    """Parameters by kind and name of a component, for trials whose axes do not set them."""


class SuiteFile(Block):
    """parameters: kind of component to name to parameters, for wherever the suite does not set them itself."""

    name: str = ""
    """Name in the store; default: the name of the file."""
    description: str = ""
    """One sentence, printed by `bench list suites`."""
    resources: Resources = Resources()
    """Limits of one stage."""
    blocks: list[Block] = []
    """Further cross products; tables of the top level hold in each block."""
    reported: list[ReportedTable] = []
    """Numbers that a paper reports."""


TABLES: dict[str, type[BaseModel]] = {
    "": SuiteFile, "axes": Axes, "resources": Resources, "reported": ReportedTable, "blocks": Block,
}  # fmt: skip


def explain(error: ValidationError) -> str:
    """All mistakes in one line; an unknown key with the key or the table that was probably meant."""
    lines = []
    for item in error.errors()[:20]:
        names = [str(part) for part in item["loc"] if not str(part).startswith(("list[", "literal[", "str"))]
        place = ".".join(names)
        if item["type"] == "extra_forbidden":
            tables = [name for name in names[:-1] if not name.isdigit()]
            lines.append(f"unknown key '{place}'{_meant(names[-1], tables)}")
        else:
            lines.append(f"{place} = {abbreviate(item['input'])}: {item['msg'][0].lower()}{item['msg'][1:]}")
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
