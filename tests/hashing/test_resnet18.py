"""ResNet-18: the stem for small images."""

from __future__ import annotations

import pytest
import torch

from tests.hashing.networks import images_of, network


@pytest.mark.parametrize(
    ("shape", "stem", "side"),
    [((3, 32, 32), "auto", 4), ((3, 96, 96), "auto", 3), ((1, 64, 64), "auto", 2), ((3, 32, 32), "imagenet", 1)],
)
@torch.no_grad()
def test_resnet18_spares_small_images_the_early_downsampling(shape, stem, side):
    body = network("resnet18", shape, stem=stem).eval()
    seen = []
    body.blocks[4].register_forward_hook(lambda module, inputs, output: seen.append(output.shape[-2:]))
    assert body(images_of(1, shape)).shape == (1, 512)
    assert seen == [(side, side)]
