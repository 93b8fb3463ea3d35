"""Reads suites, TOML files that describe trials."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.api import registry
from bench.api.errors import NO_BOOLEAN, UserError, choice, unknown
from bench.api.own_files import Places
from bench.api.untrusted import boolean_as_number, invalid_reason
from bench.config.expand import Skipped, replaced_doses, size_of, trials_of
from bench.config.overrides import apply_changes, parse_only
from bench.config.reported import ReportedNumber, reported_numbers
from bench.config.schema import AXES, COMPONENT_AXES, DEFAULTS, Axes, Block, Resources, SuiteFile, explain
from bench.config.trial import Trial

MAX_TRIALS = 10**6  # of a suite before its filters, since more would fill the memory


@dataclass(frozen=True)
class Suite:
    """A suite that has been read.

    only: the values that `--only` keeps, by axis. text: the content of the file. notes: what of the suite's parameters
    does not hold. folder: that of the file; None for a shipped suite.
    """

    name: str
    description: str
    resources: Resources
    blocks: tuple[Block, ...]
    reported: tuple[ReportedNumber, ...] = ()
    only: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    text: str = ""
    notes: tuple[str, ...] = ()
    folder: Path | None = None

    def trials(self, data: Path | None) -> Iterator[Trial | Skipped]:
        """All trials, each once, in the order of the file. Trials whose data are missing come as Skipped.

        data: the folder of data sets. UserError if no trial is left.
        """
        seen: set[Hashable] = set()
        found = False
        places = Places(self.folder, data)
        unmatched = {(axis, value): set[str]() for axis, values in self.only.items() for value in values}
        for given in itertools.chain.from_iterable(trials_of(block, places) for block in self.blocks):
            trial = given.trial if isinstance(given, Skipped) else given
            if not found:
                for axis, value in list(unmatched):
                    unmatched[axis, value].add(str(trial.axes()[axis]).partition("(")[0])
                    if trial.has(axis, value):
                        del unmatched[axis, value]
            if not all(any(trial.has(axis, value) for value in values) for axis, values in self.only.items()):
                continue
            found = True
            if trial.identity not in seen:
                seen.add(trial.identity)
                yield given
        if not found:
            for (axis, value), known in unmatched.items():
                raise UserError(f"no {axis} '{value}' in suite '{self.name}'", choice(value, sorted(known)))
            wanted = " ".join(f"{axis}={','.join(values)}" for axis, values in self.only.items())
            raise UserError(f"suite '{self.name}' has no trial for --only {wanted or '(nothing)'}", "see `bench plan`")


def names() -> dict[str, str]:
    """The suites that ship with HashDoor: name to description."""
    found = {}
    for file in sorted(resources.files("suites").iterdir(), key=lambda item: item.name):
        if file.name.endswith(".toml"):
            found[file.name.removesuffix(".toml")] = str(tomllib.loads(file.read_text("utf-8")).get("description", ""))
    return found


def load(name: str, *, changes: Sequence[str] = (), only: Sequence[str] = ()) -> Suite:
    """A suite, by its name or the path of a TOML file.

    changes, only: the texts of `--set` and `--only`. UserError: the file cannot be read or is invalid.
    """
    where, text = _read(name)
    raw = _parsed(where, text)
    apply_changes(raw, changes)
    if why := invalid_reason({**raw, "resources": None}) or invalid_reason(raw.get("resources"), infinite=True):
        raise UserError(f"{where}: {why}: expected texts, booleans and finite numbers of 64 bits")
    try:
        parsed = SuiteFile.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"{where}: {explain(error)}") from None
    if place := boolean_as_number(raw, parsed):
        raise UserError(f"{where}: {place} {NO_BOOLEAN}")
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
    if (count := sum(map(size_of, blocks))) > MAX_TRIALS:
        raise UserError(f"{where} has {count:,} trials before its filters, more than {MAX_TRIALS:,}: shorten some axes")
    for block in blocks:
        _check_filters(where, [*block.include, *block.exclude])
    _check_parameters(where, parsed)
    return Suite(
        name=parsed.name or Path(name).stem,
        description=parsed.description,
        resources=parsed.resources,
        blocks=blocks,
        reported=reported_numbers(where, parsed.reported, list(AXES.values())),
        only=parse_only(only),
        text=text,
        notes=tuple(dict.fromkeys(note for block in blocks for note in replaced_doses(block))),
        folder=Path(name).parent if is_file(name) else None,
    )


def text_of(name: str) -> str:
    """The text of a suite, by its name or the path of a TOML file."""
    return _read(name)[1]


def is_file(name: str) -> bool:
    """Whether a user's word is the path of a suite file, and not the name of a suite."""
    return name.endswith(".toml") or "/" in name


def name_and_text(path: str) -> tuple[str, str]:
    """The name that runs of a suite file have in the store, and the text of the file. Its axes are not checked.

    UserError: the file cannot be read.
    """
    where, text = _read(path)
    given = _parsed(where, text).get("name")
    return (given if isinstance(given, str) else "") or Path(path).stem, text


def _parsed(where: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise UserError(f"{where} cannot be read: its tables or lists are nested too deeply") from None
    except ValueError as error:  # a TOMLDecodeError, or a number with thousands of digits
        raise UserError(f"{where} is not TOML: {error}") from None


def _read(name: str) -> tuple[str, str]:
    if is_file(name):
        path = Path(name)
        try:
            return f"suite file '{path}'", path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise UserError(f"there is no suite file '{path}'", "give the path of a TOML file") from None
        except (OSError, ValueError) as error:
            raise UserError(f"suite file '{path}' cannot be read: {error}") from None
    shipped = names()
    if name not in shipped:
        raise unknown("suite", name, shipped, "or give the path of a .toml file")
    return f"suite '{name}'", (resources.files("suites") / f"{name}.toml").read_text("utf-8")


def _first(own: Any, base: Any, axis: str) -> Any:
    chosen = own if own is not None else base
    return chosen if chosen is not None else getattr(DEFAULTS, axis)


def _check_filters(where: str, filters: list[dict[str, Any]]) -> None:
    for item in filters:
        for axis in item:
            if axis not in AXES.values():
                raise UserError(f"{where}: a filter names the axis '{axis}'", choice(axis, AXES.values()))


def _check_parameters(where: str, parsed: SuiteFile) -> None:
    for kind, components in parsed.parameters.items():
        if kind not in COMPONENT_AXES:
            raise UserError(f"{where}: [parameters.{kind}] is no kind of component", choice(kind, COMPONENT_AXES))
        for name in components:
            registry.find(kind, name)
    if any(block.parameters for block in parsed.blocks):
        raise UserError(f"{where}: [parameters] belongs to the whole suite", "write it outside the blocks")
