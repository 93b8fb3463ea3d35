"""The conformance kit: checks of components on a small data set in memory. It needs no files and no pytest.

A package with an entry point for a component tests it like this:

from bench.conformance import conformance
test_mine = conformance("attacks", "mine")
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

from bench.conformance.kit import Check, ComponentUnderTest, Outcome

__all__ = ["Check", "ComponentUnderTest", "Outcome", "checks", "conformance", "examine"]


def checks(kind: str) -> Sequence[Check]:
    """The checks of a kind of component."""
    found: Sequence[Check] = import_module(f"bench.conformance.{kind}").CHECKS
    return found


def examine(kind: str, name: str, params: Mapping[str, Any] | None = None) -> Iterator[Outcome]:
    """Run all checks of a component, one by one. Exceptions become outcomes."""
    subject = ComponentUnderTest.of(kind, name, params or {})
    for check in checks(kind):
        yield check.on(subject)


def conformance(kind: str, name: str, params: Mapping[str, Any] | None = None) -> Callable[[Check], None]:
    """A pytest test with one case per check. Assign it to a name that begins with `test_`."""
    import pytest

    @pytest.mark.parametrize("check", checks(kind), ids=lambda check: check.name)
    def test(check: Check) -> None:
        outcome = check.on(ComponentUnderTest.of(kind, name, params or {}))
        if outcome.skipped:
            pytest.skip(outcome.detail)
        assert outcome.passed, f"{outcome.detail}. {check.fix}"

    return test
