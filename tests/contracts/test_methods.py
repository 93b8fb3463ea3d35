"""What every hashing method promises; a new file in `hashing/methods/` is tested by being there."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from bench.api import registry
from bench.api.hashing import HashingMethod, Objective, Recipe
from bench.api.random import Rng
from hashing.codes import pack
from hashing.ranking import leave_one_out_map

NAMES = sorted(registry.catalogue("methods"))
EXACT = [name for name in NAMES if name != "greedyhash"]  # whose gradient passes through signs: see its own tests
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


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0])
def test_loss_and_gradient_are_finite(name, multi, progress, scale):
    logits = logits_for(scale).requires_grad_()
    loss = objective_of(name)(logits, labels_for(multi), IDS, progress)
    assert loss.shape == ()
    assert bool(torch.isfinite(loss))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert bool(torch.isfinite(gradient).all())


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
def test_loss_falls_on_a_separable_set_and_its_codes_retrieve(name):
    rng = Rng("tests", "toy")
    labels = labels_for()
    inputs = 3 * labels.float() @ torch.eye(CLASSES, 6) + 0.1 * rng.normal((N, 6))
    method: HashingMethod = registry.create("methods", name, {})
    with rng.child("head").ambient():
        head = method.head(6, BITS)
    objective = objective_of(name)
    optimizer = torch.optim.Adam([*head.parameters(), *objective.parameters()], lr=0.05)
    losses = []
    for step in range(80):
        loss = objective(head(inputs), labels, IDS, step / 80)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[1]  # dch's is bounded from below
    assert leave_one_out_map(pack(head.eval()(inputs)), labels.numpy()) > 0.99


@pytest.mark.parametrize("name", NAMES)
def test_objective_is_made_from_its_rng_alone(name, untouched_rng):
    with untouched_rng():
        one, same = objective_of(name), objective_of(name)
        values = [float(objective(logits_for(), labels_for(), IDS, 0.5).detach()) for objective in (one, same)]
    assert values[0] == values[1]


@pytest.mark.parametrize("name", NAMES)
def test_buffers_travel_through_a_state_dict(name):
    """An objective restored from a checkpoint is the one that was saved: repairs train on with it."""
    used = objective_of(name)
    used(logits_for(), labels_for(), IDS, 0.5)
    method = registry.create("methods", name, {})
    restored = method.objective(bits=BITS, classes=CLASSES, train_size=N, rng=Rng("objective", 99))
    restored.load_state_dict({key: value.clone() for key, value in used.state_dict().items()})
    batch = (logits_for(0.3)[:5], labels_for()[:5], IDS[:5], 0.5)
    assert float(used(*batch).detach()) == float(restored(*batch).detach())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [3, 30])
def test_for_set_serves_another_training_set_and_leaves_the_original_alone(name, size):
    original = objective_of(name)
    original(logits_for(), labels_for(), IDS, 0.5)
    before = copy.deepcopy(original.state_dict())
    other = original.for_set(size)
    assert isinstance(other, Objective)
    ids = torch.tensor([size - 1, 0])
    loss = other(logits_for()[:2], labels_for()[:2], ids, 0.0)
    assert bool(torch.isfinite(loss))
    if other is not original:
        assert all(torch.equal(before[key], value) for key, value in original.state_dict().items())
    centres = {key: value for key, value in before.items() if value.shape[:1] != (N,)}
    assert all(torch.equal(other.state_dict()[key], value) for key, value in centres.items())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_relaxed_codes_lie_between_the_signs_and_agree_with_them(name, progress):
    method = registry.create("methods", name, {})
    logits = logits_for(5.0)
    codes = method.relax(logits, progress)
    assert codes.shape == logits.shape
    assert float(codes.abs().max()) <= 1
    assert torch.equal(codes > 0, logits > 0)


@pytest.mark.parametrize("name", NAMES)
def test_head_maps_features_to_bits_and_the_recipe_is_the_papers(name):
    method: HashingMethod = registry.create("methods", name, {})
    head = method.head(5, BITS)
    assert isinstance(head, nn.Module)
    assert head(torch.zeros(2, 5)).shape == (2, BITS)
    assert isinstance(method.recipe, Recipe)
    assert method.recipe.epochs > 0
