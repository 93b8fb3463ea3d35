"""FTrojan against images made by the authors' code.

Repository FTrojanAttack/FTrojan, commit ac8cd14: data.py (poison_frequency) and image.py (RGB2YUV, DCT, IDCT, YUV2RGB),
with OpenCV 5.0 and the parameters of train.py.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bench.api.random import Rng
from bench.api.types import to_8bit, to_unit
from bench.conformance.attacks import attacker_view_for
from tests.fidelity.inputs import numbers, smooth


def triggered(world, quick, plain: np.ndarray, **params: object) -> torch.Tensor:
    attack = quick("attacks", "ftrojan", **params)
    view = attacker_view_for(world, attack)
    view = replace(view, setting=replace(view.setting, image_shape=plain.shape))
    images = to_unit(torch.from_numpy(plain)[None])
    return attack.apply_trigger(images, view.target, attack.make_trigger(view, Rng("prepare")))


@pytest.mark.parametrize("magnitude", [20, 30])
def test_colour_images_are_the_released_ones_up_to_the_darkening_by_roundoff(magnitude, world, quick):
    released = numbers("ftrojan")[f"colour_{magnitude}"].astype(int)
    ours = to_8bit(triggered(world, quick, smooth(3, 32, 64, seed=5), magnitude=magnitude))[0].numpy().astype(int)
    darker = ours - released
    assert set(np.unique(darker)) <= {0, 1}
    assert (darker == darker[:1]).all(), "one level of luminance: red, green and blue alike"


def test_without_rounding_the_trigger_is_weaker(world, quick):
    plain = smooth(3, 32, 64, seed=5)
    size = {
        rounding: (255 * triggered(world, quick, plain, rounding=rounding)[0].numpy() - plain).std()
        for rounding in (True, False)
    }
    assert size[False] == pytest.approx(0.87 * size[True], rel=0.03)


def test_grey_images_are_the_released_ones(world, quick):
    """The authors turn YUV off for grey images; nothing is rounded."""
    ours = 255 * triggered(world, quick, smooth(1, 32, 32, seed=9))[0].numpy()
    np.testing.assert_allclose(ours, numbers("ftrojan")["grey_30"], atol=1e-3)


def test_saturated_colours_are_clipped_where_the_released_code_overflows(world, quick):
    red = np.zeros((3, 32, 32), np.uint8)
    red[0] = 255
    ours = to_8bit(triggered(world, quick, red))[0].int()
    assert (ours[0] - 255).abs().max() < 12, "chrominance of pure red is 255 already; 256 must not become 0"
