"""LIRA's two networks against numbers of the authors' code, and images of any size."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attacks.helpers.noise_networks import Autoencoder, NoiseNetwork, UNet
from bench.api.random import Rng


def wave(shape: torch.Size, start: int = 0) -> Tensor:
    return torch.sin(start + torch.arange(shape.numel(), dtype=torch.float64) ** 2).view(shape).float()


def filled(network: NoiseNetwork) -> NoiseNetwork:
    """Sines as weights, in the order of the layers."""
    with torch.no_grad():
        for index, (name, value) in enumerate(network.state_dict().items()):
            made = wave(value.shape, index)
            if value.ndim == 4:
                value.copy_(1.5 * made / value[0].numel() ** 0.5)
            elif value.is_floating_point():
                value.copy_(1 + made / 2 if name.endswith(("weight", "running_var")) else made / 5)
    return network.eval()


# Made by the authors' classes with these weights, for images from -1 to 1: `Autoencoder` of the repository
# khoadoan106/backdoor_attacks, python/attack_models/autoencoders.py (commit 65744ad), and `UNet` of
# sunbelbd/invisible_backdoor_attacks, paddle/python/attack_models/unet.py (commit 07f38cd), as the repository
# SCLBD/BackdoorBench has it for torch in attack/lira.py (commit 3f4b1a9).
AUTHORS = {
    "autoencoder": (
        Autoencoder(3, 16), 346659, (-0.02655, 0.37003, 0.90342), (0.12667, -0.30543, -0.28536, -0.56005),
        (-0.08551, 0.13264, -0.41372, -0.05852),
    ),
    "unet": (
        UNet(3, 64), 7788681, (-0.04887, 0.64472, 0.96874), (0.69495, 0.77004, 0.58419, 0.48615),
        (-0.49021, -0.67956, -0.57919, -0.49829),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", AUTHORS)
def test_the_authors_code_gives_the_same_noise(name):
    network, count, moments, first, last = AUTHORS[name]
    assert sum(value.numel() for value in network.parameters()) == count
    scaled = wave(torch.Size([2, 3, 32, 32]))
    with torch.no_grad():
        noise = filled(network)((scaled + 1) / 2)
    found = [float(value) for value in (noise.mean(), noise.std(), noise.abs().max())]
    assert found == pytest.approx(moments, abs=1e-3)
    assert noise[0, 0, 0, :4].tolist() == pytest.approx(first, abs=1e-3)
    assert noise[1, 2, 31, -4:].tolist() == pytest.approx(last, abs=1e-3)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from([Autoencoder, UNet]), st.sampled_from([1, 3]), st.integers(1, 40), st.integers(1, 40))
def test_images_of_any_size_get_noise_of_their_own(kind, channels, height, width):
    with Rng("network").ambient():
        network = kind(channels, 2).eval()
    images = Rng("images").uniform((2, channels, height, width))
    with torch.no_grad():
        noise, alone = network(images), network(images[1:])
    assert noise.shape == images.shape
    assert float(noise.abs().max()) <= 1
    torch.testing.assert_close(alone[0], noise[1], rtol=0, atol=1e-5)
