"""The parameters that say how much an attack poisons. An attack takes one of them (attacks/helpers/poisoning.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DOSES = frozenset({"poison_rate", "poisons", "target_share"})


def with_own(usual: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The usual parameters, replaced by a component's own ones; a dose of its own replaces a usual dose."""
    left_out = replaced(usual, own)
    return {**{key: value for key, value in usual.items() if key not in left_out}, **own}


def replaced(usual: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    """The usual doses that another dose among a component's own parameters replaces."""
    given = DOSES & own.keys()
    return [key for key in usual if key in DOSES - given] if given else []
