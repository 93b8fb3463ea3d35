"""Shrinking against Pillow's resizing, and the places of the shrunk image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from bench.api.errors import UserError
from bench.api.random import Rng
from defenses.shrink_pad import ShrinkPad


def shrunk(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Pillow's bilinear resizing, one colour at a time."""
    planes = [Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR) for plane in image.numpy()]
    return torch.from_numpy(np.stack([np.array(plane) for plane in planes]))


@pytest.mark.parametrize(("shape", "pixels"), [((1, 16, 16), 2), ((3, 32, 32), 4), ((3, 10, 14), 3)])
def test_the_image_shrinks_and_lies_at_every_place_on_black(shape: tuple[int, int, int], pixels: int) -> None:
    image = 0.1 + 0.9 * Rng("image").uniform(shape)
    height, width = shape[1] - pixels, shape[2] - pixels
    expected, places = shrunk(image, height, width), []
    for number in range(400):
        (found,) = ShrinkPad(pixels=pixels).purify(image, Rng("place", number))
        assert found.shape == shape
        rows, columns = (torch.nonzero(found.amax((0, other))).flatten() for other in (2, 1))
        top, left = int(rows[0]), int(columns[0])
        assert (int(rows[-1]), int(columns[-1])) == (top + height - 1, left + width - 1)
        torch.testing.assert_close(found[:, top : top + height, left : left + width], expected, atol=1e-5, rtol=0)
        places.append((top, left))
    counts = [places.count((top, left)) for top in range(pixels + 1) for left in range(pixels + 1)]
    assert sum(counts) == 400  # no other place
    assert min(counts) > 0.2 * 400 / len(counts)


def test_a_place_depends_on_the_generator_only() -> None:
    image = 0.1 + Rng("image").uniform((1, 8, 8)) / 2
    assert torch.equal(*(ShrinkPad(pixels=3).purify(image, Rng("place")) for _ in range(2)))


def test_images_that_would_vanish_are_refused() -> None:
    with pytest.raises(UserError, match="pixels = 8: expected less than 8"):
        ShrinkPad(pixels=8).purify(torch.rand(1, 8, 9), Rng("place"))
