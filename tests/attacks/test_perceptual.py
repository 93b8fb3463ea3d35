"""The perceptual distance: LPIPS by its formula, its substitute by hand, and weight files that are not opened."""

from __future__ import annotations

import zipfile

import pytest
import torch
from torch import nn

from attacks.helpers.perceptual import gradients, perceptual
from bench.api.errors import DataCorruptError, UserError
from bench.api.random import Rng

CPU = torch.device("cpu")


def test_the_substitute_by_hand():
    """A single bright pixel: two unit steps along each axis, then a quarter and a sixteenth of it."""
    a, b = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    a[0, 0, 1, 1] = 1
    fine = 2 * 1 / 12  # of 12 neighbours along an axis, two differ by 1
    half = 1 * 0.25**2 / 2  # 2 x 2: one of two neighbours differs by a quarter
    assert float(gradients(a, b)) == pytest.approx((fine * 2 + half * 2) / 4)
    assert float(gradients(a, a)) == 0
    assert float(gradients(a + 0.3, a)) == pytest.approx(0, abs=1e-12)


def test_lpips_without_weights_says_how_to_get_them(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert perceptual("auto", CPU) == (gradients, False)
    with pytest.raises(UserError, match="pip install lpips") as error:
        perceptual("lpips", CPU)
    assert "\n" not in str(error.value)


def test_lpips_is_its_formula_and_has_gradients(lpips_weights):
    _, state, file = lpips_weights
    linear = torch.load(file)
    distance, is_lpips = perceptual("auto", CPU)
    assert is_lpips
    a, b = Rng("a").uniform((2, 3, 64, 64)), Rng("b").uniform((2, 3, 64, 64))

    def maps(images):
        shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        x, out = (2 * images - 1 - shift.view(1, 3, 1, 1)) / scale.view(1, 3, 1, 1), []
        for layer, stride, pad, pool in ((0, 4, 2, 0), (3, 1, 2, 1), (6, 1, 1, 1), (8, 1, 1, 0), (10, 1, 1, 0)):
            x = nn.functional.max_pool2d(x, 3, 2) if pool else x
            weight, bias = state[f"features.{layer}.weight"], state[f"features.{layer}.bias"]
            x = nn.functional.conv2d(x, weight, bias, stride=stride, padding=pad).relu()
            out.append(x / (x.norm(dim=1, keepdim=True) + 1e-10))
        return out

    expected = sum(
        ((one - other) ** 2 * linear[f"lin{i}.model.1.weight"]).sum(1).mean()
        for i, (one, other) in enumerate(zip(maps(a), maps(b), strict=True))
    )
    torch.testing.assert_close(distance(a, b), expected, rtol=1e-4, atol=1e-5)
    assert float(distance(a, a)) == 0
    grey = torch.zeros(1, 1, 16, 16, requires_grad=True)
    distance(grey, torch.ones(1, 1, 16, 16)).backward()
    assert grey.grad.isfinite().all()


def test_a_broken_weight_file_is_not_opened(lpips_weights):
    backbone = lpips_weights[0]
    backbone.write_bytes(b"x" + backbone.read_bytes())
    with pytest.raises(DataCorruptError, match="alexnet-owt"):
        perceptual("lpips", CPU)


def test_weights_that_unpack_without_end_are_not_opened(lpips_weights):
    *_, linear = lpips_weights
    with zipfile.ZipFile(linear) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(linear, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(DataCorruptError, match=r"alex\.pth.*compressed"):
        perceptual("lpips", CPU)
