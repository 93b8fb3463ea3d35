"""Patches by hand, pixel by pixel."""

from __future__ import annotations

import pytest
import torch

from attacks.helpers.triggers import checkerboard, paste, patch_side


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
