"""What hashing methods promise besides the conformance kit (test_conformance.py)."""

from __future__ import annotations

import copy

import pytest
import torch

from bench.api import registry
from bench.api.hashing import Objective
from bench.api.random import Rng

NAMES = sorted(registry.catalogue("methods"))
THROUGH_SIGNS = {"cibhash", "greedyhash"}  # whose gradient passes through signs: see their own tests
EXACT = [name for name in NAMES if name not in THROUGH_SIGNS]
BITS, CLASSES, N = 8, 3, 12
IDS = torch.arange(N)


def labels_for(multi: bool = False) -> torch.Tensor:
    labels = torch.eye(CLASSES, dtype=torch.bool)[IDS % CLASSES]
    if multi:
        labels[:, 0] |= IDS % 2 == 0
        labels[-1] = True
    return labels


def objective_of(name: str, size: int = N) -> Objective:
    method = registry.create("methods", name, {})
    return method.objective(bits=BITS, classes=CLASSES, train_size=size, rng=Rng("objective", 0))


def logits_for(scale: float = 1.0) -> torch.Tensor:
    return scale * Rng("tests", "logits").normal((N, BITS))


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("multi", [False, True])
def test_gradient_is_that_of_the_loss(name, multi):
    """By finite differences where the loss is a function of the logits; a memory of past logits makes it more."""
    batch, ids = labels_for(multi)[:3], IDS[:3]
    objective = objective_of(name).double()

    def loss(x: torch.Tensor) -> torch.Tensor:
        return copy.deepcopy(objective)(x, batch, ids, 0.5)

    logits = logits_for().double()[:3].requires_grad_()
    used = copy.deepcopy(objective)
    used(logits, batch, ids, 0.5)
    if all(torch.equal(value, used.state_dict()[key]) for key, value in objective.state_dict().items()):
        assert torch.autograd.gradcheck(loss, (logits,))
    (gradient,) = torch.autograd.grad(loss(logits), logits)
    assert float(gradient.abs().max()) > 1e-4
    with torch.no_grad():
        assert float(loss(logits - 1e-2 * gradient / gradient.norm())) < float(loss(logits))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [3, 30])
def test_for_set_serves_another_training_set_and_leaves_the_original_alone(name, size):
    original = objective_of(name)
    original(logits_for(), labels_for(), IDS, 0.5)
    before = copy.deepcopy(original.state_dict())
    other = original.reset_for(size)
    assert isinstance(other, Objective)
    ids = torch.tensor([size - 1, 0])
    loss = other(logits_for()[:2], labels_for()[:2], ids, 0.0)
    assert bool(torch.isfinite(loss))
    if other is not original:
        assert all(torch.equal(before[key], value) for key, value in original.state_dict().items())
    centres = {key: value for key, value in before.items() if value.shape[:1] != (N,)}
    assert all(torch.equal(other.state_dict()[key], value) for key, value in centres.items())
