"""Reading untrusted files and texts: size limits, checked values, no control characters, no names in disguise."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from stat import S_ISREG
from typing import Any

from pydantic_core import PydanticCustomError, from_json

ABBREVIATED_LENGTH = 200  # characters
INT_LIMIT = 2**63  # larger integers have no exact form in TOML and take quadratic time to print
# these move the cursor, change colours, reverse the direction of writing, or cannot be encoded
_UNSAFE = r"\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_CONTROL = re.compile(rf"[\x00-\x1f{_UNSAFE}]")
_IN_LINES = re.compile(rf"[\x00-\x08\x0b-\x1f{_UNSAFE}]")
# characters without width: two names that differ in them alone print equally
_UNSEEN = (
    "\xad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200d\u2060-\u2065\u206a-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff"
    "\uffa0\ufff9-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
# Cyrillic, Greek and Armenian letters that most fonts draw as the Latin letter below them
_ALIKE = str.maketrans(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u0501\u051b\u051d\u04bb\u0475\u04cf\u03bf\u03bd\u0570\u0578\u057d\u0585"
    "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0423\u0425\u0406\u0408\u0405\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7",
    "aeopcyxijsdqwhvlovhnuoABEKMHOPCTYXIJSABEZHIKMNOPTYX",
)
_WIDE = "\uff21-\uff3a\uff41-\uff5a\U0001d400-\U0001d7ff"  # Latin letters in other shapes
_LETTERS = "".join(map(chr, _ALIKE)) + _WIDE
_WITHOUT_WIDTH = re.compile(f"[{_UNSEEN}]")
# inside a Latin word such a letter is a disguise, in a word of its own script it is not
_DISGUISED = re.compile(rf"[{_UNSEEN}]|(?<=[A-Za-z])[{_LETTERS}]|[{_LETTERS}](?=[A-Za-z])")

_ADDRESS = re.compile(r" at 0x[0-9a-f]{6,}", re.IGNORECASE)


class UntrustedError(ValueError):
    """An untrusted file is malformed."""


def read_bytes(path: Path, limit: int, *, regular: bool = True) -> bytes:
    """The content of the file. UntrustedError if it has more than `limit` bytes, or is a pipe or device.

    regular: False allows pipes, for paths from the user's own command line.
    """
    if regular and not S_ISREG(path.stat().st_mode):
        raise UntrustedError("it is no ordinary file")
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
    """The reason why a value is invalid; "" if it is valid.

    A value is valid if it is a text, a bool, None, a finite number of 64 bits, or a table or list of these. infinite:
    whether infinite numbers are valid too.
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


def boolean_as_number(given: Any, made: Any, place: str = "") -> str:
    """The place of a boolean in a user's values that validation has turned into a number; "" if there is none.

    made: the validated values: a class with the names as attributes, a table, a list, or a value.
    """
    if isinstance(given, bool):
        return place if isinstance(made, (int, float)) and not isinstance(made, bool) else ""
    pairs: Iterable[tuple[object, Any, Any]] = ()
    if isinstance(given, Mapping):
        inner = made if isinstance(made, Mapping) else vars(made) if hasattr(made, "__dict__") else {}
        pairs = ((key, value, inner.get(key)) for key, value in given.items())
    elif isinstance(given, (list, tuple)) and isinstance(made, (list, tuple)):
        pairs = ((number, *both) for number, both in enumerate(zip(given, made, strict=False)))
    found = (boolean_as_number(value, other, f"{place}.{key}" if place else str(key)) for key, value, other in pairs)
    return next(filter(None, found), "")


def strip_controls(text: str) -> str:
    """The text with each control character replaced by a space.

    Characters without width, and foreign letters that look like Latin ones inside a Latin word, are shown by their
    numbers, for example `<U+200B>`: different names must not look equal.
    """
    return _shown(_CONTROL.sub(" ", text))


def strip_controls_multiline(text: str) -> str:
    """As `strip_controls`, but keeps line ends and tabs."""
    return _shown(_IN_LINES.sub(" ", text))


def _shown(text: str) -> str:
    return text if text.isascii() else _DISGUISED.sub(lambda match: f"<U+{ord(match[0]):04X}>", text)


def look_alikes(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of different names that most fonts print equally."""
    found, first = [], dict[str, str]()
    for name in dict.fromkeys(names):
        letters = unicodedata.normalize("NFKC", _WITHOUT_WIDTH.sub("", name)).translate(_ALIKE)
        other = first.setdefault(" ".join(letters.split()), name)
        if other != name:
            found.append((other, name))
    return found


def spelled(name: str) -> str:
    """A name with every character beyond ASCII by its number, to tell it from a name that looks the same."""
    return f"'{name.encode('ascii', 'backslashreplace').decode()}'"


def without_addresses(text: str) -> str:
    """The text without addresses of memory, which differ in every run, as in `<_io.BytesIO object at 0x7f...>`."""
    return _ADDRESS.sub("", text)


def has_no_controls(text: str) -> bool:
    """Whether the text has no control characters, so that it can be shown unchanged."""
    return _CONTROL.search(text) is None
