"""Reading untrusted files and texts: size limits, checked values, no control characters."""

from __future__ import annotations

import math
import re
from pathlib import Path
from stat import S_ISREG
from typing import Any

from pydantic_core import PydanticCustomError, from_json

ABBREVIATED_LENGTH = 200  # characters
INT_LIMIT = 2**63  # larger integers have no exact form in TOML and take quadratic time to print
# characters that move the cursor, change colours, reverse the direction of writing, or cannot be encoded
_UNSAFE = r"\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_CONTROL = re.compile(rf"[\x00-\x1f{_UNSAFE}]")
_IN_LINES = re.compile(rf"[\x00-\x08\x0b-\x1f{_UNSAFE}]")

_ADDRESS = re.compile(r" at 0x[0-9a-f]{6,}", re.IGNORECASE)


class UntrustedError(ValueError):
    """An untrusted file is malformed."""


def read_bytes(path: Path, limit: int, *, regular: bool = True) -> bytes:
    """The content of the file. UntrustedError if it has more than `limit` bytes, or is a pipe or device.

    regular: False allows pipes, for paths from the user's own command line.
    """
    if regular and not S_ISREG(path.stat().st_mode):
        raise UntrustedError("it is not a regular file")
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise UntrustedError(f"it has more than {limit} bytes")
    return content


def read_json(path: Path, limit: int) -> Any:
    """The JSON of the file. UntrustedError for invalid JSON, which includes NaN and very deep nesting."""
    return parse_json(read_bytes(path, limit))


def parse_json(content: bytes) -> Any:
    """The JSON of the content of a file; errors as in `read_json`."""
    try:
        found = from_json(content, allow_inf_nan=False)
    except ValueError as error:
        raise UntrustedError(str(error)) from None
    if why := invalid_reason(found):
        raise UntrustedError(why)
    return found


def own_path(value: str) -> str:
    """A path from a suite, made absolute because workers may run in another folder. For pydantic."""
    try:
        return str(Path(value).expanduser().absolute())
    except RuntimeError:
        raise PydanticCustomError("path", "expected a path; the home folder of this user is unknown") from None


def abbreviate(value: Any) -> str:
    """The repr of a value for a message, cut off if it is long."""
    text = repr(value)
    return text if len(text) <= ABBREVIATED_LENGTH else f"{text[:ABBREVIATED_LENGTH]}..."


def invalid_reason(value: Any, *, infinite: bool = False) -> str:
    """Why `value` is invalid: not text, bool, None, finite number, or a table or list of these. "" if it is valid.

    infinite: whether infinite numbers are valid.
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
    """The text with each control character replaced by a space."""
    return _CONTROL.sub(" ", text)


def strip_controls_multiline(text: str) -> str:
    """As `strip_controls`, but keeps line ends and tabs."""
    return _IN_LINES.sub(" ", text)


def without_addresses(text: str) -> str:
    """The text without addresses of memory, which differ in every run, as in `<_io.BytesIO object at 0x7f...>`."""
    return _ADDRESS.sub("", text)


def has_no_controls(text: str) -> bool:
    """Whether the text has no control characters, so that it can be shown unchanged."""
    return _CONTROL.search(text) is None
