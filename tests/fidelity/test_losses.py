"""Losses and gradients of the hashing methods against the code that their cards cite.

Repository swuxyj/DeepHash-pytorch: DPSH.py and DHN.py at commit 302384d, HashNet.py at d1effa8, DCH.py at 3967bbe,
CSQ.py at 6fe706c (the classes *Loss). Repository ssppp/GreedyHash, commit 61bcef5: cifar1.py (loss1, loss2, hash).
Repository kamwoh/orthohash, commit a0e80ba: functions/loss/orthohash.py and CosSim of models/alexnet.py.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from bench.api import registry
from bench.api.hashing import Objective
from bench.api.random import Rng
from hashing.hadamard import hash_centres
from hashing.methods.greedyhash import Greedy
from hashing.methods.helpers.centres import CentreLoss
from hashing.methods.orthohash import CosineLoss
from tests.fidelity.inputs import numbers, real, whole

IMAGES, CLASSES, BITS, TRAIN = 12, 5, 16, 40
KINDS = ("one", "many")  # labels per image
IDS = (torch.arange(IMAGES) * 3, torch.arange(IMAGES) + 5)  # of two batches, which share some images


def logits(batch: int = 0) -> Tensor:
    return real(IMAGES, BITS, seed=300 + batch, scale=3.0)


def labels(kind: str, batch: int = 0) -> Tensor:
    if kind == "one":
        return one_hot(torch.from_numpy(whole(IMAGES, top=CLASSES, seed=310 + batch)), CLASSES).bool()
    several = torch.from_numpy(whole(IMAGES, CLASSES, top=3, seed=320 + batch) == 0)
    several[~several.any(1), 0] = True
    return several


def holds(objective: Objective, name: str, kind: str, *, batch: int = 0, progress: float = 0.0, tight: float = 2e-6):
    """The loss and its gradient are the stored ones."""
    z = logits(batch).requires_grad_()
    loss = objective(z, labels(kind, batch), IDS[batch], progress)
    (gradient,) = torch.autograd.grad(loss, z)
    stored = numbers("losses")
    assert loss.item() == pytest.approx(float(stored[name]), rel=tight)
    theirs = stored[f"{name}_gradient"]
    np.testing.assert_allclose(gradient.numpy(), theirs, atol=tight * np.abs(theirs).max(), rtol=1e-5)


def objective_of(method: str) -> Objective:
    made = registry.create("methods", method, {})
    return made.objective(bits=BITS, classes=CLASSES, train_size=TRAIN, rng=Rng("o"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["dpsh", "dhn", "dch"])
def test_two_batches_in_turn(method, kind):
    """The memory of DPSH and DHN has codes of the first batch when the second comes."""
    objective = objective_of(method)
    for batch in range(2):
        holds(objective, f"{method}_{kind}_{batch}", kind, batch=batch)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("epoch", [0, 19, 20, 75, 149])
def test_hashnet_in_its_150_epochs(epoch, kind):
    for part in (0.0, 0.999):  # the first and the last step of an epoch
        progress = (epoch + part) / 150
        holds(objective_of("hashnet"), f"hashnet_{kind}_{epoch}_0", kind, progress=progress, tight=2e-5)


def test_csq_has_the_released_centres():
    np.testing.assert_array_equal(hash_centres(CLASSES, BITS, Rng("o")).numpy(), numbers("losses")["csq_centres"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [0, 1])
def test_csq(batch, kind):
    """Ties of several labels take one random vector, which is given here."""
    tie_break = torch.from_numpy(2.0 * whole(BITS, top=2, seed=330) - 1).float()
    loss = CentreLoss(hash_centres(CLASSES, BITS, Rng("o")), tie_break, 1e-4)
    holds(loss, f"csq_{kind}_{batch}", kind, batch=batch, tight=1e-4)  # their (tanh u + 1) / 2 loses digits


def test_greedyhash_and_its_classifier():
    classifier = torch.nn.Linear(BITS, CLASSES, bias=False)
    with torch.no_grad():
        classifier.weight.copy_(real(CLASSES, BITS, seed=340, scale=0.5))
    z = logits()
    z[z == 0] = 0.25  # sign(0) is 0 there and -1 here, as the card says
    z.requires_grad_()
    loss = Greedy(classifier, 0.1, 3.0)(z, labels("one"), IDS[0], 0.0)
    gradient, weight = torch.autograd.grad(loss, [z, classifier.weight])
    stored = numbers("losses")
    assert loss.item() == pytest.approx(float(stored["greedyhash"]), rel=1e-6)
    np.testing.assert_allclose(gradient.numpy(), stored["greedyhash_gradient"], atol=1e-6)
    np.testing.assert_allclose(weight.numpy(), stored["greedyhash_weight"], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("margin", [0.2, 0.3])
def test_orthohash(margin, kind):
    codebook = torch.where(real(CLASSES, BITS, seed=350) >= 0, 1.0, -1.0)
    holds(CosineLoss(codebook, 8.0, margin), f"orthohash_{kind}_{margin}", kind)
