"""Readers of strangers' files, 2,000 inputs each; `nox -s fuzz` looks for minutes with atheris."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.inputs import make
from tests.fuzz.targets import TARGETS, holds

pytestmark = pytest.mark.long

# The others: 2,000.
EXAMPLES = {
    "records": 1000,
    "kernels": 500,
    "images": 500,
    "weights": 200,
    "reports": 30,
    "bundles": 500,
    "best": 500,
    "parquet": 1000,
}


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_comes_is_accepted_or_named(name: str, tmp_path: Path) -> None:
    accepted = []

    @settings(max_examples=EXAMPLES.get(name, 2000), deadline=None, database=None, derandomize=True,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(st.integers(0, 2**64))
    def check(seed: int) -> None:
        accepted.append(holds(TARGETS[name], make(name, seed), tmp_path))

    check()
    assert any(accepted), "no input was valid: the fuzzer would prove nothing"
    assert not all(accepted)
