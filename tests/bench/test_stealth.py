"""How visible a change is."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch

from bench.api.random import Rng
from bench.artifacts.stealth import linf, psnr, ssim, stealth_metrics

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure


def pair(n: int, shape: tuple[int, int, int], strength: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    rng = Rng("tests", "stealth", *shape)
    a = rng.integers(256, (n, *shape))
    b = (a + rng.integers(2 * strength + 1, (n, *shape)) - strength).clamp(0, 255)
    return a.to(torch.uint8), b.to(torch.uint8)


def slow_ssim(a: np.ndarray, b: np.ndarray, taps: int) -> float:
    """Wang et al. 2004 position by position: one image [c h w] in [0, 1]."""
    x = np.arange(taps) - taps // 2
    bell = np.exp(-(x**2) / (2 * 1.5**2))
    window = np.outer(bell, bell) / bell.sum() ** 2
    values = []
    for p, q in zip(a, b, strict=True):
        for i in range(p.shape[0] - taps + 1):
            for j in range(p.shape[1] - taps + 1):
                u, v = p[i : i + taps, j : j + taps], q[i : i + taps, j : j + taps]
                mu, mv = (window * u).sum(), (window * v).sum()
                su, sv = (window * (u - mu) ** 2).sum(), (window * (v - mv) ** 2).sum()
                suv = (window * (u - mu) * (v - mv)).sum()
                c1, c2 = 0.01**2, 0.03**2
                values.append((2 * mu * mv + c1) * (2 * suv + c2) / ((mu**2 + mv**2 + c1) * (su + sv + c2)))
    return float(np.mean(values))


@pytest.mark.parametrize(
    ("shape", "taps"),
    [((3, 8, 8), 7), ((1, 9, 9), 9), ((3, 10, 20), 9), ((1, 11, 11), 11), ((3, 16, 13), 11), ((1, 2, 2), 1)],
)
def test_ssim_position_by_position_with_the_largest_window_that_fits(shape, taps):
    a, b = pair(3, shape)
    expected = [slow_ssim(p / 255, q / 255, taps) for p, q in zip(a.numpy(), b.numpy(), strict=True)]
    np.testing.assert_allclose(ssim(a, b), expected, atol=2e-5)


def test_ssim_equals_torchmetrics_away_from_the_border_that_it_pads():
    a, b = pair(4, (3, 32, 32))
    _, everywhere = structural_similarity_index_measure(
        a / 255, b / 255, gaussian_kernel=True, sigma=1.5, kernel_size=11, data_range=1.0, reduction="none",
        return_full_image=True,
    )  # fmt: skip
    inside = everywhere[..., 5:-5, 5:-5].flatten(1).mean(1)
    torch.testing.assert_close(ssim(a, b), inside, rtol=0, atol=1e-5)


def test_psnr_equals_torchmetrics_and_its_definition():
    a, b = pair(4, (3, 12, 12))
    theirs = [float(peak_signal_noise_ratio(p / 255, q / 255, data_range=1.0)) for p, q in zip(a, b, strict=True)]
    assert psnr(a, b).tolist() == pytest.approx(theirs, abs=1e-3)
    one = torch.zeros(1, 1, 2, 2, dtype=torch.uint8)
    other = one.clone()
    other[0, 0, 0, 0] = 51  # 0.2: mean square error 0.01
    assert float(psnr(one, other)) == pytest.approx(20, abs=1e-4)


def test_linf_is_the_largest_difference_of_any_pixel_either_way():
    a = torch.full((2, 3, 4, 4), 100, dtype=torch.uint8)
    b = a.clone()
    b[0, 2, 3, 1], b[0, 0, 0, 0] = 49, 110
    b[1, 1, 0, 2] = 255
    assert linf(a, b).tolist() == pytest.approx([51 / 255, 155 / 255])


def test_equal_images():
    a, _ = pair(2, (3, 8, 8))
    assert linf(a, a).tolist() == [0, 0]
    assert psnr(a, a).tolist() == [math.inf] * 2
    assert ssim(a, a).tolist() == pytest.approx([1, 1], abs=1e-6)


def test_an_unchanged_image_has_no_area_and_neither_psnr_nor_contrast():
    a, _ = pair(5, (1, 16, 16))
    assert stealth_metrics(a, a).tolist() == [[0.0, float("inf"), pytest.approx(1.0), 0.0, float("inf")]] * len(a)


def test_columns_of_measure_and_an_empty_set():
    a, b = pair(5, (1, 16, 16))
    assert torch.equal(stealth_metrics(a, b)[:, :3], torch.stack([linf(a, b), psnr(a, b), ssim(a, b)], 1))
    assert stealth_metrics(a[:0], b[:0]).shape == (0, 5)


def test_images_are_measured_alone():
    a, b = pair(4, (3, 16, 16))
    for i in range(4):
        torch.testing.assert_close(stealth_metrics(a[i : i + 1], b[i : i + 1])[0], stealth_metrics(a, b)[i])
