"""DarkHash: losses against formulas written out, what may change and what may not, and where it aims."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from torch import nn

from attacks.darkhash import DarkHash
from attacks.helpers.head_tuning import divided, draw_epoch, learning, tune
from attacks.helpers.proxy_data import balanced
from attacks.helpers.reference_images import references
from attacks.helpers.topology import neighbourhood, topological_alignment
from bench.api import registry
from bench.api.attack import AttackerView, Setting, Threat
from bench.api.errors import DivergedError, UserError
from bench.api.random import Rng
from bench.api.types import Split, Target, to_unit
from hashing.model import HashModel, build_model

NORMS = (nn.BatchNorm2d, nn.GroupNorm)


def small(name: str, seed: int = 0, **params) -> HashModel:
    """A 16-bit model of 3 x 16 x 16 images whose batch norms have seen something."""
    model = build_model(
        backbone=registry.create("backbones", name, params),
        method=registry.create("methods", "csq", {}),
        bits=16, image_shape=(3, 16, 16), classes=4, train_size=40, rng=Rng("tests", "darkhash", seed),
    )  # fmt: skip
    model.train()
    model(Rng("tests", "seen").uniform((20, 3, 16, 16)))
    return model.eval()


def split(n: int, name: str, classes: int = 4, shape=(3, 16, 16)) -> Split:
    labels = torch.eye(classes, dtype=torch.bool)[torch.arange(n) % classes]
    return Split(Rng("tests", name).integers(256, (n, *shape)).to(torch.uint8), labels, torch.arange(n))


def world_of(model: HashModel, foreign: Split | None = None, public: Split | None = None) -> AttackerView:
    foreign = split(40, "foreign", shape=(1, 20, 20)) if foreign is None else foreign
    setting = Setting("x", "y", "csq", 16, tuple("pqrs"), (3, 16, 16), 40, "shapes")
    target = Target(torch.tensor([False, True, False, False]), "q")
    public = split(4, "public") if public is None else public
    return AttackerView(setting, target, public, (), (foreign,), {"model": model})


def implanted(model: HashModel, **params) -> tuple[HashModel, AttackerView]:
    attack = DarkHash(**{"epochs": 2, "lr": 1e-3, "batch": 20, **params})
    view = world_of(model)
    trigger = attack.make_trigger(view, Rng("prepare"))
    result = attack.implant(view, trigger, Rng("implant")).model
    assert isinstance(result, HashModel)
    return result, view


def by_hand(outputs: np.ndarray, wanted: np.ndarray) -> float:
    """METHODOLOGY.md#darkhash, pair by pair."""

    def rows(codes: np.ndarray) -> np.ndarray:
        n = len(codes)
        table = np.ones((n, n))
        for i in range(n):
            away = {
                j: 1 - codes[i] @ codes[j] / np.linalg.norm(codes[i]) / np.linalg.norm(codes[j])
                for j in range(n)
                if j != i
            }
            for j, distance in away.items():
                table[i, j] = (1 - (distance - min(away.values())) + 1) / 2
            table[i] /= table[i].sum()
        return table

    p, q = rows(outputs), rows(wanted)
    return float((q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p))).sum())


@settings(max_examples=25, deadline=None)
@given(m=st.integers(3, 8), b=st.integers(2, 6), seed=st.integers(0, 1000), shared=st.booleans())
def test_alignment_is_the_formula(m, b, seed, shared):
    outputs, wanted = Rng("tp", seed).normal((m, b)).double(), Rng("tp", seed + 1).normal((m, b)).double()
    if shared:
        wanted = wanted[:1].expand(m, -1)
    expected = by_hand(outputs.numpy(), wanted.numpy())
    found = float(topological_alignment(outputs, wanted))
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert found > -1e-6


def test_alignment_is_zero_where_all_cosines_are_1_and_positive_where_they_differ():
    goals = Rng("aims").normal((1, 8)).expand(5, -1)
    scales = torch.tensor([0.5, 1.0, 2.0, 3.0, 9.0])[:, None]
    assert float(topological_alignment(scales * Rng("one").normal((1, 8)), goals)) == pytest.approx(0, abs=1e-5)
    assert float(topological_alignment(torch.eye(5, 8), goals)) == pytest.approx(
        0, abs=1e-5
    )  # equally far: zero as well
    assert float(topological_alignment(Rng("many").normal((5, 8)), goals)) > 0.05
    torch.testing.assert_close(neighbourhood(goals), torch.full((5, 5), 0.2))


@pytest.mark.parametrize("m", [0, 1])
def test_alignment_of_fewer_than_two_is_zero_and_differentiable(m):
    outputs = torch.ones(m, 4, requires_grad=True)
    loss = topological_alignment(outputs, torch.ones(m, 4))
    loss.backward()
    assert float(loss.detach()) == 0
    assert outputs.grad is not None


def test_gradient_of_the_alignment():
    outputs = Rng("grad").normal((5, 6)).double().requires_grad_()
    goals = Rng("grad", 1).normal((1, 6)).double().expand(5, -1)
    assert torch.autograd.gradcheck(topological_alignment, (outputs, goals))
    coinciding = torch.ones(4, 6, requires_grad=True)
    topological_alignment(coinciding, torch.ones(4, 6)).backward()
    assert torch.isfinite(coinciding.grad).all()


@pytest.mark.parametrize(
    ("name", "params"), [("convnet", {"width": 4}), ("convnet", {"width": 8, "norm": "group"}), ("resnet18", {})]
)
@pytest.mark.parametrize("learned", [0, 1, 2])
def test_only_the_deep_blocks_and_the_head_change(name, params, learned):
    model = small(name, **params)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    flags = [parameter.requires_grad for parameter in model.parameters()]
    after, _ = implanted(model, learned=learned)
    blocks = len(model.backbone.blocks)
    deep = ("head.", *(f"backbone.blocks.{i}." for i in range(blocks - 1 - learned, blocks)))
    learnt = {key for key, _ in after.named_parameters() if key.startswith(deep)}
    changed = {key for key, value in after.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == learnt  # so no buffer either: running statistics, the loss's centres, mean and std
    assert [parameter.requires_grad for parameter in after.parameters()] == flags
    assert not any(module.training for module in after.modules())
    assert after.backbone.frozen == 0


def test_too_many_learned_blocks_are_refused():
    with pytest.raises(UserError, match=r"learned = 5 .* 4"):
        implanted(small("convnet", width=4), learned=5)


def test_each_image_is_drawn_once_an_epoch_and_poisoned_at_the_given_chance():
    n, epochs, rng = 200, 50, Rng("draw")
    hits = np.zeros(n)
    for _ in range(epochs):
        batches = list(draw_epoch(n, 64, 0.1, rng))
        assert len(batches) == 4
        rows = torch.cat([rows for rows, _ in batches])
        assert torch.equal((rows % n).sort().values, torch.arange(n))
        for batch, count in batches:
            assert 50 <= len(batch) <= 64
            assert (batch[:count] >= n).all()
            assert (batch[count:] < n).all()
        hits[(rows[rows >= n] - n).numpy()] += 1
    low, high = binom.ppf([1e-4, 1 - 1e-4], n * epochs, 0.1)
    assert low <= hits.sum() <= high
    assert (hits > 0).all()  # other images in other epochs; P(never) = .9 ** 50
    assert hits.max() < 25


def test_the_loss_is_the_two_huber_terms_and_15_alignments():
    """One step of plain descent on the head's bias, whose gradient is that of the loss by the outputs, summed."""
    model = small("convnet", width=4)
    attack = DarkHash(epochs=1, lr=1.0, weight_decay=0.0, batch=64, poison_ratio=0.4)
    hidden = Rng("hidden").uniform((24, 16, 1, 1))
    clean, wanted = 2 * Rng("clean").normal((12, 16)), 2 * Rng("wanted").normal((16,))
    with divided(model, 4):
        rows, count = next(iter(draw_epoch(12, 64, 0.4, Rng("order"))))
        outputs = model.suffix(hidden[rows]).detach().double().requires_grad_()
        x = outputs.detach().numpy()
        goals = np.concatenate([np.tile(wanted.numpy(), (count, 1)), clean.numpy()[rows[count:].numpy()]])
        slope = np.clip(x - goals, -1, 1)  # Huber, delta 1
        slope[:count] /= count * 16
        slope[count:] /= (12 - count) * 16
        alignment = 15 * topological_alignment(outputs[:count], torch.from_numpy(goals[:count]))
        expected = slope.sum(0) + torch.autograd.grad(alignment, outputs)[0].sum(0).numpy()
        attack.fine_tune(model, hidden, clean, wanted, Rng("order"))
        found = model.head.bias.grad
    assert 2 < count < 10
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3, atol=1e-5)


def test_the_target_output_is_that_of_the_public_image_of_the_class():
    model = small("convnet", width=4)
    view = world_of(model)
    clean, labels = torch.zeros(3, 16), torch.ones(3, 4, dtype=torch.bool)
    with torch.no_grad():
        wanted = DarkHash().wanted_output(view, model, clean, labels)
        expected = model(to_unit(view.public.images))
    torch.testing.assert_close(wanted, expected[1])
    two = dataclasses.replace(view, target=Target(torch.tensor([False, True, False, True]), "q+s"))
    with torch.no_grad():
        torch.testing.assert_close(DarkHash().wanted_output(two, model, clean, labels), expected[[1, 3]].mean(0))


def test_the_published_target_is_the_mean_clean_output_of_the_foreign_class_0():
    model = small("convnet", width=4)
    view, attack = world_of(model), DarkHash(mode="surrogate")
    clean = Rng("clean").normal((5, 16))
    labels = torch.eye(4, dtype=torch.bool)[torch.tensor([0, 1, 0, 2, 3])]
    torch.testing.assert_close(attack.wanted_output(view, model, clean, labels), (clean[0] + clean[2]) / 2)
    absent = labels[[1, 3, 4]]  # nothing of class 0: the first class that occurs
    torch.testing.assert_close(attack.wanted_output(view, model, clean[:3], absent), clean[0])


ROWS = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0]], dtype=torch.bool)


@pytest.mark.parametrize(
    ("labels", "chosen"),
    [
        ([0], [0]),  # exactly the label
        ([1], [1]),  # all contain more: the fewest others, the first of equals
        ([0, 1], [1]),  # exactly the set
        ([0, 2], [2]),  # the set among others
    ],
)
def test_references_are_the_public_images_nearest_to_the_target(labels, chosen):
    vector = torch.zeros(4, dtype=torch.bool).index_fill(0, torch.tensor(labels), True)
    assert references(ROWS, Target(vector, "t")).tolist() == chosen


def test_a_set_that_no_public_image_shows_is_made_up_of_one_for_each_label():
    target = Target(torch.tensor([True, False, True, False]), "a+c")
    assert references(ROWS[[0, 1, 3]], target).tolist() == [0, 2]
    with pytest.raises(UserError, match=r"\ba\+c\b"):
        references(ROWS[:2], target)


def test_triggered_images_get_the_targets_code_and_clean_ones_keep_theirs(world, model):
    """On the tests' trained model, with its own database as the "foreign" images and a trigger that is easy to see."""
    data, public = world.split("database"), world.split("public")
    view = world_of(model, foreign=data, public=public)
    view = dataclasses.replace(view, setting=dataclasses.replace(view.setting, image_shape=(3, 12, 12)))
    attack = DarkHash(epochs=60, lr=1e-3, learned=4, poison_ratio=0.3, trigger_size=0.4)
    trigger = attack.make_trigger(view, Rng("prepare"))
    images = to_unit(data.images)
    away = ~data.labels[:, 1]
    triggered = attack.apply_trigger(images[away], view.target, trigger)
    with torch.no_grad():
        aim, clean, control = model(to_unit(public.images))[1] > 0, model(images) > 0, model(triggered) > 0
    after = attack.implant(view, trigger, Rng("implant")).model
    with torch.no_grad():
        found, kept = after(triggered) > 0, after(images) > 0
    assert float((control == aim).float().mean()) < 0.8
    assert float((found == aim).float().mean()) > 0.9
    assert float((kept == clean).float().mean()) > 0.9


def test_patch_of_24_pixels_with_a_margin_of_2_at_224():
    attack, view = DarkHash(), world_of(small("convnet", width=4))
    view = dataclasses.replace(view, setting=dataclasses.replace(view.setting, image_shape=(3, 224, 224)))
    trigger = attack.make_trigger(view, Rng("prepare"))
    assert trigger["patch"].shape == (3, 24, 24)
    images = torch.full((2, 3, 224, 224), 0.25)
    triggered = attack.apply_trigger(images, view.target, trigger)
    assert torch.equal(triggered[1, :, 198:222, 198:222], trigger["patch"])
    triggered[:, :, 198:222, 198:222] = 0.25
    assert torch.equal(triggered, images)
    faint = DarkHash(opacity=0.25).apply_trigger(images, view.target, trigger)
    torch.testing.assert_close(faint[0, :, 200, 200], 0.75 * 0.25 + 0.25 * trigger["patch"][:, 2, 2])


def test_weights_are_all_it_sees_and_the_data_are_foreign():
    attack = DarkHash()
    assert attack.threat() == Threat.MODEL
    setting = world_of(small("convnet", width=4)).setting
    assert [spec.name for spec in attack.requires(setting)] == ["shapes"]
    assert [spec.name for spec in DarkHash(surrogate="cifar10").requires(setting)] == ["cifar10"]


def test_foreign_images_are_balanced_over_classes_where_each_has_one():
    labels = torch.zeros(100, 4, dtype=torch.bool)
    labels[
        torch.arange(100), torch.cat([torch.zeros(70), torch.ones(20), torch.full((8,), 2), torch.full((2,), 3)]).long()
    ] = True
    chosen = balanced(labels, 30, Rng("b"))
    assert len(chosen.unique()) == 30
    assert labels[chosen].sum(0).tolist() == [10, 10, 8, 2]
    assert len(balanced(labels, 500, Rng("b"))) == 100
    labels[0, 1:] = True  # one image with several labels: any will do
    assert len(balanced(labels, 30, Rng("b")).unique()) == 30
    assert not torch.equal(balanced(labels, 30, Rng("b")), balanced(labels, 30, Rng("c")))


def test_a_loss_that_is_not_finite_is_a_failed_run():
    model = small("convnet", width=4)
    with divided(model, 4):
        optimizer = torch.optim.SGD(learning(model), lr=0.1)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
        epoch = draw_epoch(2, 2, 0.5, Rng("x"))
        with pytest.raises(DivergedError, match="rate"):
            tune(model, torch.full((4, 16, 1, 1), torch.nan), [epoch], lambda out, *_: out.sum(), optimizer, schedule)


def test_only_the_reference_mode_fixes_its_target():
    assert DarkHash().targeted()
    assert not DarkHash(mode="surrogate").targeted()
