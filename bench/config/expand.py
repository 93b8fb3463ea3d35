"""Expands a block of a suite into trials: the cross product of its axes and sweeps, reduced by its filters."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.api import registry
from bench.api.errors import DataMissingError, UserError, unknown
from bench.api.own_files import SIZES, OwnImages, Places, located
from bench.api.untrusted import look_alikes, spelled
from bench.config.doses import DOSES, replaced, with_own
from bench.config.schema import AXES, COMPONENT_AXES, Block, Named
from bench.config.trial import MOST_BITS, Spec, Surrogate, Trial
from bench.config.words import as_table

if TYPE_CHECKING:
    from bench.api.hashing import Dataset


@dataclass(frozen=True)
class Skipped:
    """A trial that cannot run on this machine, with the reason."""

    trial: Trial
    reason: str


def trials_of(block: Block, places: Places) -> Iterator[Trial | Skipped]:
    """The trials of a block. UserError: a component, parameter or target is invalid, or a data set has too few images.

    places: where the files of components are.
    """
    axes, data = block.axes, places.data
    lost: dict[Spec, str] = {}
    specs = {
        kind: _specs(kind, getattr(axes, kind), block.parameters.get(kind), places, lost) for kind in COMPONENT_AXES
    }
    seeds, targets = list(dict.fromkeys(axes.seeds or [])), axes.targets or []
    others = {seed: seeds[(i + 1) % len(seeds)] if len(seeds) > 1 else seed + 1 for i, seed in enumerate(seeds)}
    surrogates = [_surrogate(text) for text in axes.surrogate or []]
    recipes = _combinations(block.training)
    for named in specs["datasets"]:
        dataset, missing = named, lost.get(named, "")
        classes: tuple[str, ...] = ()
        try:
            if not missing:
                classes, dataset = _classes(named, data), _counted(named, data)
        except DataMissingError as error:
            missing = str(error)
        resolved = [_target(target, classes, dataset.name) if not missing else (str(target),) for target in targets]
        for training, seed, backbone, method, bits, target, attack, defense, surrogate, augment in itertools.product(
            recipes, seeds, specs["backbones"], specs["methods"], axes.bits or [], resolved, specs["attacks"],
            specs["defenses"], surrogates, axes.augment or [],
        ):  # fmt: skip
            trial = Trial(
                dataset=dataset, backbone=backbone, method=method, bits=bits, attack=attack, defense=defense,
                target=target, seed=seed, surrogate=surrogate,
                surrogate_seed=seed if surrogate.same_seed else others[seed], augment=augment,
                training=training,
            )  # fmt: skip
            kept = not block.include or any(_filter(trial, item) for item in block.include)
            if kept and not any(_filter(trial, item) for item in block.exclude):
                reason = missing or next((lost[part] for part in trial.components.values() if part in lost), "")
                yield Skipped(trial, reason) if reason else trial


def _surrogate(text: str) -> Surrogate:
    """A value of the axis `surrogate`. UserError: the component is unknown or needs a parameter, or too many bits."""
    found = Surrogate.parse(text)
    for kind, name in (("backbones", found.backbone), ("methods", found.method)):
        if name is not None:
            registry.create(kind, name, {})
    if (found.bits or 1) > MOST_BITS:
        raise UserError(f"surrogate {text}: must be at most {MOST_BITS} bits")
    return found


def size_of(block: Block) -> int:
    """The number of trials of a block before its filters, counted without making them."""
    count = _sweep(block.training)
    for axis in AXES:
        values = getattr(block.axes, axis)
        if values == "all":
            count *= len(registry.catalogue(axis))
        elif axis in COMPONENT_AXES:
            count *= sum(_sweep(as_table(value)) for value in values)
        else:
            count *= len(values)
    return count


def _sweep(table: Mapping[str, Any]) -> int:
    """The number of combinations of the lists among the values of a table."""
    return math.prod(len(item) for item in table.values() if isinstance(item, list))


def replaced_doses(block: Block) -> Iterator[str]:
    """A sentence for each component of a block whose own dose replaces that of the suite's [parameters]."""
    for kind, usual in block.parameters.items():
        values = getattr(block.axes, kind)
        for table in [] if values == "all" else map(as_table, values):
            own = usual.get(str(table.get("name")), {})
            if dropped := replaced(own, table):
                given = ", ".join(f"{key}={table[key]}" for key in sorted(DOSES & table.keys()))
                suites = ", ".join(f"{key}={own[key]}" for key in dropped)
                yield f"{table['name']}: {given} replaces the suite's {suites}"


def _combinations(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Tables with one value per key: the cross product of the values that are lists. UserError: a list is empty."""
    if empty := [key for key, value in table.items() if value == []]:
        raise UserError(f"{empty[0]} = [] has no value", f"give at least one, or leave {empty[0]} out")
    values = [value if isinstance(value, list) else [value] for value in table.values()]
    return [dict(zip(table, chosen, strict=True)) for chosen in itertools.product(*values)]


def _specs(
    kind: str,
    values: list[Named] | Literal["all"],
    usual: Mapping[str, Mapping[str, Any]] | None,
    places: Places,
    lost: dict[Spec, str],
) -> list[Spec]:
    """The components of an axis; a parameter with a list of values is a sweep.

    usual: the suite's [parameters] of this kind, by component. lost: gets the components whose files are in none of the
    places, with the reason.
    """
    entries: list[Named] = list(registry.catalogue(kind)) if values == "all" else list(values)
    if values == "all" and kind in {"attacks", "defenses"}:
        entries.sort(key=lambda entry: entry != "none")
    found = []
    for entry in entries:
        table = as_table(entry)
        own = (usual or {}).get(str(table.get("name")), {})
        if values == "all" and not own and registry.required(kind, str(entry)):
            if kind == "datasets":
                found.append(Spec(str(entry)))  # the plan lists its trials as left out, with the reason
            continue  # "all" leaves out components that need a parameter from the user
        table = with_own(own, table)
        if "name" not in table:
            raise UserError(f"{kind}: {table!r} has no 'name': expected {{ name = \"...\", parameter = value }}")
        name = str(table.pop("name"))
        for combination in _combinations(table):
            instance = registry.create(kind, name, combination)
            found_files, reason = located(instance, registry.current(kind, name, combination), places)
            instance = registry.create(kind, name, found_files)
            params = registry.parameters(instance)
            found.append(Spec(name, params, given_of(type(instance), params)))
            if reason:
                lost[found[-1]] = f"{name}: {reason}"
    return found


def given_of(cls: type[Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a component that differ from its defaults."""
    default = {item.name: item.default for item in fields(cls)}
    return {key: value for key, value in params.items() if value is not None and default.get(key, ...) != value}


def _target(value: int | str | list[int | str], classes: tuple[str, ...], dataset: str) -> tuple[str, ...]:
    found = []
    for part in value if isinstance(value, list) else [value]:
        if isinstance(part, str):
            if part not in classes:
                raise unknown(f"class of {dataset}:", part, classes)
            found.append(part)
        elif 0 <= part < len(classes):
            found.append(classes[part])
        else:
            raise UserError(
                f"target {part}: {dataset} has {len(classes)} classes, so a target is 0 to {len(classes) - 1}"
            )
    if not found:
        raise UserError("a target is empty", "give a class name, a class number, or a list of them")
    if len(set(found)) == len(classes):
        raise UserError(
            f"target {'+'.join(found)} is every class of {dataset}: queries of the target's classes carry no trigger,"
            " so none would be left to measure",
            "leave a class out",
        )
    return tuple(sorted(set(found), key=classes.index))


def _classes(dataset: Spec, data: Path | None) -> tuple[str, ...]:
    """The names of a data set's classes. DataMissingError if its files are not on this machine."""
    wanted = ", ".join(registry.required("datasets", dataset.name))
    if wanted and not dataset.params:
        raise DataMissingError(f"{dataset.name} is for your own data", f"add it to a suite and set {wanted}")
    component: Dataset = registry.create("datasets", dataset.name, dataset.params)
    component.files(data)
    classes = component.classes(data)
    for one, other in look_alikes(classes):
        raise UserError(f"{dataset.name}: the classes {spelled(one)} and {spelled(other)} look the same", "rename one")
    return classes


def _counted(dataset: Spec, data: Path | None) -> Spec:
    """A data set of the user's own images with a number for each size that the suite leaves open.

    UserError: there are too few images for the sizes.
    """
    if not dataset.params:
        return dataset
    component: Dataset = registry.create("datasets", dataset.name, dataset.params)
    if not isinstance(component, OwnImages):
        return dataset
    from bench.api.random import Rng  # imports torch, which takes a second

    labels, origin = component.labelled(data)
    sizes = component.sizes(labels, origin)
    counted = replace(dataset, params={**dataset.params, **sizes})
    component = registry.create("datasets", counted.name, counted.params)
    try:
        component.splits(labels, origin, Rng("split", dataset.name, component.protocol_version))
    except UserError as error:
        own = [key for key in SIZES if key in dataset.given]
        kept = [f'name="{dataset.name}"']
        kept += [f"{key}={json.dumps(value)}" for key, value in dataset.given.items() if key not in own]
        hint = f"without {' and '.join(own)}, shares are taken: --set 'datasets={{{','.join(kept)}}}'"
        raise UserError(f"{dataset.name}: {error}", hint if own else "add images") from None
    return counted


def _filter(trial: Trial, wanted: Mapping[str, Any]) -> bool:
    return all(
        any(trial.has(axis, str(one)) for one in (value if isinstance(value, list) else [value]))
        for axis, value in wanted.items()
    )
