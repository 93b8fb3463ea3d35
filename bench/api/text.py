"""Text from outside (names in suites, stores, archives, plugins) on its way to a terminal or a page."""

from __future__ import annotations

import re

# what moves the cursor, colours what follows, reverses the direction of writing, or cannot be encoded
_UNSAFE = r"\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_CONTROL = re.compile(rf"[\x00-\x1f{_UNSAFE}]")
_IN_LINES = re.compile(rf"[\x00-\x08\x0b-\x1f{_UNSAFE}]")


def clean(text: str) -> str:
    """One line without control characters, each of which becomes a space."""
    return _CONTROL.sub(" ", text)


def clean_lines(text: str) -> str:
    """The same for text of several lines: line ends and tabs stay."""
    return _IN_LINES.sub(" ", text)


def is_clean(text: str) -> bool:
    """Whether a name can be shown as it is."""
    return _CONTROL.search(text) is None
