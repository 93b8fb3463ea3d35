"""CIBA's patch, perturbation, anchor and hashing loss against the authors' functions.

Repository KuofengGao/CIBA, commit 99b9ff9: generate_trigger_pattern.py (target_adv, get_factor, get_anchor_code),
backdoor_attack.py (enhance_backdoor_trigger, confusing_perturbation_loss) and loss.py (loss2).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from attacks.helpers.confusing import objective
from attacks.helpers.targeted_patch import anchor_code, factor, patch_update
from bench.api.random import Rng
from bench.api.types import Split, Target, to_unit
from hashing.methods.ciba_pairwise import CibaPairwise
from tests.attacks.conftest import poisoned_by
from tests.fidelity.inputs import Normalised, image, network, numbers, real, whole

BITS, SIDE = 16, 12
IMAGES = to_unit(image(8, 3, SIDE, SIDE, seed=11))
MODEL = Normalised(network(3 * SIDE * SIDE, BITS, seed=3)).requires_grad_(requires_grad=False)


@pytest.mark.parametrize("step", [0, 1100, 1999])
def test_a_step_of_the_patch(step):
    """Ours normalises the gradient in pixels, theirs after division by ImageNet's deviations (all about .226)."""
    patch = to_unit(image(1, 3, 4, 4, seed=31))[0]
    anchor = torch.where(real(BITS, seed=21) > 0, 1.0, -1.0)
    ours = patch_update(MODEL, IMAGES, patch, anchor, steepness=factor(step, 2000), step=12 / 255)
    theirs = torch.from_numpy(numbers("ciba")[f"patch_{step}"]) / 255
    assert 255 * (theirs - patch).abs().max() > 1, "the step is visible"
    assert 255 * (ours - theirs).abs().max() < 0.05


def test_the_schedule_of_the_factor():
    np.testing.assert_allclose([factor(step, 2000) for step in range(2000)], numbers("ciba")["factors"], rtol=1e-6)


def test_the_anchor():
    codes = torch.where(real(9, BITS, seed=41) > 0, 1.0, -1.0)
    labels = torch.tensor([[True, False]] * 9)
    inner = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(9, BITS, bias=False))
    with torch.no_grad():
        inner[1].weight.copy_(codes.T)  # image i is the i-th unit vector, so that its code is row i
    train = Split((255 * torch.eye(9)).to(torch.uint8).view(9, 1, 3, 3), labels, torch.arange(9))
    found = anchor_code(inner, train, Target(torch.tensor([True, False]), "a"))
    np.testing.assert_array_equal(found.numpy(), numbers("ciba")["anchor"])


def gradient(lam: float, pairs: str) -> np.ndarray:
    """Of the objective by the normalised images, in units of the released loss of one image."""
    clean = (IMAGES - Normalised.MEAN) / Normalised.STD
    moved = (clean + real(*clean.shape, seed=51, scale=0.05)).requires_grad_()
    value = objective(MODEL.inner(moved).tanh(), MODEL.inner(clean).tanh(), lam, pairs)
    return 2 * len(moved) / BITS * torch.autograd.grad(value, moved)[0].numpy()


@pytest.mark.parametrize("lam", [0.0, 0.8, 1.0])
def test_the_gradient_of_the_perturbation(lam):
    theirs = numbers("ciba")[f"confusing_{lam}"]
    np.testing.assert_allclose(gradient(lam, "released"), theirs, atol=1e-5 * np.abs(theirs).max())
    if lam == 0:
        np.testing.assert_allclose(gradient(lam, "unordered"), theirs, atol=1e-5 * np.abs(theirs).max())


def test_the_own_term_of_the_released_gradient_changes_few_signs():
    """The deviation that the card states, for 8 images; a batch of 20 has 7/19 of it."""
    theirs, ours = numbers("ciba")["confusing_0.8"], gradient(0.8, "unordered")
    assert 0.01 < np.linalg.norm(theirs - ours) / np.linalg.norm(theirs) < 0.3
    assert (np.sign(theirs) == np.sign(ours)).mean() > 0.9


def test_the_parameter_reaches_the_poisons(world):
    plain, released = (poisoned_by(world, "ciba", pairs=pairs)[2] for pairs in ("unordered", "released"))
    assert torch.equal(plain.mask, released.mask)
    differ = (plain.split.images != released.split.images)[plain.mask].float().mean()
    assert 0 < differ < 0.2


@pytest.mark.parametrize("weight", ["0", "0.01"])
def test_the_pairwise_loss(weight):
    logits, labels = real(10, BITS, seed=61).requires_grad_(), torch.from_numpy(whole(10, 5, top=2, seed=71)).bool()
    method = CibaPairwise(quantisation=float(weight))
    objective_of = method.objective(bits=BITS, classes=5, train_size=10, rng=Rng("o"))
    loss = objective_of(logits, labels, torch.arange(10), 0.0)
    (slope,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(float(numbers("ciba")[f"pairwise_{weight}"]), rel=1e-5)
    theirs = numbers("ciba")[f"pairwise_{weight}_gradient"]
    np.testing.assert_allclose(slope.numpy(), theirs, atol=1e-5 * np.abs(theirs).max())
