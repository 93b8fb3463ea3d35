"""SIG against BackdoorBench.

Repository SCLBD/BackdoorBench, commit 988bbe3: utils/bd_img_transform/sig.py (sigTrigger). It cuts the sum off to 8
bits, we round it.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.api.random import Rng
from bench.api.types import to_unit
from bench.conformance.attacks import attacker_view_for
from tests.fidelity.inputs import numbers, smooth


@pytest.mark.parametrize(("delta", "frequency"), [(40, 6), (20, 6), (60, 3)])
def test_images_are_the_released_ones_before_they_are_cut_off(delta, frequency, world, quick):
    attack = quick("attacks", "sig", delta=delta / 255, frequency=float(frequency))
    view = attacker_view_for(world, attack)
    view = replace(view, setting=replace(view.setting, image_shape=(3, 32, 48)))
    images = to_unit(torch.from_numpy(smooth(3, 32, 48, seed=930)[None]))
    ours = 255 * attack.apply_trigger(images, view.target, attack.make_trigger(view, Rng("prepare")))[0].numpy()
    lost = ours[:, ::4] - numbers("sig")[f"{delta}_{frequency}"]
    assert lost.min() > -1e-3
    assert lost.max() < 1 + 1e-3  # one level where the wave is zero up to roundoff
