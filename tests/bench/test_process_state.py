"""Results of a stage do not depend on what an earlier stage of the process has left behind."""

from __future__ import annotations

import os
import signal
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info
from torch.nn.modules.module import register_module_forward_hook

from bench.api import registry
from bench.engine.process_state import fixed_state, set_torch
from bench.engine.provenance import arithmetic
from bench.engine.store import Store
from tests.bench.conftest import finish

PRODUCTS = getattr(torch.backends.mkldnn, "matmul", Namespace())  # since torch 2.9
LEFT = {
    "dtype": lambda: torch.set_default_dtype(torch.float64),
    "device": lambda: torch.set_default_device("meta"),
    "gradients": lambda: torch.set_grad_enabled(mode=False),
    "inference": lambda: torch.inference_mode().__enter__(),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16).__enter__(),
    "oneDNN": lambda: torch.backends.mkldnn.set_flags(False),
    "products": lambda: torch.set_float32_matmul_precision("medium"),
    "products of oneDNN": lambda: setattr(
        getattr(torch.backends.mkldnn, "matmul", Namespace()), "fp32_precision", "bf16"
    ),
    "denormals": lambda: torch.set_flush_denormal(True),
    "threads": lambda: torch.set_num_threads(2),
    "random order of sums": lambda: torch.use_deterministic_algorithms(mode=False),
    "numpy": lambda: np.seterr(all="raise"),
    "folder": lambda: os.chdir("/"),
    "streams": lambda: setattr(sys, "stdout", None),
    "environment": lambda: os.environ.update(LEFT_BEHIND="1", HOME="/nowhere"),
    "signals": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    "hooks": lambda: register_module_forward_hook(lambda module, inputs, output: output * 2),
    "recursion": lambda: sys.setrecursionlimit(1234),
}


def numbers() -> tuple[object, ...]:
    """What a stage may see of torch and numpy, the last bits of some computations among it."""
    tiny = torch.full((3,), 1e-30) * torch.full((3,), 1e-12)
    matrix = torch.ones(300, 300) * 0.1
    return (
        arithmetic.__wrapped__(), torch.get_default_dtype(), torch.ones(2).device, torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"), torch.backends.mkldnn.enabled,
        tiny.tolist(), (matrix @ matrix)[0, 0].item(), torch.get_float32_matmul_precision(), torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(), torch.nn.ReLU()(torch.ones(2)).tolist(),
        tuple(np.geterr().items()),
    )  # fmt: skip


def process() -> tuple[object, ...]:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    return Path.cwd(), sys.stdout, dict(os.environ), handlers, sys.getrecursionlimit()


@pytest.mark.parametrize("what", LEFT)
def test_each_stage_starts_from_the_same_state(what: str) -> None:
    with fixed_state(1):
        expected = numbers()
    before, modes = process(), (torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"))
    with fixed_state(1):
        LEFT[what]()
    try:
        with fixed_state(1):
            assert numbers() == expected
        assert process() == before
    finally:  # what a component that never leaves its blocks leaves behind outside of stages, too
        set_torch(1)
        np.seterr(all="warn", under="ignore")
        torch.set_grad_enabled(mode=modes[0])
        torch.set_autocast_enabled("cpu", modes[1])
    assert not torch.is_inference_mode_enabled()


def test_numpy_has_the_threads_of_the_stage() -> None:
    """Else a product would be summed in another order in a Ray worker, which gets one thread for numpy."""
    with fixed_state(1):
        pools = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    assert pools
    assert set(pools) == {1}


MESSY = '''
"""An attack that changes settings of the whole process."""
import os
import torch
from bench.api.attack import *
@attack
class Messy(PoisoningAttack):
    def threat(self): return Threat.TRAIN_SET
    def apply_trigger(self, images, target, trigger): return 1 - images
    def poison(self, victim, trigger, rng):
        mask = torch.zeros(len(victim.train), dtype=torch.bool)
        torch.autocast("cpu", torch.bfloat16).__enter__()
        torch.set_default_dtype(torch.float64)
        os.chdir("/")
        return Poisoned(victim.train, mask)
'''


def test_other_trials_have_the_results_of_a_run_without_the_component(
    tmp_path: Path, tiny: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "messy.py").write_text(MESSY)
    registry.load_plugin(tmp_path / "messy.py")
    found = {}
    for name, attacks in (("with", "messy,none,badnets"), ("without", "none,badnets")):
        store = Store(Path(name), create=True)  # relative, as a user gives it
        finish(tiny(f"attacks={attacks}"), store)
        found[name] = {record.key: (record.metrics, record.checksum) for record in store.records() if record.ok}
    assert len(found["without"]) < len(found["with"])
    assert found["without"].items() <= found["with"].items()
