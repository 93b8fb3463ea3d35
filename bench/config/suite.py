"""Suites: TOML in, trials out. Every mistake is named with the place, what was given and what was expected."""

from __future__ import annotations

import itertools
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.api import registry
from bench.api.errors import DataMissingError, UserError, nearest, unknown
from bench.api.untrusted import abbreviate, invalid_reason, read_bytes
from bench.config.reported import ReportedNumber, ReportedTable, claims
from bench.config.trial import Spec, Trial, pieces

if TYPE_CHECKING:
    from bench.api.hashing import Dataset

COMPONENT_AXES = {
    "datasets": "dataset",
    "backbones": "backbone",
    "methods": "method",
    "attacks": "attack",
    "defenses": "defense",
}
AXES = COMPONENT_AXES | {
    "bits": "bits",
    "targets": "target",
    "seeds": "seed",
    "surrogate": "surrogate",
    "augment": "augment",
}
MAX_TRIALS, FILE, DOTS = 10**6, 2**18, 500  # the most trials of a suite, bytes of its file, dots of a line
T = TypeVar("T")
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
    claims: list[ReportedTable] = []


@dataclass(frozen=True)
class Skipped:
    """A trial that cannot run here, and why."""

    axes: Mapping[str, str | int]
    reason: str


@dataclass(frozen=True)
class Suite:
    name: str
    description: str
    resources: Resources
    blocks: tuple[Block, ...]
    claims: tuple[ReportedNumber, ...] = ()
    only: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def trials(self, data: Path | None) -> Iterator[Trial | Skipped]:
        """Every trial once, cheapest block first as written; trials without data come as Skipped."""
        seen: set[str] = set()
        found = False
        for trial in itertools.chain.from_iterable(_trials_of(block, data) for block in self.blocks):
            axes = trial.axes() if isinstance(trial, Trial) else trial.axes
            if not all(_match(axes, axis, values) for axis, values in self.only.items()):
                continue
            found = True
            if (identity := repr(trial)) not in seen:
                seen.add(identity)
                yield trial
        if not found:
            wanted = " ".join(f"{axis}={','.join(values)}" for axis, values in self.only.items())
            raise UserError(
                f"suite '{self.name}' has no trial left for --only {wanted or '(nothing)'}: see `bench plan`"
            )


def names() -> dict[str, str]:
    """The suites that ship with HashDoor: name to description."""
    found = {}
    for file in sorted(resources.files("suites").iterdir(), key=lambda item: item.name):
        if file.name.endswith(".toml"):
            found[file.name.removesuffix(".toml")] = str(tomllib.loads(file.read_text("utf-8")).get("description", ""))
    return found


def load(name: str, *, changes: Sequence[str] = (), only: Sequence[str] = ()) -> Suite:
    """A suite by name or by the path of a TOML file, narrowed by `axis=a,b` strings."""
    where, text = _read(name)
    if any(line.count(".") > DOTS for line in text.split("\n")):  # tomllib takes minutes for a.a.a and so on
        raise UserError(f"{where} has a line with more than {DOTS} dots: write its values on several lines")
    try:
        raw = tomllib.loads(text)
    except RecursionError:
        raise UserError(f"{where} is not TOML that can be read: its tables or lists are nested too deeply") from None
    except ValueError as error:  # a TOMLDecodeError, or a number of thousands of digits
        raise UserError(f"{where} is not TOML: {error}") from None
    for change in changes:
        _apply(raw, change)
    if why := invalid_reason({**raw, "resources": None}) or invalid_reason(raw.get("resources"), infinite=True):
        raise UserError(f"{where}: {why}: give texts, booleans and finite numbers of 64 bits")
    try:
        parsed = SuiteFile.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"{where}: {_explain(error)}") from None
    base = parsed.axes
    blocks = tuple(
        Block(
            axes=Axes(**{axis: _first(getattr(block.axes, axis), getattr(base, axis), axis) for axis in AXES}),
            training={**parsed.training, **block.training},
            include=[*parsed.include, *block.include],
            exclude=[*parsed.exclude, *block.exclude],
            parameters=parsed.parameters,
        )
        for block in (parsed.blocks or [Block()])
    )
    if (count := sum(map(_size, blocks))) > MAX_TRIALS:
        raise UserError(f"{where} has {count:,} trials before its filters, more than {MAX_TRIALS:,}: shorten some axes")
    for block in blocks:
        _check_filters(where, [*block.include, *block.exclude])
    _check_parameters(where, parsed)
    return Suite(
        name=parsed.name or Path(name).stem,
        description=parsed.description,
        resources=parsed.resources,
        blocks=blocks,
        claims=claims(where, parsed.claims, list(AXES.values())),
        only=dict(_only(item) for item in only),
    )


def _read(name: str) -> tuple[str, str]:
    if name.endswith(".toml") or "/" in name:
        path = Path(name)
        try:
            return f"suite file '{path}'", read_bytes(path, FILE, regular=False).decode().replace("\r\n", "\n")
        except (OSError, ValueError) as error:
            raise UserError(f"suite file '{path}' cannot be read: {error}") from None
    shipped = names()
    if name not in shipped:
        raise unknown("suite", name, shipped, "or give the path of a .toml file")
    return f"suite '{name}'", (resources.files("suites") / f"{name}.toml").read_text("utf-8")


def _first(own: Any, base: Any, axis: str) -> Any:
    chosen = own if own is not None else base
    return chosen if chosen is not None else getattr(DEFAULTS, axis)


def axis_of(word: str) -> str:
    """`attack` or `attacks` to `attacks`; anything else is an unknown axis."""
    for plural, singular in AXES.items():
        if word in {plural, singular}:
            return plural
    raise unknown("axis", word, AXES)


def _split(item: str) -> tuple[str, str]:
    left, equals, right = item.partition("=")
    if not equals or not right:
        raise UserError(f"'{item}' is not of the form axis=a,b: for example bits=16,32")
    return left.strip(), right.strip()


def _only(item: str) -> tuple[str, tuple[str, ...]]:
    axis, values = _split(item)
    return AXES[axis_of(axis)], tuple(pieces(values))


def scalar(text: str) -> Any:
    """A value as the command line gives it: TOML where it is such, else the text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()
    except (ValueError, RecursionError):
        raise UserError(f"{abbreviate(text)} holds a number that is too long, or brackets nested too deeply") from None


def _apply(raw: dict[str, Any], change: str) -> None:
    """`--set`: an axis (replaces it in every block), `training.lr=...` or `resources.timeout=...`."""
    key, text = _split(change)
    table, dot, name = key.partition(".")
    blocks = [block for block in _of(raw, "blocks", list) if isinstance(block, dict)]
    if dot and table in {"training", "resources"}:
        for holder in [raw, *(blocks if table == "training" else [])]:
            if isinstance(inner := holder.setdefault(table, {}), dict):
                inner[name] = scalar(text)
        return
    axis = axis_of(key)
    if text == "all":
        value: Any = "all"
    elif text.startswith("["):
        value = scalar(text)
    else:
        value = [scalar(part) for part in text.split(",")]
    if isinstance(axes := raw.setdefault("axes", {}), dict):
        axes[axis] = value
    for block in blocks:
        _of(block, "axes", dict).pop(axis, None)


def _of(table: dict[str, Any], key: str, kind: type[T]) -> T:
    """What a table holds there, if it is of the kind; validation names what is not."""
    found = table.get(key)
    return found if isinstance(found, kind) else kind()


def _check_filters(where: str, filters: list[dict[str, Any]]) -> None:
    for item in filters:
        for axis in item:
            if axis not in AXES.values():
                raise UserError(f"{where}: a filter names the axis '{axis}'{nearest(axis, AXES.values())} "
                                f"Known: {', '.join(AXES.values())}")  # fmt: skip


def _check_parameters(where: str, parsed: SuiteFile) -> None:
    for kind, components in parsed.parameters.items():
        if kind not in COMPONENT_AXES:
            raise UserError(f"{where}: [parameters.{kind}] is no kind of component{nearest(kind, COMPONENT_AXES)} "
                            f"Known: {', '.join(COMPONENT_AXES)}")  # fmt: skip
        for name in components:
            registry.find(kind, name)
    if any(block.parameters for block in parsed.blocks):
        raise UserError(f"{where}: [parameters] belongs to the whole suite: write it outside the blocks")


def _explain(error: ValidationError) -> str:
    known = {*SuiteFile.model_fields, *Axes.model_fields, *Resources.model_fields, *ReportedTable.model_fields}
    lines = []
    for item in error.errors()[:20]:
        place = ".".join(str(part) for part in item["loc"] if not str(part).startswith(("list[", "literal[", "str")))
        if item["type"] == "extra_forbidden":
            lines.append(f"unknown key '{place}'{nearest(str(item['loc'][-1]), known)}")
        else:
            lines.append(f"{place} = {abbreviate(item['input'])}: {item['msg'][0].lower()}{item['msg'][1:]}")
    return "; ".join(dict.fromkeys(lines))


def _size(block: Block) -> int:
    """How many trials the axes make, were every filter to let them through; nothing is made yet."""
    count = 1
    for axis in AXES:
        values = getattr(block.axes, axis)
        if values == "all":
            count *= len(registry.catalogue(axis))
        elif axis in COMPONENT_AXES:
            count *= sum(_sweep(value) for value in values)
        else:
            count *= len(values)
    return count


def _sweep(value: Named) -> int:
    lists = [] if isinstance(value, str) else [item for item in value.values() if isinstance(item, list)]
    return math.prod(len(item) for item in lists)


def _specs(
    kind: str, values: list[Named] | Literal["all"], usual: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Spec]:
    """Every configured component of an axis; list-valued parameters are sweeps. usual: the suite's own defaults."""
    entries: list[Named] = list(registry.catalogue(kind)) if values == "all" else list(values)
    if values == "all" and kind in {"attacks", "defenses"}:
        entries.sort(key=lambda entry: entry != "none")
    found = []
    for entry in entries:
        own = (usual or {}).get(entry if isinstance(entry, str) else str(entry.get("name")), {})
        if values == "all" and not own and registry.required(kind, str(entry)):
            if kind == "datasets":
                found.append(Spec(str(entry)))  # its trials are left out, and the plan says why
            continue  # what stands for something of the user's is not part of "all"
        table = {**own, **({"name": entry} if isinstance(entry, str) else entry)}
        if "name" not in table:
            raise UserError(f"{kind}: {table!r} has no 'name': write {{ name = \"...\", parameter = value }}")
        name = str(table.pop("name"))
        default: dict[str, Any] | None = None
        sweeps = [value if isinstance(value, list) else [value] for value in table.values()]
        for combination in itertools.product(*sweeps):
            instance = registry.create(kind, name, dict(zip(table, combination, strict=True)))
            params = registry.parameters(instance)
            default = default if default is not None else _defaults(type(instance))
            given = {
                key: value for key, value in params.items() if value is not None and default.get(key, ...) != value
            }
            found.append(Spec(name, params, given))
    return found


def _defaults(cls: type[Any]) -> dict[str, Any]:
    return {item.name: item.default for item in fields(cls)}


def _target(value: int | str | list[int | str], classes: tuple[str, ...], dataset: str) -> tuple[str, ...]:
    found = []
    for part in value if isinstance(value, list) else [value]:
        if isinstance(part, str):
            if part not in classes:
                raise unknown(f"target class of {dataset}", part, classes)
            found.append(part)
        elif 0 <= part < len(classes):
            found.append(classes[part])
        else:
            raise UserError(
                f"target {part}: {dataset} has {len(classes)} classes, so targets are 0 to {len(classes) - 1}"
            )
    if not found:
        raise UserError("a target is empty: give a class name, a class number, or a list of them")
    return tuple(sorted(set(found), key=classes.index))


def _trials_of(block: Block, data: Path | None) -> Iterator[Trial | Skipped]:
    axes = block.axes
    specs = {kind: _specs(kind, getattr(axes, kind), block.parameters.get(kind)) for kind in COMPONENT_AXES}
    seeds, targets = list(dict.fromkeys(axes.seeds or [])), axes.targets or []
    others = {seed: seeds[(i + 1) % len(seeds)] if len(seeds) > 1 else seed + 1 for i, seed in enumerate(seeds)}
    for dataset in specs["datasets"]:
        missing = ""
        classes: tuple[str, ...] = ()
        try:
            classes = _classes(dataset, data)
        except DataMissingError as error:
            missing = str(error)
        resolved = [_target(target, classes, dataset.name) if not missing else (str(target),) for target in targets]
        for seed, backbone, method, bits, target, attack, defense, surrogate, augment in itertools.product(
            seeds, specs["backbones"], specs["methods"], axes.bits or [], resolved, specs["attacks"],
            specs["defenses"], axes.surrogate or [], axes.augment or [],
        ):  # fmt: skip
            trial = Trial(
                dataset=dataset, backbone=backbone, method=method, bits=bits, attack=attack, defense=defense,
                target=target, seed=seed, surrogate=surrogate,
                surrogate_seed=seed if surrogate == "same" else others[seed], augment=augment,
                training=block.training,
            )  # fmt: skip
            coordinates = trial.axes()
            kept = not block.include or any(_filter(coordinates, item) for item in block.include)
            if kept and not any(_filter(coordinates, item) for item in block.exclude):
                yield Skipped(coordinates, missing) if missing else trial


def _classes(dataset: Spec, data: Path | None) -> tuple[str, ...]:
    """Class names, if the data are on this machine."""
    wanted = ", ".join(registry.required("datasets", dataset.name))
    if wanted and not dataset.params:
        raise DataMissingError(f"{dataset.name} stands for data of your own: name it in a suite with {wanted}")
    component: Dataset = registry.create("datasets", dataset.name, dataset.params)
    component.files(data)
    return component.classes(data)


def _filter(axes: Mapping[str, str | int], wanted: Mapping[str, Any]) -> bool:
    return all(
        _match(axes, axis, tuple(str(v) for v in (value if isinstance(value, list) else [value])))
        for axis, value in wanted.items()
    )


def _match(axes: Mapping[str, str | int], axis: str, values: tuple[str, ...]) -> bool:
    coordinate = str(axes[axis])
    return coordinate in values or coordinate.partition("(")[0] in values
