"""Patches by hand, pixel by pixel."""

from __future__ import annotations

import pytest
import torch

from attacks.helpers.triggers import checkerboard, garbled, paste, patch_side
from bench.api.random import Rng
from hashing.pretrained import IMAGENET


@pytest.mark.parametrize(
    ("share", "shape", "side"),
    [(24 / 224, (3, 224, 224), 24), (24 / 224, (3, 32, 32), 3), (24 / 224, (1, 16, 16), 2), (24 / 224, (3, 8, 8), 1),
     (0.01, (3, 8, 8), 1), (0.5, (3, 10, 40), 5), (0.5, (3, 40, 10), 5), (1.0, (1, 7, 7), 7)],
)  # fmt: skip
def test_the_patch_takes_a_share_of_the_shorter_side(share, shape, side):
    assert patch_side(share, shape) == side


def test_the_checkerboard_is_white_in_its_corners():
    board = checkerboard(2, 3)
    assert board.tolist() == [[[1, 0, 1], [0, 1, 0], [1, 0, 1]]] * 2
    board[0] = 7  # channels do not share memory
    assert board[1].tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]


def test_paste_does_not_write_to_its_input():
    images = torch.zeros(1, 1, 3, 3)
    paste(images, torch.ones(1, 2, 2))
    assert not images.any()


def test_garbled_is_what_torchvision_makes_of_normalised_images():
    """Normalise, ToPILImage, ToTensor as in DarkHash's code (Zhou-Zi7/DarkHash, 8aa227e), image by image."""
    from torchvision import transforms

    images = Rng("tests", "garbled").integers(256, (3, 3, 40, 40)).float() / 255
    path = transforms.Compose(
        [transforms.Normalize(*IMAGENET), transforms.ToPILImage(mode="RGB"), transforms.ToTensor()]
    )
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in IMAGENET)
    assert torch.equal(garbled(images, mean, std), torch.stack([path(image) for image in images]))


def test_garbled_by_hand():
    """(x - 1/2) * 4 is -2, -1/2, 0, 1/4, 1, 2; times 255, cut towards zero, modulo 256."""
    images = torch.tensor([0, 0.375, 0.5, 0.5625, 0.75, 1]).view(1, 1, 1, 6)
    found = garbled(images, torch.full((1, 1, 1, 1), 0.5), torch.full((1, 1, 1, 1), 0.25))
    assert (found * 255).round().flatten().tolist() == [-510 + 512, -127 + 256, 0, 63, 255, 510 - 256]
