"""WaNet's grid, warped images and noise mode against the authors' code.

Repository VinAIResearch/Warping-based_Backdoor_Attack-release, commit 4654af7: train.py (noise_grid and identity_grid
in `main`, grid_temps, grid_temps2, inputs_bd and inputs_cross in `train`), with given numbers in place of torch.rand.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from attacks.wanet import WaNet
from bench.api.random import Rng
from bench.api.types import Split, to_unit
from tests.attacks.conftest import victim
from tests.fidelity.inputs import numbers, real, smooth

RELEASED = numbers("wanet")
CASES = [(32, 3, 4, 0.5), (32, 3, 8, 1.0), (28, 1, 4, 0.5), (28, 1, 8, 1.0)]


class Given(Rng):
    """Uniform numbers that are given; all else is drawn."""

    def uniform(self, shape):
        if shape[-1] == 2:  # the noise of several images
            return (real(1, *shape[1:], seed=920, scale=0.5) + 0.5).expand(shape)
        return real(*shape, seed=900 + shape[-1], scale=0.5) + 0.5

    def child(self, *names):
        return self if names == ("noise",) else super().child(*names)


def ready(size: int, channels: int, grid: int, strength: float):
    plain = torch.from_numpy(smooth(channels, size, size, seed=910))
    attack, view = WaNet(grid=grid, strength=strength), victim(20, (channels, size, size))
    train = Split(plain.expand(20, -1, -1, -1).clone(), view.train.labels, torch.arange(20))
    view = replace(view, granted={"train": train})
    return attack, view, attack.make_trigger(view, Given("prepare")), plain


@pytest.mark.parametrize(("size", "channels", "grid", "strength"), CASES)
def test_the_grid_and_a_warped_image(size, channels, grid, strength):
    attack, view, trigger, plain = ready(size, channels, grid, strength)
    np.testing.assert_allclose(trigger["grid"][::4, ::4].numpy(), RELEASED[f"grid_{size}_{grid}"], atol=1e-6)
    warped = 255 * attack.apply_trigger(to_unit(plain[None]), view.target, trigger)[0]
    np.testing.assert_allclose(warped[:, ::2, ::2].numpy(), RELEASED[f"image_{size}_{grid}"], atol=2e-3)


@pytest.mark.parametrize(("size", "channels", "grid", "strength"), CASES)
def test_the_noise_mode(size, channels, grid, strength):
    attack, view, trigger, _ = ready(size, channels, grid, strength)
    poisoned = attack.poison(view, trigger, Given("implant"))
    assert poisoned.cover is not None
    crossed = poisoned.split.images[poisoned.cover]
    assert len(crossed) == 2
    for image in crossed:
        off = image[:, ::2, ::2].float().numpy() - RELEASED[f"noisy_{size}_{grid}"]
        assert np.abs(off).max() <= 0.51, "8-bit pixels"
