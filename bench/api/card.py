"""The fidelity card of a component: its paper, and how closely the code follows the paper."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Card"]


@dataclass(frozen=True, kw_only=True)
class Card:
    """A literal `CARD = Card(...)` in the component's file, so that it can be read without importing the file.

    name: the method's name in tables of papers; "" if the title begins with it, or if it is the name of the file.
    follows: parts that are implemented as published, with sections or equations.
    deviates: parts that differ, with the reason; `guess:` marks choices that the paper leaves open.
    """

    title: str
    year: int
    url: str
    follows: str
    deviates: str = ""
    venue: str = ""
    name: str = ""
