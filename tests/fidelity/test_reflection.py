"""Reflections against BackdoorBox.

Repository THUYimingLi/BackdoorBox, commit 1520fe6: core/attacks/Refool.py (_add_trigger), with OpenCV 5.0, for square
images of the frame's size. It cuts pixels off to 8 bits, we round them.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from attacks.helpers.reflections import GAMMA, blurred, ghosted, reflect, vignette
from bench.api.types import to_unit
from tests.fidelity.inputs import numbers, smooth

SIDE = 48
CASES = {  # weight of the image; ghost: offset and share of the far copy; blur: sigma and attenuation
    0: (0.6, (3, 5), 1 - 0.3, 0.0, 0.0),
    1: (0.75, None, 0.0, 1.3, 1.1),
    2: (0.9, (4, 3), 0.2, 0.0, 0.0),
    3: (0.56, None, 0.0, 2.5, 1.17),
}


@pytest.mark.parametrize("number", CASES)
def test_an_image_with_a_reflection(number):
    weight, offset, share, sigma, attenuation = CASES[number]
    pair = [smooth(3, SIDE, SIDE, seed=seed + number).astype(int) for seed in (950, 970)]
    if number == 1:  # so bright that the reflection is darkened
        pair = [np.minimum(255, picture + 60) for picture in pair]
    image, layer = (to_unit(torch.from_numpy(picture.astype(np.uint8)[None])) for picture in pair)
    light = layer**GAMMA
    if offset:
        light = ghosted(light, torch.tensor([offset]).float(), torch.tensor([share]))
    else:
        light = blurred(light, torch.tensor([sigma]))
    ours = 255 * reflect(
        image, light, torch.tensor([weight]), torch.tensor([attenuation]), torch.tensor([offset is not None])
    )
    lost = ours[0].numpy() - numbers("reflection")[str(number)]
    assert lost.min() > -0.02
    assert lost.max() < 1.02


def test_the_glow_of_an_oblong_image_is_centred():
    """The deviation that the card states: BackdoorBox cuts a random part out of the square kernel."""
    oblong = vignette(24, SIDE)
    assert divmod(int(oblong.argmax()), SIDE) in {(y, x) for y in (11, 12) for x in (23, 24)}
