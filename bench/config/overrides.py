"""The options `--set` and `--only`, which change a suite from the command line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from bench.api import registry
from bench.api.errors import UserError, unknown
from bench.config.doses import DOSES, with_own
from bench.config.schema import AXES, COMPONENT_AXES, DEFAULTS, Resources
from bench.config.words import as_table, pieces, scalar, values

TABLES = ("training", "resources")
T = TypeVar("T")


def axis_of(word: str) -> str:
    """The plural name of an axis, for example `attacks` for `attack` or `attacks`. UserError for an unknown axis."""
    for plural, singular in AXES.items():
        if word in {plural, singular}:
            return plural
    raise unknown("axis", word, AXES)


def apply_changes(raw: dict[str, Any], changes: Sequence[str]) -> None:
    """Apply all `--set` to a parsed suite, axes first. A list of values (`A,B` or `[A, B]`) is a sweep.

    The form of one is AXIS=..., training.FIELD=..., resources.KEY=..., COMPONENT.PARAMETER=... or, where two kinds have
    such a component, KIND.COMPONENT.PARAMETER=... The values of an axis replace those of all blocks. A parameter holds
    wherever the axes name the component. UserError: another form, an unknown name, or the same thing set twice.
    """
    found = [(change, *_split(change)) for change in changes]
    axes = [one for one in found if "." not in one[1]]
    seen: dict[tuple[str, ...], str] = {}
    for change, key, text in (*axes, *(one for one in found if "." in one[1])):
        if not all(words := tuple(word.strip() for word in key.split("."))):
            raise UserError(f"'{change}': expected AXIS=VALUE or NAME.KEY=VALUE, for example badnets.poison_rate=0.1")
        if len(words) == 1:
            place: tuple[str, ...] = (_axis(raw, key, text),)
        elif words[0] in TABLES and len(words) == 2:
            place = words
        else:
            place = _component(raw, words, text)
        thing = (*place[:-1], "dose") if place[-1] in DOSES else place
        if (first := seen.setdefault(thing, change)) is not change:
            raise UserError(
                f"--set {first} and --set {change} set the same thing",
                f"give one of them; several values are a sweep, as in --set {'.'.join(words)}=A,B",
            )
        _apply(raw, place, text)


def _apply(raw: dict[str, Any], place: tuple[str, ...], text: str) -> None:
    """place: an axis; a table and its key; or kind, component and parameter."""
    given = values(text)
    value = given[0] if len(given) == 1 else given
    blocks = [block for block in _of(raw, "blocks", list) if isinstance(block, dict)]
    if len(place) == 1:
        if isinstance(axes := raw.setdefault("axes", {}), dict):
            axes[place[0]] = "all" if text == "all" else given
        for block in blocks:
            _of(block, "axes", dict).pop(place[0], None)
    elif len(place) == 2:
        table, name = place
        for holder in [raw, *(blocks if table == "training" else [])]:
            if isinstance(inner := holder.setdefault(table, {}), dict):
                inner[name] = value if table == "training" else scalar(text)
    else:
        kind, name, parameter = place
        if _takes_default(raw, kind) and isinstance(axes := raw.setdefault("axes", {}), dict):
            axes[kind] = list(getattr(DEFAULTS, kind))
        for axes in _holders(raw, kind):
            if axes[kind] == "all":  # it names nothing that could get a value
                raw.setdefault("parameters", {}).setdefault(kind, {}).setdefault(name, {})[parameter] = value
            else:
                axes[kind] = [
                    with_own(entry, {parameter: value}) if (entry := as_table(one)).get("name") == name else one
                    for one in axes[kind]
                ]


def _holders(raw: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """The tables of axes, of the suite and of its blocks, that list components of a kind."""
    holders = [raw, *(block for block in _of(raw, "blocks", list) if isinstance(block, dict))]
    tables = [_of(holder, "axes", dict) for holder in holders]
    return [axes for axes in tables if isinstance(axes.get(kind), (list, str))]


def _takes_default(raw: dict[str, Any], kind: str) -> bool:
    """Whether the suite or one of its blocks names no component of this kind, so that the default holds."""
    blocks = [block for block in _of(raw, "blocks", list) if isinstance(block, dict)]
    return kind not in _of(raw, "axes", dict) and (
        not blocks or any(kind not in _of(block, "axes", dict) for block in blocks)
    )


def _named(raw: dict[str, Any], kind: str) -> list[str]:
    """The names of the components of a kind in the suite."""
    names: list[str] = []
    listed_ = [axes[kind] for axes in _holders(raw, kind)]
    for listed in [*listed_, *([getattr(DEFAULTS, kind)] if _takes_default(raw, kind) else [])]:
        names += registry.catalogue(kind) if listed == "all" else [str(as_table(one).get("name")) for one in listed]
    return list(dict.fromkeys(names))


def _component(raw: dict[str, Any], words: tuple[str, ...], text: str) -> tuple[str, str, str]:
    """Kind, component and parameter that `badnets.poison_rate` or `attacks.badnets.poison_rate` names."""
    *kinds, name, parameter = words
    known = {kind: _named(raw, kind) for kind in COMPONENT_AXES}
    if kinds:
        kind = axis_of(".".join(kinds))
        if kind not in known:
            raise unknown("kind of component", kinds[0], known)
        holding = [kind] if name in known[kind] else []
        known = {kind: known[kind]}
    else:
        holding = [kind for kind, names in known.items() if name in names]
    if len(holding) > 1:
        raise UserError(f"'{name}' is one of the {' and of the '.join(holding)}", f"write "
                        f"--set {holding[0]}.{name}.{parameter}={text}")  # fmt: skip
    if holding:
        return holding[0], name, parameter
    for kind in known:
        if name in registry.catalogue(kind):
            listed = ",".join([*known[kind], name])
            raise UserError(f"the suite has no {COMPONENT_AXES[kind]} '{name}'", f"add --set {kind}={listed}")
    raise unknown("component of the suite", name, {*TABLES, *(one for names in known.values() for one in names)})


def _axis(raw: dict[str, Any], key: str, text: str) -> str:
    """The axis of `bits=16`. UserError for a key that lacks the name before its dot: of a table, or of a component."""
    if key in {*AXES, *AXES.values()}:
        return axis_of(key)
    from bench.api.hashing import Recipe

    for table, names in (("training", Recipe.__dataclass_fields__), ("resources", Resources.model_fields)):
        if key in names:
            raise UserError(f"'{key}' is no axis but a key of [{table}]", f"write --set {table}.{key}={text}")
    for kind in COMPONENT_AXES:
        for name in _named(raw, kind):
            if name in registry.catalogue(kind) and key in registry.lookup(kind, name).__dataclass_fields__:
                raise UserError(f"'{key}' is no axis but a parameter", f"write --set {name}.{key}={text}")
    raise unknown("axis", key, AXES)


def parse_only(items: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The values of all `--only` by axis; those of one axis add up. UserError for an unknown axis or another form."""
    found: dict[str, tuple[str, ...]] = {}
    for item in items:
        axis, values = _split(item)
        name = AXES[axis_of(axis)]
        found[name] = (*found.get(name, ()), *pieces(values))
    return found


def _split(item: str) -> tuple[str, str]:
    left, equals, right = item.partition("=")
    if not equals or not right:
        raise UserError(f"'{item}': expected axis=a,b, for example bits=16,32")
    return left.strip(), right.strip()


def _of(table: dict[str, Any], key: str, kind: type[T]) -> T:
    """A table's value if it has the right type, else an empty one: validation reports the wrong type later."""
    found = table.get(key)
    return found if isinstance(found, kind) else kind()
