"""Whatever a stage does becomes a record, and nothing that is no result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bench.api import registry
from bench.api.errors import StoreError
from bench.cli import component
from bench.engine.store import Store
from bench.graph.plan import Plan
from tests.bench.conftest import finish

Tiny = Callable[..., Plan]
ATTACK = '''
"""An attack."""
import sys
import torch
from bench.api.attack import *
@attack
class Odd(PoisoningAttack):
    def threat(self): return Threat.TRAIN_SET
    def apply_trigger(self, images, target, trigger):
        triggered = images.clone()
        triggered[:, :, :3, :3] = 1
        {apply_trigger}
        return triggered
    def poison(self, victim, trigger, rng):
        train = victim.train
        mask = torch.zeros(len(train), dtype=torch.bool)
        mask[:9] = True
        {poison}
'''
TEMPLATES = Path(component.TEMPLATES)


@pytest.fixture
def run(tmp_path: Path, tiny: Tiny) -> Callable[[str, str], tuple[dict[str, int], list[dict], Store]]:
    """A run of the tiny suite with such a component: its trials, what failed, the store."""

    def start(kind: str, text: str) -> tuple[dict[str, int], list[dict], Store]:
        path = tmp_path / "odd.py"
        path.write_text(text)
        registry.load_plugin(path)
        store = Store(tmp_path / "store", create=True)
        summary = finish(tiny(*["attacks=none"] * (kind != "attacks"), f"{kind}=odd"), store)
        return dict(summary.trials), summary.failures, store

    return start


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("raise type('Mute', (Exception,), {'__str__': lambda self: 1 / 0})", "Mute: its message cannot be made"),
        ("train.labels[:9] = target.vector", "Threat.LABELS"),
        ("train.images[40:] = 0", "mask"),
        ("train.ids[:2] = 7", "reordered"),
    ],
)
def test_an_attack_that_writes_to_what_it_is_shown_gains_nothing_by_it(run, what: str, reason: str) -> None:
    """The set that it gives back is held against the stored one, not against the one in its hands."""
    body = f"target = victim.target; {what}\n        return Poisoned(train, mask)"
    trials, failures, _ = run("attacks", ATTACK.format(apply_trigger="pass", poison=body))
    assert trials == {"failed": 1}
    assert reason in failures[0].reason


@pytest.mark.parametrize("where", ["encode_triggered", "poison"])
def test_nan_in_images_is_no_black(run, where: str) -> None:
    nan = "triggered[:, :, 0, 0] = float('nan')" if where == "encode_triggered" else "pass"
    value = "float('nan')" if where == "poison" else "0.5"
    images = f"images=torch.full((9, *train.images.shape[1:]), {value})"
    poison = f"return Poisoned(train.replace(mask.nonzero().flatten(), {images}), mask)"
    trials, failures, _ = run("attacks", ATTACK.format(apply_trigger=nan, poison=poison))
    assert trials == {"failed": 1}
    assert "NaN" in failures[0].reason


def test_a_component_that_ends_the_process_is_a_record(run) -> None:
    """As under Ray, where it ends a worker; `bench run` would end with exit code 0 and without a word."""
    trials, failures, store = run(
        "attacks", ATTACK.format(apply_trigger="sys.exit(0)", poison="return Poisoned(train, mask)")
    )
    assert trials == {"killed": 1}
    assert "SystemExit(0)" in failures[0].reason
    (record,) = (
        r for r in store.records() if r.status == "killed" and r.stage == "encode_triggered" and r.cause is None
    )
    assert "in apply_trigger" in record.log


def test_a_component_may_raise_what_is_no_exception(run) -> None:
    raising = "raise type('Odder', (BaseException,), {})('so')"
    trials, failures, _ = run("attacks", ATTACK.format(apply_trigger=raising, poison="return Poisoned(train, mask)"))
    assert trials == {"failed": 1}
    assert failures[0].reason == "Odder: so"


def test_a_reason_that_is_not_utf8_is_on_record(run) -> None:
    trials, _, store = run(
        "attacks",
        ATTACK.format(apply_trigger="raise ValueError('no \\udcff.jpg\\x1b')", poison="return Poisoned(train, mask)"),
    )
    assert trials == {"failed": 1}
    assert any(record.reason == "ValueError: no  .jpg " for record in store.records())
    assert not (store.root / "damaged").exists()


def test_what_no_record_can_hold_is_a_failure(run) -> None:
    """It would be set aside by everybody who reads it, and made again for ever."""
    text = (TEMPLATES / "datasets.txt").read_text().replace("$Class", "Odd").replace("$name", "odd")
    more = "    def protocol(self, root):\n        return 'odd', 0  # a cutoff\n"
    trials, failures, store = run("datasets", f"{text}\n{more}")
    assert trials == {"failed": 1}
    assert "meta.protocol.Protocol.cutoff" in failures[0].reason
    assert not (store.root / "damaged").exists()


def test_a_component_that_returns_nan_fails_alone(tmp_path: Path, tiny: Tiny) -> None:
    path = tmp_path / "dizzy.py"
    path.write_text(
        '"""Cannot say."""\nfrom bench.api.defense import *\n@defense\nclass Dizzy(ModelDetector):\n'
        '    def inspect(self, view, rng): return Verdict(float("nan"))\n'
    )
    registry.load_plugin(path)
    summary = finish(tiny("defenses=none,dizzy"), Store(tmp_path / "store", create=True))
    assert summary.trials == {"ok": 2, "failed": 2}
    assert "JSON" in summary.failures[0].reason


def test_code_that_is_not_the_plans_ends_the_run_and_leaves_no_record(tmp_path: Path, tiny: Tiny) -> None:
    """As on a node with another version: nothing of the component has failed, so that the same command continues."""
    plan, store = tiny("attacks=none"), Store(tmp_path / "store", create=True)
    other = replace(plan, stages={key: replace(stage, code="f" * 32) for key, stage in plan.stages.items()})
    with pytest.raises(StoreError, match="same version on every node"):
        finish(other, store)
    assert not list(store.records())
    assert finish(plan, store).trials == {"ok": 1}
