"""BppAttack: dithering against a loop over pixels and against Pillow, and the negative images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from attacks.bppattack import BppAttack, dither
from bench.api.random import Rng
from bench.api.types import Target, to_unit
from bench.conformance.attacks import attacker_view_for

TARGET = Target(torch.tensor([True, False]), "a")


def row_by_row(image: np.ndarray) -> np.ndarray:
    out = np.pad(image.astype(np.float64), ((0, 1), (1, 1)))
    for y in range(image.shape[0]):
        for x in range(1, image.shape[1] + 1):
            error = out[y, x] - np.rint(out[y, x])
            out[y, x] -= error
            out[y, x + 1] += error * 7 / 16
            out[y + 1, x - 1 : x + 2] += error * np.array([3, 5, 1]) / 16
    return out[:-1, 1:-1]


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_dithering_goes_row_by_row(height, width, seed):
    images = 7 * Rng("d", seed).uniform((2, 2, height, width)).double()
    found = dither(images)
    for one, image in zip(found.flatten(0, 1).numpy(), images.flatten(0, 1).numpy(), strict=True):
        np.testing.assert_allclose(one, row_by_row(image), atol=1e-9)


def test_two_levels_are_pillows_black_and_white():
    """Pillow computes in whole numbers, after which pixels differ; the brightness of each place does not."""
    y, x = np.mgrid[0:64, 0:64]
    grey = (127.5 + 60 * np.sin(x / 7) + 50 * np.cos(y / 5)).astype(np.uint8)
    pillow = np.asarray(Image.fromarray(grey).convert("1")).astype(float)
    ours = dither(torch.from_numpy(grey)[None, None] / 255)[0, 0].numpy()
    assert {*np.unique(ours)} == {0.0, 1.0}
    places = [image.reshape(8, 8, 8, 8).mean((1, 3)) for image in (ours, pillow, grey / 255)]
    np.testing.assert_allclose(places[0], places[1], atol=0.07)
    np.testing.assert_allclose(places[0], places[2], atol=0.07)
    thresholded = (grey > 127).astype(float).reshape(8, 8, 8, 8).mean((1, 3))
    assert np.abs(thresholded - places[1]).max() > 0.3


@pytest.mark.parametrize("levels", [2, 8, 256])
def test_triggered_images_have_the_levels(levels):
    images = to_unit(Rng("i").integers(256, (3, 3, 12, 12)).to(torch.uint8))
    plain = BppAttack(levels=levels, dithering=False).apply_trigger(images, TARGET, {})
    torch.testing.assert_close(plain, (images * (levels - 1)).round() / (levels - 1))
    dithered = BppAttack(levels=levels).apply_trigger(images, TARGET, {})
    places = dithered * (levels - 1)
    assert float((places - places.round()).abs().max()) < 1e-4
    if levels == 256:  # 8-bit images have these levels already
        torch.testing.assert_close(dithered, images)
    else:
        assert float((dithered - plain).abs().max()) > 0


@pytest.mark.parametrize(("ratio", "rate", "negatives"), [(1.0, 0.1, 12), (0.0, 0.1, 0), (2.0, 0.5, 60)])
def test_negative_images_get_the_difference_of_another_image(world, ratio, rate, negatives):
    attack = BppAttack(poison_rate=rate, negative_ratio=ratio)
    view = attacker_view_for(world, attack)
    train = view.train
    poisoned = attack.poison(view, {}, Rng("i"))
    assert int(poisoned.cover.sum()) == negatives
    assert torch.equal(poisoned.split.labels[poisoned.cover], train.labels[poisoned.cover])
    reduced = attack.apply_trigger(to_unit(train.images), view.target, {}) - to_unit(train.images)
    found = to_unit(poisoned.split.images)
    for place in torch.nonzero(poisoned.cover).flatten()[:5]:
        possible = (to_unit(train.images[place : place + 1]) + reduced).clamp(0, 1)
        assert float((possible - found[place]).abs().amax((1, 2, 3)).min()) <= 0.5 / 255 + 1e-6
