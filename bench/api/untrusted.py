"""Files and texts from untrusted sources: size limits, checked values, and text without control characters."""

from __future__ import annotations

import math
import re
from pathlib import Path
from stat import S_ISREG
from typing import Any

from pydantic_core import PydanticCustomError, from_json

ABBREVIATED_LENGTH = 200  # characters
INT_LIMIT = 2**63  # integers beyond it have no faithful form in TOML, and cost quadratic time to print
# what moves the cursor, colours what follows, reverses the direction of writing, or cannot be encoded
_UNSAFE = r"\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_CONTROL = re.compile(rf"[\x00-\x1f{_UNSAFE}]")
_IN_LINES = re.compile(rf"[\x00-\x08\x0b-\x1f{_UNSAFE}]")


class UntrustedError(ValueError):
    """Raised when an untrusted file is malformed; the message is short."""


def read_bytes(path: Path, limit: int, *, regular: bool = True) -> bytes:
    """The whole file. UntrustedError where it is longer than `limit`; a pipe or a device is never waited for.

    regular: False where the user's own command line may name a pipe.
    """
    if regular and not S_ISREG(path.stat().st_mode):
        raise UntrustedError("it is no ordinary file")
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise UntrustedError(f"it has more than {limit} bytes")
    return content


def read_json(path: Path, limit: int) -> Any:
    """The file's JSON. ValueError (UntrustedError is one) where it is none: NaN, nesting without end and the like."""
    return parse_json(read_bytes(path, limit))


def parse_json(content: bytes) -> Any:
    """The same of a file's content."""
    try:
        found = from_json(content, allow_inf_nan=False)
    except ValueError as error:
        raise UntrustedError(str(error)) from None
    if why := invalid_reason(found):
        raise UntrustedError(why)
    return found


def own_path(value: str) -> str:
    """A path that a suite names, absolute: workers may stand in another folder. For pydantic."""
    try:
        return str(Path(value).expanduser().absolute())
    except RuntimeError:
        raise PydanticCustomError("path", "expected a path; nobody of that name has a home here") from None


def abbreviate(value: Any) -> str:
    """A value in a message: what a stranger wrote may be a million characters long."""
    text = repr(value)
    return text if len(text) <= ABBREVIATED_LENGTH else f"{text[:ABBREVIATED_LENGTH]}..."


def invalid_reason(value: Any, *, infinite: bool = False) -> str:
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
            if not -INT_LIMIT <= item < INT_LIMIT:
                return "it holds an integer of more than 64 bits"
        elif item is not None and not isinstance(item, str):
            return f"it holds a {type(item).__name__}, {item}"
    return ""


def strip_controls(text: str) -> str:
    """One line without control characters, each of which becomes a space."""
    return _CONTROL.sub(" ", text)


def strip_controls_multiline(text: str) -> str:
    """The same for text of several lines: line ends and tabs stay."""
    return _IN_LINES.sub(" ", text)


def has_no_controls(text: str) -> bool:
    """Whether a name can be shown as it is."""
    return _CONTROL.search(text) is None
