"""BadHash's networks, losses and learning rates against the authors' code.

Repository CGCL-codes/BadHash, commit 31c1acb: model/utils.py (nt_xent, smooth_one_hot), model/module.py (LabCLN,
Generator, GANLoss, get_scheduler) and model/badhash.py (logloss in `train`).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from attacks.badhash import BadHash
from attacks.helpers.gan_training import GanTrainer, GeneratorTarget, Weights
from attacks.helpers.generator import (
    LabCLN,
    LabelBranch,
    Trunk,
    flat_then_linear,
    hash_loss,
    lsgan,
    nt_xent,
    smoothed,
)
from bench.api.random import Rng
from bench.api.types import Split, to_unit
from bench.conformance.attacks import attacker_view_for
from tests.fidelity.inputs import fill_large, numbers, real, smooth, whole

RELEASED = numbers("badhash")


def weights(network: nn.Module, seed: int, scale: float) -> None:
    """Fill the weights; biases are zero (those before an instance norm, which ours leaves out, have no effect)."""
    for value in network.parameters():
        nn.init.zeros_(value)
    fill_large([value for value in network.parameters() if value.ndim > 1], seed, scale)


def test_the_contrastive_loss():
    features = real(10, 8, seed=600).requires_grad_()
    loss = nt_xent(features)
    (gradient,) = torch.autograd.grad(loss, features)
    assert loss.item() == pytest.approx(float(RELEASED["nt_xent"]), rel=1e-6)
    np.testing.assert_allclose(gradient.numpy(), RELEASED["nt_xent_gradient"], atol=1e-6)


def test_smoothed_labels():
    np.testing.assert_allclose(smoothed(torch.eye(5)[[0, 3, 4]]).numpy(), RELEASED["smoothed"], atol=1e-7)


def test_the_label_network():
    network = LabCLN(classes=5, bits=16, width=64)
    weights(network, 1, 2.0)
    with torch.no_grad():
        found = network(torch.from_numpy(RELEASED["smoothed"]))
    for ours, name in zip(found, ("feature", "code", "label"), strict=True):
        np.testing.assert_allclose(ours.numpy(), RELEASED[f"labcln_{name}"], atol=1e-5)


def test_the_adversarial_loss():
    logits, labels = real(4, 6, seed=610), torch.from_numpy(whole(4, 5, top=2, seed=611)).float()
    found = [float(lsgan(logits, labels, fake=fake)) for fake in (False, True)]
    assert found == pytest.approx(RELEASED["lsgan"].tolist(), rel=1e-6)


def test_the_learning_rate_of_100_epochs():
    np.testing.assert_allclose([flat_then_linear(epoch, 100) for epoch in range(100)], RELEASED["rates"], atol=1e-6)


@pytest.mark.long
def test_the_generator_at_224_pixels():
    """Theirs sees 2x - 1 here, in place of ImageNet's normalisation, and draws in [-1, 1], as the card says."""
    branch, trunk = LabelBranch((3, 224, 224), features=512, width=64), Trunk((3, 224, 224), width=64)
    weights(branch, 11, 3.0)
    weights(trunk, 12, 3.0)
    picture = to_unit(torch.from_numpy(smooth(3, 224, 224, seed=7))[None])
    with torch.no_grad():
        condition = branch(real(1, 512, seed=630))[0]
        drawn = 2 * trunk(picture, condition)[0] - 1
    np.testing.assert_allclose(condition[:, 5::16, 3::16].numpy(), RELEASED["condition"], atol=1e-4)
    np.testing.assert_allclose(drawn[:, 5::16, 3::16].numpy(), RELEASED["drawn"], atol=1e-3)


@pytest.mark.parametrize(("bounded", "name"), [(True, "hash_tanh"), (False, "hash_raw")])
def test_the_hash_loss(bounded, name):
    """`bounded` is tanh outputs, as of the released VGGFc and ResNetFc; their class ResNet has raw outputs."""
    outputs, code = real(4, 16, seed=620), torch.where(real(16, seed=621) > 0, 1.0, -1.0)
    found = hash_loss(outputs.tanh() if bounded else outputs, code)
    assert float(found) == pytest.approx(float(RELEASED[name]), rel=1e-6)


def test_a_step_uses_raw_outputs_if_the_loss_is_not_bounded(model):
    """With the hash loss alone, a step's loss tells which outputs it used."""
    split = Split(torch.full((4, 3, 12, 12), 90, dtype=torch.uint8), torch.eye(4, dtype=torch.bool), torch.arange(4))
    code, vector = torch.where(real(16, seed=621) > 0, 1.0, -1.0), torch.tensor([0.0, 1, 0, 0])
    found = {}
    for bounded in (True, False):
        aim = GeneratorTarget(real(1, 32, seed=1), code, vector, model, lambda a, b: (a - b).mean() * 0, bounded)
        trainer = GanTrainer(Weights(rebuild=0.0, hashing=1.0, gan=0.0), split, aim, width=4, rng=Rng("gan"))
        trainer.set_rate(0.0)
        with torch.no_grad():
            outputs = model(trainer.trunk(to_unit(split.images), trainer.branch(aim.feature)[0]))
        expected = hash_loss(outputs.tanh() if bounded else outputs, code)
        found[bounded] = float(trainer.step(to_unit(split.images), split.labels, judge=False))
        assert found[bounded] == pytest.approx(float(expected), abs=1e-5)
    assert abs(found[True] - found[False]) > 1e-3


class StoppedError(Exception):
    """Carries the goal of a generator."""


class Watched(BadHash):
    def learn(self, train, aim, rng):
        raise StoppedError(aim)


@pytest.mark.parametrize("params", [{}, {"bounded": False}])
def test_the_parameter_reaches_the_generators_goal(params, world):
    attack = Watched(steps=1, width=2, perceptual="substitute", **params)
    with pytest.raises(StoppedError) as stopped:
        attack.make_trigger(attacker_view_for(world, attack), Rng("prepare"))
    assert stopped.value.args[0].bounded is params.get("bounded", True)
