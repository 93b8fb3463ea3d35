"""A trigger reads no parameter that its attack lists in not_in_trigger."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.api import registry
from bench.api.errors import UserError
from bench.engine.store import Store
from bench.graph.plan import Plan
from tests.bench.conftest import TINY, count, finish, plan_of

SECRETIVE = '''
"""Brightens images."""
import torch
from bench.api.attack import *
from bench.api.types import to_unit

@attack
class Secretive(PoisoningAttack):
    not_in_trigger = frozenset({"alpha"})
    alpha: float = 0.1
    size: int = 2

    def threat(self): return Threat.TRAIN_SET | Threat.LABELS
    def strength(self): return 0.5
    def apply_trigger(self, images, target, trigger): return (images + self.strength()).clamp(0, 1)
    def poison(self, view, trigger, rng):
        mask = torch.arange(len(view.train)) < 5
        images = self.apply_trigger(to_unit(view.train.images[mask]), view.target, trigger)
        return Poisoned(view.train.replace(torch.nonzero(mask).flatten(), images=images), mask)
'''


@pytest.fixture
def planned_secretive(tmp_path: Path) -> Callable[..., Plan]:
    """A plan of the attack above with alpha = 0.9 and 0.8, after some of its text is exchanged."""

    def make(*exchanged: str) -> Plan:
        plugin = tmp_path / "secretive.py"
        plugin.write_text(SECRETIVE.lstrip().replace(*exchanged))
        registry.load_plugin(plugin)
        text = TINY.replace('"badnets"', '{ name = "secretive", alpha = [0.9, 0.8] }')
        return plan_of(tmp_path / "secretive.toml", text)

    return make


@pytest.mark.parametrize(
    ("kind", "text", "broken"),
    [
        ("implant", "def strength(self): return 0.5", "def strength(self): return self.alpha"),
        ("implant", "(images + self.strength())", "(images + self.alpha)"),
        (
            "make_trigger",
            "def strength",
            "def make_trigger(self, view, rng): return {'a': torch.tensor(self.alpha)}\n    def strength",
        ),
    ],
)
def test_a_trigger_that_reads_an_undeclared_parameter_is_a_failure(
    planned_secretive, tmp_path: Path, kind: str, text: str, broken: str
) -> None:
    """The report of issue 16: such a stage ran with the default 0.1 where the suite says 0.9."""
    made = planned_secretive(text, broken)
    failures = finish(made, Store(tmp_path / "store", create=True)).failures
    own = [record for record in failures if record.cause is None]
    assert {made.stages[record.key].kind for record in own} >= {kind}
    assert all({"'secretive'", "'alpha'", "not_in_trigger:"} <= set(record.reason.split()) for record in own)


@pytest.mark.parametrize(
    "read",
    [
        "vars(self).get('alpha', 0.1)",
        "getattr(self, 'alpha', 0.1)",
        "dataclasses.asdict(self).get('alpha', 0.1)",
        "dataclasses.replace(self, size=3).alpha",
        "type(self)(size=3).alpha",
        "copy.deepcopy(self).alpha",
    ],
)
def test_no_way_of_reading_such_a_parameter_gives_its_default(planned_secretive, tmp_path: Path, read: str) -> None:
    made = planned_secretive("return 0.5", f"import copy, dataclasses; return 1.0 * {read}")
    failures = finish(made, Store(tmp_path / "store", create=True)).failures
    assert {made.stages[record.key].kind for record in failures if record.cause is None} >= {"implant"}


@pytest.mark.parametrize("value", ["2 * self.alpha", "lambda: self.alpha", "torch.full((4001,), self.alpha)", "[self]"])
def test_state_that_such_a_parameter_may_have_shaped_is_refused(planned_secretive, value: str) -> None:
    kept = f"def __post_init__(self): object.__setattr__(self, 'kept', {value})"
    with pytest.raises(UserError, match=r"'secretive'.*'kept'.*\(alpha\)"):
        planned_secretive("def strength(self): return 0.5", f"{kept}\n    def strength(self): return 0.5")


def test_an_honest_sweep_shares_its_trigger(planned_secretive, tmp_path: Path) -> None:
    made = planned_secretive("strength(self): return 0.5", "strength(self): return self.size / 4")
    assert count(made)["make_trigger"] == 1
    assert count(made)["implant"] == 2
    assert not finish(made, Store(tmp_path / "store", create=True)).failures
