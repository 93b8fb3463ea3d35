"""Values as a user writes them on the command line and as boards print them: lists, numbers, components."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from bench.api.errors import UserError
from bench.api.untrusted import abbreviate

_LABEL = re.compile(r"\s*([a-z][a-z0-9_]*)\s*\((.*)\)\s*", re.DOTALL)
_PYTHON = {"True": True, "False": False}  # labels print booleans as Python does


def pieces(text: str) -> list[str]:
    """The values of a user's list, for example `a,b(x=1, y=2)`. Commas inside brackets do not separate values."""
    found, start, depth = [], 0, 0
    for i, sign in enumerate([*text, ","]):
        if sign in "([{":
            depth += 1
        elif sign in ")]}":
            depth = max(depth - 1, 0)  # a closing bracket without an opening one is ignored
        elif sign == "," and (not depth or i == len(text)):
            found.append(text[start:i].strip())
            start = i + 1
    return [piece for piece in found if piece]


def scalar(text: str) -> Any:
    """The value of a text from the command line: parsed as TOML if possible, else the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()
    except (ValueError, RecursionError):
        raise UserError(f"{abbreviate(text)} has a number that is too long, or brackets nested too deeply") from None


def values(text: str) -> list[Any]:
    """The values of `a,b` or of `[a, b]`."""
    found = [scalar(piece) for piece in pieces(text)]
    return found[0] if len(found) == 1 and isinstance(found[0], list) else found


@lru_cache(maxsize=4096)  # filters compare each with every trial
def component(text: str) -> tuple[str, Mapping[str, Any]]:
    """The name and the parameters of a component as boards print it, for example `badnets(poison_rate=0.1)`.

    UserError: something between the brackets is not of the form parameter=value.
    """
    match = _LABEL.fullmatch(text)
    if match is None:
        return text, {}
    found = {}
    for piece in pieces(match[2]):
        name, equals, value = piece.partition("=")
        if not equals:
            raise UserError(f"'{text}': '{piece}' is not of the form parameter=value, for example {match[1]}(size=32)")
        found[name.strip()] = _PYTHON.get(value.strip(), scalar(value))
    return match[1], found


def as_table(entry: object) -> dict[str, Any]:
    """An entry of an axis as a table: `badnets`, `badnets(poison_rate=0.1)` or {name = "badnets", ...}."""
    if isinstance(entry, str):
        name, parameters = component(entry)
        return {"name": name, **parameters}
    return dict(entry) if isinstance(entry, Mapping) else {}
