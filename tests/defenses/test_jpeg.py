"""Compression against torchvision's codec, which is another program around libjpeg."""

from __future__ import annotations

import warnings

import pytest
import torch
from torchvision import io

from bench.api.random import Rng
from bench.api.types import Images, to_unit
from defenses.jpeg import Jpeg

pytestmark = pytest.mark.skipif(
    not hasattr(io, "encode_jpeg"), reason="torchvision has no codecs since a later version"
)


def image_of(*shape: int) -> torch.Tensor:
    """A random 8-bit image."""
    return Rng("image").integers(256, shape).to(torch.uint8)


def torchvisions(image: torch.Tensor, quality: int) -> Images:
    with warnings.catch_warnings(action="ignore"):  # torchvision will drop its codecs
        return to_unit(io.decode_jpeg(io.encode_jpeg(image, quality))[None])


@pytest.mark.parametrize("quality", [5, 50, 75, 100])
@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 33, 20), (1, 1, 3)])
def test_it_is_the_file_that_torchvision_writes(shape: tuple[int, int, int], quality: int) -> None:
    image = image_of(*shape)
    found = Jpeg(quality=quality).purify(to_unit(image[None])[0], Rng("unused"))
    assert torch.equal(found, torchvisions(image, quality))


def test_the_default_is_quality_75_and_changes_the_image() -> None:
    image = image_of(1, 16, 16)
    found = Jpeg().purify(to_unit(image[None])[0], Rng("unused"))
    assert torch.equal(found, torchvisions(image, 75))
    assert not torch.equal(found, to_unit(image[None]))
