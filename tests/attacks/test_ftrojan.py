"""The frequencies that FTrojan adds, read back with scipy's transform from images in YCrCb."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.fft import dctn

from bench.api.random import Rng
from bench.conformance.attacks import attacker_view_for

TO_YCRCB = np.array([[0.299, 0.587, 0.114], [0.713 * 0.701, -0.713 * 0.587, -0.713 * 0.114],
                     [-0.564 * 0.299, -0.564 * 0.587, 0.564 * 0.886]])  # fmt: skip


def triggered(world, quick, shape, **params):
    attack = quick("attacks", "ftrojan", rounding=False, **params)
    view = attacker_view_for(world, attack)
    view = replace(view, setting=replace(view.setting, image_shape=shape))
    images = torch.full((1, *shape), 0.5)  # far from the borders: nothing is clipped
    after = attack.apply_trigger(images, view.target, attack.make_trigger(view, Rng("prepare", 0)))
    return 255 * (after - images)[0].double().numpy()


@pytest.mark.parametrize(("shape", "block", "places"), [((3, 64, 64), 32, (15, 31)), ((3, 16, 16), 16, (7, 15))])
def test_every_block_holds_the_magnitude_at_two_coefficients_of_both_colour_channels(
    shape, block, places, world, quick
):
    change = np.einsum("yc,chw->yhw", TO_YCRCB, triggered(world, quick, shape, magnitude=20.0))
    assert np.abs(change[0]).max() < 0.5, "luminance stays"
    for channel in change[1:]:
        for top in range(0, shape[1], block):
            for left in range(0, shape[2], block):
                found = dctn(channel[top : top + block, left : left + block], norm="ortho")
                expected = np.zeros((block, block))
                expected[places, places] = 20
                assert found == pytest.approx(expected, abs=0.2)


def test_grey_images_take_it_on_their_channel(world, quick):
    found = dctn(triggered(world, quick, (1, 32, 32))[0], norm="ortho")
    assert found[15, 15] == pytest.approx(30, abs=1e-3)
    assert found[31, 31] == pytest.approx(30, abs=1e-3)
    found[[15, 31], [15, 31]] = 0
    assert np.abs(found).max() < 1e-3


def test_sizes_that_are_no_multiple_of_a_block_are_covered(world, quick):
    change = triggered(world, quick, (3, 40, 50))
    assert (np.abs(change) > 0).any(0).mean() > 0.9
