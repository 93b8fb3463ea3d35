"""A store whose artifacts are whole by their checksums, which the same stranger wrote, and fit nothing."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench.api.errors import UserError
from bench.config import suite as suites
from bench.engine.recompute import Verifier
from bench.engine.store import Store
from bench.graph import planner as planning
from bench.graph.plan import Plan
from reports import frame, gallery, html_report
from tests.bench.conftest import TINY, finish
from tests.stores import write_run

pytestmark = pytest.mark.slow

CHANGES = {
    "shorter": lambda value: value[:-1],
    "empty": lambda value: value[:0],
    "flat": lambda value: value.flatten(),
    "deeper": lambda value: value[None],
    "floats": lambda value: value.to(torch.float16),
    "far": lambda value: value.clone().fill_(1) if value.dtype == torch.bool else value + 2**30,
    "below": lambda value: ~value if value.dtype == torch.bool else -value - 5,
}
ROLES = ("load", "split", "measured.benign", "measured.triggered", "implant")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path]:
    root = tmp_path_factory.mktemp("artifacts")
    (root / "tiny.toml").write_text(TINY)
    plan = planning.plan([suites.load(str(root / "tiny.toml"))], data=None, device="cpu")
    store = Store(root / "store", create=True)
    finish(plan, store)
    write_run(store, plan)
    return plan, store.root


def change(value: Tensor, how: str) -> Tensor:
    if value.dtype == torch.uint8 and how == "far":
        return 255 - value
    return CHANGES[how](value).contiguous()


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("how", CHANGES)
def test_nothing_crashes_on_tensors_that_do_not_fit(
    finished: tuple[Plan, Path], tmp_path: Path, role: str, how: str
) -> None:
    plan, root = finished
    shutil.copytree(root, tmp_path / "store")
    store = Store(tmp_path / "store")
    key = next(trial.key for trial in plan.trials if trial.trial.attack.name == "badnets")
    record = store.record(key)
    assert record is not None
    parent = store.record(record.parents[role])
    assert parent is not None
    tensors = {name: change(value, how) if value.dim() else value for name, value in store.tensors(parent.key).items()}
    artifact = store.write_artifact(parent.key, tensors, {})
    store.write_record(parent.model_copy(update={"artifact": artifact}))
    record.inputs[role] = artifact.sha256
    store.write_record(record)
    problems = Verifier(store).problems(record)
    assert problems or (role, how) == ("split", "flat") or role in {"load", "implant"}, (
        "a row of numbers is flat already"
    )
    with suppress(UserError):
        gallery.draw(store, tmp_path / "g.png")
    if how == "flat":  # the page takes seconds
        with suppress(UserError):
            html_report.draw(store, tmp_path / "r.html", frame.read(store))
