"""BadHash's networks and losses: by hand, and the sizes of the paper."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

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
from bench.api.errors import DivergedError
from bench.api.random import Rng

CPU = torch.device("cpu")


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


def test_a_rebuilt_generator_draws_the_same_and_no_dice(untouched_rng):
    shape = (1, 16, 16)
    with Rng("net").ambient():
        trunk = Trunk(shape, width=4)
    images, condition = Rng("i").uniform((2, *shape)), Rng("c").normal(shape)
    with untouched_rng(), torch.no_grad():
        again = rebuilt_trunk(shape, width=4, state=trunk.state_dict())
        assert torch.equal(again(images, condition), trunk(images, condition))
