"""DarkHash's losses and learning rates against the authors' code.

Repository Zhou-Zi7/DarkHash: funcs.py (TPLoss) at commit 8aa227e, attack.py (train_with_grad_control with its default
loss_func, optimizer and scheduler of train_val) at commit 1f2e649.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import huber_loss
from torch.optim.optimizer import register_optimizer_step_pre_hook

from attacks.darkhash import DarkHash
from attacks.helpers.head_tuning import divided
from attacks.helpers.topology import topological_alignment
from bench.api.random import Rng
from tests.attacks.conftest import small
from tests.fidelity.inputs import numbers, real, whole

RELEASED = numbers("darkhash")


def close(found: torch.Tensor, name: str) -> None:
    theirs = RELEASED[name]
    np.testing.assert_allclose(found.numpy(), theirs, atol=1e-5 * max(np.abs(theirs).max(), 1e-2))


@pytest.mark.parametrize("count", [2, 6, 9])
def test_the_topology_loss(count):
    outputs, wanted = real(count, 12, seed=700 + count).requires_grad_(), real(count, 12, seed=720 + count)
    loss = topological_alignment(outputs, wanted)
    (gradient,) = torch.autograd.grad(loss, outputs)
    assert loss.item() == pytest.approx(float(RELEASED[f"tp_{count}"]), abs=1e-5)
    close(gradient, f"tp_{count}_gradient")


def batch(triggered: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The loss of a batch of 14, its gradient, and the goals of the clean images."""
    clean, wanted = real(30, 12, seed=730), real(12, seed=731)
    rows = torch.from_numpy(whole(14, top=30, seed=732 + triggered))
    outputs = real(14, 12, seed=740 + triggered).requires_grad_()
    loss = DarkHash().loss(clean, wanted)(outputs, rows, triggered)
    return loss.detach(), torch.autograd.grad(loss, outputs)[0], clean[rows[triggered:]]


def test_a_batch_with_four_triggered_images():
    loss, gradient, _ = batch(4)
    assert loss.item() == pytest.approx(float(RELEASED["loss_4"]), rel=1e-5)
    close(gradient, "loss_4_gradient")


def test_a_batch_without_triggered_images_lacks_two_terms_of_the_released_one():
    """The deviation that the card states: there, such a batch also has the topology loss and the squared error."""
    loss, _, goals = batch(0)
    outputs = real(14, 12, seed=740)
    assert loss.item() == pytest.approx(float(huber_loss(outputs, goals)), rel=1e-6)
    left_out = topological_alignment(outputs, goals) + (outputs - goals).square().mean()
    assert loss.item() + float(left_out) == pytest.approx(float(RELEASED["loss_0"]), rel=1e-5)


def test_the_optimiser_and_its_rate_in_100_epochs():
    model, attack, seen = small("convnet", width=4), DarkHash(batch=6), []  # two batches per epoch

    def note(optimizer, *_):
        (group,) = optimizer.param_groups
        seen.append((type(optimizer).__name__, group["weight_decay"], group["lr"]))

    handle = register_optimizer_step_pre_hook(note)
    with divided(model, 4):
        attack.fine_tune(model, real(24, 16, 1, 1, seed=5), 0.1, lambda outputs, *_: outputs.mean(), Rng("order"))
    handle.remove()
    assert {kind for kind, *_ in seen} == {"RMSprop"}
    assert {decay for _, decay, _ in seen} == {1e-5}
    np.testing.assert_allclose([rate for *_, rate in seen], RELEASED["rates"].repeat(2), rtol=1e-6)
