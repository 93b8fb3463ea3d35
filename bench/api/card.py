"""The fidelity card of a component: which paper it is, and how far the code follows it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Card"]


@dataclass(frozen=True, kw_only=True)
class Card:
    """Written as a literal `CARD = Card(...)` in the component's file, so that it is read without importing the file.

    follows: what is implemented as published, with sections or equations.
    deviates: what is not, and why; `guess:` marks what the paper leaves open.
    """

    title: str
    year: int
    url: str
    follows: str
    deviates: str = ""
    venue: str = ""
