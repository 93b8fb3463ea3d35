"""Foreign images against Pillow and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from attacks.helpers.proxy_data import CHUNK, balanced, fit_to
from bench.api.errors import UserError
from bench.api.random import Rng


def images(n: int, *shape: int) -> torch.Tensor:
    return Rng("tests", "foreign", n, *shape).integers(256, (n, *shape)).to(torch.uint8)


@pytest.mark.parametrize("size", [(8, 8), (12, 20), (48, 40)])
def test_resizing_is_pillows_bilinear(size):
    """Pillow filters when it shrinks, as antialias does; it rounds after each direction, hence one level of play."""
    given = images(3, 3, 24, 24)
    ours = fit_to(given, (3, *size))
    for image, mine in zip(given, ours, strict=True):
        pil = Image.fromarray(image.permute(1, 2, 0).numpy()).resize(size[::-1], Image.Resampling.BILINEAR)
        theirs = torch.from_numpy(np.array(pil)).permute(2, 0, 1)
        assert int((mine.int() - theirs.int()).abs().max()) <= 1


def test_colour_turns_grey_by_luma_and_grey_turns_to_colour_by_repetition():
    colour = torch.tensor([[255, 0, 0, 100], [0, 255, 0, 100], [0, 0, 255, 100]], dtype=torch.uint8).view(1, 3, 2, 2)
    grey = fit_to(colour, (1, 2, 2))
    assert grey.flatten().tolist() == [76, 150, 29, 100]  # .299, .587, .114 of 255, rounded
    back = fit_to(grey, (3, 2, 2))
    assert torch.equal(back, grey.expand(-1, 3, -1, -1))


def test_images_of_the_right_shape_are_handed_on_and_odd_channels_are_refused():
    given = images(4, 2, 6, 6)
    assert fit_to(given, (2, 6, 6)) is given
    assert fit_to(given, (2, 3, 3)).shape == (4, 2, 3, 3)
    for channels in (1, 3):
        with pytest.raises(UserError, match=rf"\b2 channels.*\b{channels}\b"):
            fit_to(given, (channels, 6, 6))


def test_pieces_do_not_show():
    given = images(CHUNK + 2, 1, 4, 4)
    whole = fit_to(given, (3, 6, 6))
    assert len(whole) == CHUNK + 2
    assert torch.equal(whole[-1], fit_to(given[-1:], (3, 6, 6))[0])


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
