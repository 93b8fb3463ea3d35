"""The filter against scipy's, which the authors' code calls with mode="reflect"."""

from __future__ import annotations

import pytest
import torch
from scipy.ndimage import median_filter

from bench.api.random import Rng
from defenses.median import Median


@pytest.mark.parametrize("window", [2, 3, 4, 5])
@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 9, 6)])
def test_it_is_scipys_filter(shape: tuple[int, int, int], window: int) -> None:
    image = Rng("image").uniform(shape)
    expected = median_filter(image.numpy(), size=(1, window, window), mode="reflect")
    assert torch.equal(Median(window=window).purify(image, Rng("unused")), torch.from_numpy(expected)[None])


def test_a_single_bright_pixel_vanishes() -> None:
    image = torch.zeros(1, 6, 6)
    image[0, 2, 3] = 1
    assert not Median().purify(image, Rng("unused")).any()
