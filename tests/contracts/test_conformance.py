"""Every built-in component keeps what its kind promises; a new file is examined by being there."""

from __future__ import annotations

import pytest

from bench import conformance
from bench.api import registry
from bench.conformance import Check, ComponentUnderTest

pytestmark = pytest.mark.long

SMALL = {
    "backbones": ("convnet", "resnet18"),
    "datasets": ("digits", "shapes"),
}  # others need files: tests of their own
CASES = [
    pytest.param(kind, name, check, id=f"{kind}-{name}-{check.name}")
    for kind in registry.KINDS
    for name in SMALL.get(kind, sorted(registry.catalogue(kind)))
    if not registry.required(kind, name)  # what stands for a user's own files has tests of its own
    for check in conformance.checks(kind)
]


@pytest.mark.parametrize(("kind", "name", "check"), CASES)
def test_promises(kind: str, name: str, check: Check) -> None:
    outcome = check.on(ComponentUnderTest.of(kind, name, {}))
    if outcome.skipped:
        pytest.skip(outcome.detail)
    assert outcome.passed, outcome.detail
