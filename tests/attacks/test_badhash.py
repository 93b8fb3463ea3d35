"""BadHash's losses by hand and by brute force, its schedule at the borders, and what its generator may depend on."""

from __future__ import annotations

import hashlib
import math
import zipfile
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from attacks.badhash import BadHash
from attacks.helpers.gan_training import GanTrainer, GeneratorTarget, Weights
from attacks.helpers.generator import (
    Depth,
    Discriminator,
    LabelBranch,
    Trunk,
    flat_then_linear,
    hash_loss,
    lsgan,
    nt_xent,
    rebuilt_trunk,
    smoothed,
    train_labcln,
)
from attacks.helpers.perceptual import gradients, perceptual
from bench.access.attacker import attacker_view
from bench.api.attack import Setting
from bench.api.errors import DataCorruptError, DivergedError, UserError
from bench.api.random import Rng
from bench.api.types import Split, Target, to_8bit, to_unit

CPU = torch.device("cpu")
SETTING = Setting("digits", "convnet", "csq", 16, (), (3, 12, 12), 120, "shapes")
SMALL = {"width": 4, "epochs": 1, "steps": 2}


@pytest.fixture
def aim(world, model) -> GeneratorTarget:
    feature = Rng("feature").normal((1, 32))
    code = torch.where(Rng("code").normal((16,)) > 0, 1.0, -1.0)
    return GeneratorTarget(feature, code, torch.tensor([0.0, 1, 0, 0]), model, gradients)


@pytest.fixture
def train(world) -> Split:
    return Split(world.data.load.images[:120], world.data.load.labels[:120], torch.arange(120))


def view(world, attack):
    return attacker_view(world.spec, world.attacker_inputs(attack), world.context, attack.threat())


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 10**6))
def test_nt_xent_is_its_definition(pairs, size, seed):
    rows = Rng("nt", seed).normal((2 * pairs, size)).tolist()

    def cosine(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))

    total = 0.0
    for i, row in enumerate(rows):
        partner = rows[i + 1 if i % 2 == 0 else i - 1]
        others = [math.exp(cosine(row, other) / 0.5) for j, other in enumerate(rows) if j != i]
        total -= math.log(math.exp(cosine(row, partner) / 0.5) / sum(others))
    assert float(nt_xent(torch.tensor(rows))) == pytest.approx(total / len(rows), abs=1e-4)


def test_label_smoothing_keeps_the_sum_and_gives_the_rest_to_the_other_labels():
    labels = torch.tensor([[0.0, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 1]])
    third = 0.2 / 3
    expected = [[0.05, 0.8, 0.05, 0.05, 0.05], [0.8, 0.8, third, third, third], [0.8] * 5]
    torch.testing.assert_close(smoothed(labels), torch.tensor(expected))


def test_least_squares_targets_by_hand():
    logits = torch.tensor([[0.5, 0.0, 1.0]])
    label = torch.tensor([[1.0, 0.0]])
    assert float(lsgan(logits, label, fake=False)) == pytest.approx((0.25 + 0 + 1) / 3)
    assert float(lsgan(logits, label, fake=True)) == pytest.approx((0.25 + 0 + 0) / 3)


def test_the_hash_loss_is_0_at_the_code_and_2_at_its_opposite():
    code = torch.tensor([1.0, -1, 1, 1])
    assert float(hash_loss(code.expand(3, 4), code)) == 0
    assert float(hash_loss(-code.expand(3, 4), code)) == 2
    assert float(hash_loss(torch.zeros(3, 4), code)) == 1


def test_the_rate_is_flat_for_half_and_falls_to_one_step_above_zero():
    rates = [flat_then_linear(epoch, 100) for epoch in range(100)]
    assert rates[:50] == [1] * 50
    assert rates[50] == pytest.approx(50 / 51)
    assert rates[99] == pytest.approx(1 / 51)
    assert flat_then_linear(0, 1) == 1
    assert [flat_then_linear(epoch, 2) for epoch in range(2)] == [1, 0.5]


@pytest.mark.parametrize(
    ("side", "depth"),
    [(224, (4, 2, 5)), (96, (3, 2, 4)), (64, (3, 2, 4)), (32, (2, 2, 3)), (16, (1, 1, 2)), (12, (1, 1, 1))],
)
def test_small_images_get_fewer_blocks(side, depth):
    assert Depth.of((3, side, side)) == Depth(*depth)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 16, 16), (3, 12, 20), (1, 17, 13), (2, 33, 50), (3, 5, 5)])
def test_any_size_and_number_of_channels_goes_through(shape):
    images, feature = Rng("images").uniform((2, *shape)), Rng("feature").normal((1, 32))
    with Rng("net").ambient():
        trunk, branch = Trunk(shape, width=4), LabelBranch(shape, features=32, width=4)
        judge = Discriminator(shape, classes=5, width=4)
    with torch.no_grad():
        assert trunk(images, branch(feature)[0]).shape == images.shape
        assert judge(images).shape == (2, 6)


def test_the_networks_have_the_papers_sizes_at_224_pixels():
    shape = (3, 224, 224)
    with torch.device("meta"):
        branch, trunk = LabelBranch(shape, features=512, width=64), Trunk(shape, width=64)
        judge = Discriminator(shape, classes=100, width=64)
    label = [m.out_channels for m in branch.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert (label, branch.fc[0].out_features) == ([64, 32, 16, 8], 128 * 14 * 14)
    kept = [(m.out_channels, m.kernel_size[0]) for m in trunk.modules() if isinstance(m, nn.Conv2d)]
    assert kept == [(64, 7), (128, 4), (256, 4), *[(256, 3)] * 12, (3, 3)]
    assert [m.out_channels for m in trunk.modules() if isinstance(m, nn.ConvTranspose2d)] == [128, 64]
    kept = [(m.out_channels, m.kernel_size[0]) for m in judge.modules() if isinstance(m, nn.Conv2d)]
    assert kept == [(64, 4), (128, 4), (256, 4), (512, 4), (1024, 4), (101, 7)]


def test_the_label_network_tells_labels_apart_and_reads_them_back():
    labels = torch.eye(6, dtype=torch.bool)
    network = train_labcln(labels, bits=16, width=8, steps=120, lr=1e-2, rng=Rng("l"), device=CPU)
    with torch.no_grad():
        feature, code, guess = network(labels.float())
    assert torch.equal(guess.argmax(1), torch.arange(6))
    unit = nn.functional.normalize(feature, dim=1)
    assert float((unit @ unit.T - torch.eye(6)).max()) < 0.5
    assert len((code > 0).unique(dim=0)) > 1


@pytest.fixture
def steps():
    """Every step of every optimizer: its learning rate and the number of its parameters."""
    seen: list[tuple[float, int]] = []

    def note(optimizer, *_):
        (group,) = optimizer.param_groups
        seen.append((group["lr"], sum(value.numel() for value in group["params"])))

    handle = register_optimizer_step_pre_hook(note)
    yield seen
    handle.remove()


def test_the_label_network_steps_down_at_half_and_three_quarters(steps):
    """The rate as Adam used it in each of eight steps."""
    labels = torch.eye(3, dtype=torch.bool)
    train_labcln(labels, bits=4, width=2, steps=8, lr=1.0, rng=Rng("l"), device=CPU)
    assert [rate for rate, _ in steps] == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_a_label_network_that_diverges_is_an_error():
    with pytest.raises(DivergedError, match=r"\blr\b"):
        train_labcln(torch.eye(3, dtype=torch.bool), bits=4, width=2, steps=4, lr=1e38, rng=Rng("l"), device=CPU)


def test_an_image_is_redrawn_alone_and_according_to_its_condition():
    shape = (3, 16, 16)
    images, conditions = Rng("i").uniform((4, *shape)), Rng("c").normal((2, *shape))
    with Rng("net").ambient():
        trunk = Trunk(shape, width=4)
    with torch.no_grad():
        together, other = trunk(images, conditions[0]), trunk(images, conditions[1])
        for i in range(4):
            torch.testing.assert_close(trunk(images[i : i + 1], conditions[0])[0], together[i], rtol=0, atol=1e-5)
    assert float((together - other).abs().mean()) > 1e-3
    assert not torch.allclose(together[0], together[1], atol=1e-2)


def test_two_targets_give_two_triggers(world):
    attack = BadHash(**SMALL)
    first = view(world, attack)
    second = replace(first, target=Target(torch.tensor([True, False, False, True]), "anchor+drum"))
    images = to_unit(first.train.images[:5])
    made = [attack.make_trigger(v, Rng("prepare", 0)) for v in (first, second)]
    assert not torch.equal(made[0]["code"], made[1]["code"])
    triggered = [to_8bit(attack.apply_trigger(images, v.target, a)) for v, a in zip((first, second), made, strict=True)]
    assert (triggered[0] != triggered[1]).flatten(1).any(1).all()


def test_a_rebuilt_generator_draws_the_same_and_no_dice(untouched_rng):
    shape = (1, 16, 16)
    with Rng("net").ambient():
        trunk = Trunk(shape, width=4)
    images, condition = Rng("i").uniform((2, *shape)), Rng("c").normal(shape)
    with untouched_rng(), torch.no_grad():
        again = rebuilt_trunk(shape, width=4, state=trunk.state_dict())
        assert torch.equal(again(images, condition), trunk(images, condition))


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


def test_the_substitute_by_hand():
    """A single bright pixel: two unit steps along each axis, then a quarter and a sixteenth of it."""
    a, b = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    a[0, 0, 1, 1] = 1
    fine = 2 * 1 / 12  # of 12 neighbours along an axis, two differ by 1
    half = 1 * 0.25**2 / 2  # 2 x 2: one of two neighbours differs by a quarter
    assert float(gradients(a, b)) == pytest.approx((fine * 2 + half * 2) / 4)
    assert float(gradients(a, a)) == 0
    assert float(gradients(a + 0.3, a)) == pytest.approx(0, abs=1e-12)


def test_lpips_without_weights_says_how_to_get_them(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert perceptual("auto", CPU) == (gradients, False)
    with pytest.raises(UserError, match="pip install lpips") as error:
        perceptual("lpips", CPU)
    assert "\n" not in str(error.value)


@pytest.fixture
def weights(monkeypatch, tmp_path):
    """Files like the real ones, with random numbers, in the places where the real ones are."""
    from torchvision.models import alexnet

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    linear, hub = tmp_path / "lpips" / "weights" / "v0.1" / "alex.pth", tmp_path / "hub" / "checkpoints"
    for folder in (linear.parent, hub):
        folder.mkdir(parents=True)
    channels = (64, 192, 384, 256, 256)
    torch.save({f"lin{i}.model.1.weight": Rng("w", i).uniform((1, c, 1, 1)) for i, c in enumerate(channels)}, linear)
    with torch.device("meta"):
        empty = alexnet(weights=None).features.state_dict()
    state = {f"features.{k}": 0.05 * Rng("alexnet", k).normal(tuple(v.shape)) for k, v in empty.items()}
    raw = tmp_path / "raw.pth"
    torch.save(state, raw)
    backbone = raw.rename(hub / f"alexnet-owt-{hashlib.sha256(raw.read_bytes()).hexdigest()[:8]}.pth")
    return backbone, state, linear


def test_lpips_is_its_formula_and_has_gradients(weights):
    _, state, file = weights
    linear = torch.load(file)
    distance, is_lpips = perceptual("auto", CPU)
    assert is_lpips
    a, b = Rng("a").uniform((2, 3, 64, 64)), Rng("b").uniform((2, 3, 64, 64))

    def maps(images):
        shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        x, out = (2 * images - 1 - shift.view(1, 3, 1, 1)) / scale.view(1, 3, 1, 1), []
        for layer, stride, pad, pool in ((0, 4, 2, 0), (3, 1, 2, 1), (6, 1, 1, 1), (8, 1, 1, 0), (10, 1, 1, 0)):
            x = nn.functional.max_pool2d(x, 3, 2) if pool else x
            weight, bias = state[f"features.{layer}.weight"], state[f"features.{layer}.bias"]
            x = nn.functional.conv2d(x, weight, bias, stride=stride, padding=pad).relu()
            out.append(x / (x.norm(dim=1, keepdim=True) + 1e-10))
        return out

    expected = sum(
        ((one - other) ** 2 * linear[f"lin{i}.model.1.weight"]).sum(1).mean()
        for i, (one, other) in enumerate(zip(maps(a), maps(b), strict=True))
    )
    torch.testing.assert_close(distance(a, b), expected, rtol=1e-4, atol=1e-5)
    assert float(distance(a, a)) == 0
    grey = torch.zeros(1, 1, 16, 16, requires_grad=True)
    distance(grey, torch.ones(1, 1, 16, 16)).backward()
    assert grey.grad.isfinite().all()


def test_a_broken_weight_file_is_not_opened(weights):
    backbone = weights[0]
    backbone.write_bytes(b"x" + backbone.read_bytes())
    with pytest.raises(DataCorruptError, match="alexnet-owt"):
        perceptual("lpips", CPU)


def test_weights_that_unpack_without_end_are_not_opened(weights):
    *_, linear = weights
    with zipfile.ZipFile(linear) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(linear, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(DataCorruptError, match=r"alex\.pth.*compressed"):
        perceptual("lpips", CPU)


def test_the_trigger_says_which_distance_was_used(world, weights):
    attack = BadHash(**SMALL, images=8)
    assert attack.make_trigger(view(world, attack), Rng("p"))["lpips"].tolist() is True
    attack = BadHash(**SMALL, images=8, perceptual="substitute")
    assert attack.make_trigger(view(world, attack), Rng("p"))["lpips"].tolist() is False
