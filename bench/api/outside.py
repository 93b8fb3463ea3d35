"""Files that strangers wrote: read up to a size, as values that every later step can print, hash and store."""

from __future__ import annotations

import math
from pathlib import Path
from stat import S_ISREG
from typing import Any

from pydantic_core import PydanticCustomError, from_json

SHOWN = 200  # characters
WHOLE = 2**63  # integers beyond it have no faithful form in TOML, and cost quadratic time to print


class OutsideError(ValueError):
    """What a file holds, or that it is none, in a few words."""


def read_bytes(path: Path, limit: int, *, regular: bool = True) -> bytes:
    """The whole file. OutsideError where it is longer than `limit`; a pipe or a device is never waited for.

    regular: False where the user's own command line may name a pipe.
    """
    if regular and not S_ISREG(path.stat().st_mode):
        raise OutsideError("it is no ordinary file")
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OutsideError(f"it has more than {limit} bytes")
    return content


def read_json(path: Path, limit: int) -> Any:
    """The file's JSON. ValueError (OutsideError is one) where it is none: NaN, nesting without end and the like."""
    return parse_json(read_bytes(path, limit))


def parse_json(content: bytes) -> Any:
    """The same of a file's content."""
    try:
        found = from_json(content, allow_inf_nan=False)
    except ValueError as error:
        raise OutsideError(str(error)) from None
    if why := odd(found):
        raise OutsideError(why)
    return found


def own_path(value: str) -> str:
    """A path that a suite names, absolute: workers may stand in another folder. For pydantic."""
    try:
        return str(Path(value).expanduser().absolute())
    except RuntimeError:
        raise PydanticCustomError("path", "expected a path; nobody of that name has a home here") from None


def shown(value: Any) -> str:
    """A value in a message: what a stranger wrote may be a million characters long."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def odd(value: Any, *, infinite: bool = False) -> str:
    """What is neither text, truth value, finite number nor a table or list of these; nothing where all is.

    infinite: whether an infinite number will do.
    """
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            todo += item.values()
        elif isinstance(item, list):
            todo += item
        elif isinstance(item, float):
            if math.isnan(item) or (math.isinf(item) and not infinite):
                return f"it holds the number {item}"
        elif isinstance(item, int):
            if not -WHOLE <= item < WHOLE:
                return "it holds an integer of more than 64 bits"
        elif item is not None and not isinstance(item, str):
            return f"it holds a {type(item).__name__}, {item}"
    return ""
