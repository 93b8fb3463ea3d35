"""The options `--set` and `--only`, which change a suite from the command line."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from typing import Any, TypeVar

from bench.api.errors import UserError, unknown
from bench.api.untrusted import abbreviate
from bench.config.schema import AXES, Resources
from bench.config.trial import pieces

T = TypeVar("T")


def axis_of(word: str) -> str:
    """The plural name of an axis, for example `attacks` for `attack` or `attacks`. UserError for an unknown axis."""
    for plural, singular in AXES.items():
        if word in {plural, singular}:
            return plural
    raise unknown("axis", word, AXES)


def scalar(text: str) -> Any:
    """The value of a text from the command line: parsed as TOML if possible, else the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()
    except (ValueError, RecursionError):
        raise UserError(f"{abbreviate(text)} has a number that is too long, or brackets nested too deeply") from None


def apply_change(raw: dict[str, Any], change: str) -> None:
    """Apply one `--set` to a parsed suite: `AXIS=...`, `training.lr=...` or `resources.timeout=...`; `A,B` is a sweep.

    The values of an axis replace those of all blocks. UserError for an unknown axis or another form.
    """
    key, text = _split(change)
    table, dot, name = key.partition(".")
    blocks = [block for block in _of(raw, "blocks", list) if isinstance(block, dict)]
    if dot and table in {"training", "resources"}:
        for holder in [raw, *(blocks if table == "training" else [])]:
            if isinstance(inner := holder.setdefault(table, {}), dict):
                values = [scalar(part) for part in pieces(text)] if table == "training" else []
                inner[name] = values if len(values) > 1 else scalar(text)
        return
    if key not in {*AXES, *AXES.values()}:
        _no_field(key, text)
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


def _no_field(key: str, text: str) -> None:
    """UserError for a key of [training] or [resources] without the name of its table."""
    from bench.api.hashing import Recipe

    for table, names in (("training", Recipe.__dataclass_fields__), ("resources", Resources.model_fields)):
        if key in names:
            raise UserError(f"'{key}' is no axis but a key of [{table}]: write --set {table}.{key}={text}")


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
