"""One step of BadHash's training: which networks learn."""

from __future__ import annotations

import torch

from attacks.helpers.gan_training import GanTrainer, Weights
from bench.api.random import Rng
from bench.api.types import to_unit


def test_the_discriminator_learns_only_when_it_is_its_turn_and_the_generator_always(aim, train):
    trainer = GanTrainer(Weights(rebuild=200.0, hashing=10.0, gan=1.0), train, aim, width=4, rng=Rng("duel"))
    trainer.set_rate(1e-4)
    images, labels = to_unit(train.images[:8]), train.labels[:8]
    frozen = {name: value.clone() for name, value in aim.auxiliary.state_dict().items()}

    def state():
        return [
            [p.detach().clone() for p in net.parameters()] for net in (trainer.judge, trainer.trunk, trainer.branch)
        ]

    for judge in (True, False, False, True):
        before = state()
        trainer.step(images, labels, judge=judge)
        changed = [
            any(not torch.equal(a, b) for a, b in zip(*pair, strict=True)) for pair in zip(before, state(), strict=True)
        ]
        assert changed == [judge, True, True]
    assert all(torch.equal(frozen[name], value) for name, value in aim.auxiliary.state_dict().items())
    assert all(p.grad is None for p in aim.auxiliary.parameters())
