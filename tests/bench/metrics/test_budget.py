"""How much of an image a trigger changes, and by how much."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bench.artifacts.stealth import stealth_metrics
from bench.metrics.budget import stealth
from bench.metrics.context import AttackFacts

IMAGES = arrays.arrays(np.uint8, (3, 3, 5, 4))


def measured(before: np.ndarray, after: np.ndarray) -> dict[str, float | None]:
    values = stealth_metrics(torch.from_numpy(before), torch.from_numpy(after)).numpy()
    found = stealth(SimpleNamespace(attack=AttackFacts({}, values, np.zeros(0), trained=True)))
    return {name: found[name] for name in ("changed_area", "contrast")}


def test_a_patch_and_a_blend_by_hand() -> None:
    """A white patch of 2 x 2 on black images of 16 x 16; a blend of 20 % white over all of it; 8/255 is not visible."""
    black = np.zeros((2, 3, 16, 16), np.uint8)
    patch, blend, faint = black.copy(), black + np.uint8(51), black + np.uint8(8)
    patch[:, :, -2:, -2:] = 255
    assert measured(black, patch) == {"changed_area": 4 / 256, "contrast": 1.0}
    assert measured(black, blend) == {"changed_area": 1.0, "contrast": pytest.approx(0.2)}
    assert measured(black, faint) == {"changed_area": 0.0, "contrast": None}
    assert measured(black, faint + np.uint8(1)) == {"changed_area": 1.0, "contrast": pytest.approx(9 / 255)}


def test_the_largest_channel_counts_and_images_count_equally() -> None:
    """By hand: one image with changes of 100 and 50, in different channels, and one with a change of 200."""
    before = np.full((2, 3, 2, 2), 20, np.uint8)
    after = before.copy()
    after[0, 0, 0, 0], after[0, 1, 0, 0], after[0, 2, 1, 1] = 120, 60, 70
    after[1, 1, 0, 1] = 220
    assert measured(before, after) == {"changed_area": 3 / 8, "contrast": pytest.approx((75 + 200) / 2 / 255)}


@given(before=IMAGES, after=IMAGES)
def test_ranges_and_symmetry(before: np.ndarray, after: np.ndarray) -> None:
    found = measured(before, after)
    assert found == measured(after, before)
    area, contrast = found["changed_area"], found["contrast"]
    assert 0 <= area <= 1
    assert (contrast is None) == (area == 0)
    assert contrast is None or 8 / 255 < contrast <= 1
    order = np.random.default_rng(0).permutation(20)
    moved = [one.reshape(3, 3, 20)[:, :, order].reshape(one.shape) for one in (before, after)]
    again = measured(*moved)  # neither depends on where the pixels lie
    assert again["changed_area"] == area
    assert again["contrast"] == (contrast if contrast is None else pytest.approx(contrast))


@given(images=IMAGES, share=st.floats(0, 1))
def test_a_larger_patch_has_more_area(images: np.ndarray, share: float) -> None:
    dark = images // 2
    after, more = dark.copy(), dark.copy()
    rows = round(share * 5)
    after[:, :, :rows] = 255
    more[:, :, : min(5, rows + 1)] = 255
    assert measured(dark, after)["changed_area"] == pytest.approx(rows / 5)
    assert measured(dark, more)["changed_area"] >= rows / 5


def test_artifacts_of_older_versions_have_neither() -> None:
    old = AttackFacts({}, np.zeros((4, 3)), np.zeros(0), trained=True)
    assert stealth(SimpleNamespace(attack=old)).keys() == {"linf", "psnr", "ssim"}
    assert stealth(SimpleNamespace(attack=None)) is None
