"""Crops against Pillow's, and shifts against copies of the pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from bench.api.random import Rng
from defenses.augmented_vote import AugmentedVote


def windows(image: torch.Tensor, side: tuple[int, int], shift: int) -> list[torch.Tensor]:
    """Every window of this size on black, enlarged by Pillow to the size of the image."""
    _, height, width = image.shape
    black = np.zeros((len(image), height + 2 * shift, width + 2 * shift), dtype=np.float32)
    black[:, shift : shift + height, shift : shift + width] = image.numpy()
    found = []
    for top in range(black.shape[1] - side[0] + 1):
        for left in range(black.shape[2] - side[1] + 1):
            cut = black[:, top : top + side[0], left : left + side[1]]
            planes = [Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR) for plane in cut]
            found.append(torch.from_numpy(np.stack([np.array(plane) for plane in planes])))
    return found


@pytest.mark.parametrize(
    ("shape", "crop", "side", "shift"),
    [
        ((1, 16, 16), 0.75, (12, 12), 0),
        ((3, 10, 8), 0.5, (5, 4), 0),
        ((1, 6, 7), 1.0, (6, 7), 2),  # shifts alone
        ((3, 8, 8), 0.75, (6, 6), 1),
    ],
)
def test_copies_are_windows_drawn_from_all(
    shape: tuple[int, int, int], crop: float, side: tuple[int, int], shift: int
) -> None:
    image = Rng("image").uniform(shape)
    expected = torch.stack(windows(image, side, shift))
    found = AugmentedVote(copies=600, crop=crop, shift=shift).purify(image, Rng("windows"))
    assert found.shape == (600, *shape)
    differences = (found[:, None] - expected).abs().amax((2, 3, 4))
    nearest = differences.min(1)
    assert float(nearest.values.max()) < 1e-5
    counts = torch.bincount(nearest.indices, minlength=len(expected))
    assert int(counts.min()) > 0.2 * 600 / len(expected)  # every window, and none much too seldom


def test_the_defaults_are_30_crops_of_two_fifths_of_the_side() -> None:
    image = Rng("image").uniform((1, 10, 10))
    found = AugmentedVote().purify(image, Rng("windows"))
    assert len(found) == 30
    expected = torch.stack(windows(image, (4, 4), 0))
    assert float((found[:, None] - expected).abs().amax((2, 3, 4)).amin(1).max()) < 1e-5


def test_a_window_has_at_least_one_pixel() -> None:
    image = torch.rand(1, 4, 4)
    found = AugmentedVote(copies=3, crop=0.01).purify(image, Rng("windows"))
    assert all(len(torch.unique(version)) == 1 for version in found)
