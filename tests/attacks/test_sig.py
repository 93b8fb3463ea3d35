"""SIG: the sine wave against NumPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from attacks.helpers.triggers import add, sinusoid
from attacks.sig import Sig
from bench.api.attack import Threat
from bench.api.random import Rng
from bench.api.types import Target
from bench.conformance.attacks import attacker_view_for

TARGET = Target(torch.tensor([True, False]), "a")


@pytest.mark.parametrize(("width", "frequency", "used"), [(32, 6.0, 6), (16, 6.0, 6), (13, 6.0, 6), (12, 6.0, 5)])
def test_sig_adds_the_papers_sine_wave(width, frequency, used, world):
    attack = Sig(frequency=frequency)
    view = attacker_view_for(world, attack)
    view = replace(view, setting=replace(view.setting, image_shape=(2, 4, width)))
    images = Rng("tests", "sig").uniform((3, 2, 4, width))
    triggered = attack.apply_trigger(images, TARGET, attack.make_trigger(view, Rng("p")))
    wave = np.array([40 / 255 * np.sin(2 * np.pi * j * used / width) for j in range(width)])
    assert abs(wave).max() > 0.13  # no alias to nothing
    np.testing.assert_allclose(triggered.numpy(), np.clip(images.numpy() + wave, 0, 1), atol=1e-6)


def test_sig_by_hand():
    """A quarter of a period per column."""
    signal = sinusoid(0.2, 1.0, (1, 2, 4))
    torch.testing.assert_close(signal, torch.tensor([[[0, 0.2, 0, -0.2]] * 2]), rtol=0, atol=1e-7)
    triggered = add(torch.tensor([[[[0.5, 0.5, 0.5, 0.5], [0.0, 0.9, 1.0, 0.1]]]]), signal)
    torch.testing.assert_close(triggered, torch.tensor([[[[0.5, 0.7, 0.5, 0.3], [0.0, 1.0, 1.0, 0.0]]]]))
    assert Sig().labels == "clean"
    assert Threat.LABELS not in Sig().threat()
