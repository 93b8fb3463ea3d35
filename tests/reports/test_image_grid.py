"""The layout of pictures: magnified differences, broken labels, columns of blocks, and a neutral style."""

from __future__ import annotations

import io

import numpy as np
import pytest

from reports import image_grid
from reports.image_grid import Block, Pair, paint
from tests.reports.picture_data import pixels, queries, strips


@pytest.mark.parametrize(
    ("change", "robust", "words"),
    [
        (0, False, "no difference"),
        (1, False, "difference\nx 250"),
        (20, False, "difference\nx 12"),
        (255, False, "difference\nx 1"),
    ],
)
def test_the_gain_is_stated(change, robust, words):
    before = np.zeros((1, 1, 8, 8), np.uint8)
    after = before.copy()
    after[0, 0, 0, 0] = change
    found, said = Pair(("a", "b"), before, after, robust).difference()
    assert said == words
    assert found[0, 0, 1, 1] == 128
    assert found.max() <= 255
    if change:
        assert found[0, 0, 0, 0] > 240


def test_a_patch_does_not_hide_the_perturbation_beside_it():
    rng = np.random.default_rng(0)
    before = np.full((2, 3, 32, 32), 100, np.uint8)
    after = (before + rng.integers(-8, 9, before.shape)).astype(np.uint8)
    after[..., -3:, -3:] = 255
    plain, words = Pair(("a", "b"), before, after).difference()
    assert words == "difference\nx 1.6"
    clear, words = Pair(("a", "b"), before, after, robust=True).difference()
    assert words == "difference\nx 31, clipped"
    assert plain[..., :20, :20].std() < 10 < 50 < clear[..., :20, :20].std()


def ink(image):
    """Where something is drawn."""
    return (image != 255).any(2)


def test_long_labels_are_broken_inside_their_block():
    pictures = queries().numpy()
    label = f"attack(path=/a/{'very' * 60}/long, note=a few words more and more and $more_$)"
    for text in (label, "short"):
        content = paint([Block(text, (label, label), (Pair(("a", "b"), pictures, pictures),))], "png")
        sheet = pixels(io.BytesIO(content))
        marked = ink(sheet)
        assert marked[:, : image_grid.MARGIN - 1].sum() == 0
        assert marked[:, -(image_grid.MARGIN - 1) :].sum() == 0
        assert marked[:40].sum() > 0
        top = strips(sheet)[0] - 1
        assert not marked[top - 2].any(), "no text touches the pictures"


def test_many_blocks_stand_in_columns():
    pictures = queries().numpy()
    block = Block("x", (), (Pair(("a", "b"), pictures, pictures),))
    one, many = (pixels(io.BytesIO(paint([block] * count, "png", tallest=1000))) for count in (1, 10))
    assert many.shape[0] <= 1000 + one.shape[0]
    assert many.shape[1] >= 3 * (one.shape[1] - 2 * image_grid.MARGIN)


def test_a_users_style_moves_nothing(monkeypatch):
    import matplotlib as mpl

    pictures = queries().numpy()
    block = Block("x", ("y",), (Pair(("a", "b"), pictures, pictures),))
    plain = paint([block], "png")
    monkeypatch.setitem(mpl.rcParams, "savefig.bbox", "tight")
    monkeypatch.setitem(mpl.rcParams, "font.size", 30.0)
    monkeypatch.setitem(mpl.rcParams, "axes.facecolor", "black")
    assert paint([block], "png") == plain
    assert mpl.rcParams["savefig.bbox"] == "tight", "and nothing of the user's is changed"
