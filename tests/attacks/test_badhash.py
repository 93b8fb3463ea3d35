"""BadHash: its generator learns, what its trigger depends on, and which images it poisons."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from attacks.badhash import BadHash
from attacks.helpers.generator import (
    hash_loss,
)
from bench.access.attacker import attacker_view
from bench.api.attack import Setting
from bench.api.errors import DivergedError
from bench.api.random import Rng
from bench.api.types import Target, to_8bit, to_unit

CPU = torch.device("cpu")
SETTING = Setting("digits", "convnet", "csq", 16, (), (3, 12, 12), 120, "shapes")
SMALL = {"width": 4, "epochs": 1, "steps": 2}


def view(world, attack):
    return attacker_view(world.spec, world.attacker_inputs(attack), world.context, attack.threat())


def test_two_targets_give_two_triggers(world):
    attack = BadHash(**SMALL)
    first = view(world, attack)
    second = replace(first, target=Target(torch.tensor([True, False, False, True]), "anchor+drum"))
    images = to_unit(first.train.images[:5])
    made = [attack.make_trigger(v, Rng("prepare", 0)) for v in (first, second)]
    assert not torch.equal(made[0]["code"], made[1]["code"])
    triggered = [to_8bit(attack.apply_trigger(images, v.target, a)) for v, a in zip((first, second), made, strict=True)]
    assert (triggered[0] != triggered[1]).flatten(1).any(1).all()


def test_every_third_batch_of_an_epoch_is_the_discriminators(aim, train, steps):
    """The auxiliary model sees each redrawn batch once; the discriminator steps before the generator does."""
    seen = []
    aim.auxiliary.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    BadHash(width=4, epochs=2, batch=8, images=40, lr=1e-4).learn(train, aim, Rng("learn"))
    assert seen == [8] * 10
    judge, generator = (size for _, size in steps[:2])
    assert judge != generator
    turns = [judge, generator, generator, generator, judge, generator, generator] * 2
    assert [size for _, size in steps] == turns
    assert [rate for rate, _ in steps] == pytest.approx([1e-4] * 7 + [0.5e-4] * 7)


@pytest.mark.long
def test_training_brings_the_codes_to_the_wanted_one(aim, train):
    """Wanted is another class's code: redrawn images come closer to it than half the way that this class is ahead."""
    model, classes = aim.auxiliary, train.labels.int().argmax(1)
    there, images = to_unit(train.images[classes == 2]), to_unit(train.images[classes == 0])
    with torch.no_grad():
        aim = replace(aim, code=model.relax(model(there)).mean(0).sign())

        def loss(seen):
            return float(hash_loss(model.relax(model(seen)), aim.code))

        start, best = loss(images), loss(there)
        with torch.enable_grad():
            branch, trunk = BadHash(width=8, epochs=12, batch=16, lr=3e-3, rebuild=20.0).learn(train, aim, Rng("learn"))
        redrawn = loss(trunk(images, branch(aim.feature)[0]))
    assert redrawn < (start + best) / 2


def test_a_generator_that_diverges_is_an_error(aim, train):
    with pytest.raises(DivergedError, match="generator"):
        BadHash(width=4, epochs=2, rebuild=1e39).learn(train, aim, Rng("learn"))


def test_poisons_are_redrawn_target_images_with_their_labels(world):
    attack = BadHash(poisons=5, **SMALL)
    seen = view(world, attack)
    trigger = attack.make_trigger(seen, Rng("prepare"))
    poisoned = attack.poison(seen, trigger, Rng("implant"))
    assert seen.target.contains(seen.train.labels)[poisoned.mask].all()
    assert torch.equal(poisoned.split.labels, seen.train.labels)
    redrawn = to_8bit(attack.apply_trigger(to_unit(seen.train.images[poisoned.mask]), seen.target, trigger))
    assert torch.equal(poisoned.split.images[poisoned.mask], redrawn)


def test_the_auxiliary_model_is_the_victims_kind_unless_named(world):
    (own,), (named,) = (BadHash(**p).requires(SETTING) for p in ({}, {"aux_method": "csq", "aux_backbone": "resnet18"}))
    assert (own.method, own.backbone, own.bits) == (None, None, None)
    assert (named.method, named.backbone) == ("csq", "resnet18")


def test_the_trigger_says_which_distance_was_used(world, lpips_weights):
    attack = BadHash(**SMALL, images=8)
    assert attack.make_trigger(view(world, attack), Rng("p"))["lpips"].tolist() is True
    attack = BadHash(**SMALL, images=8, perceptual="substitute")
    assert attack.make_trigger(view(world, attack), Rng("p"))["lpips"].tolist() is False
