"""ConvNet: its widths, and normalisation that looks at single images."""

from __future__ import annotations

import torch
from torch import nn

from tests.hashing.networks import images_of, network


def test_convnet_doubles_its_width_twice_and_halves_the_image_four_times():
    body = network("convnet", (3, 32, 32), width=6)
    widths = [module.out_channels for module in body.modules() if isinstance(module, nn.Conv2d)]
    assert widths == [6, 12, 24, 24]
    assert body.features == 24
    assert nn.Sequential(*body.blocks[:-1])(images_of(2, (3, 32, 32))).shape == (2, 24, 2, 2)
    assert not any(isinstance(module, nn.MaxPool2d | nn.AdaptiveMaxPool2d) for module in body.modules())


def test_convnet_with_group_norm_treats_images_alone_while_training():
    images = images_of(3, (3, 16, 16))
    grouped, batched = (network("convnet", (3, 16, 16), width=4, norm=norm).train() for norm in ("group", "batch"))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in grouped.modules())
    torch.testing.assert_close(grouped(images)[:1], grouped(images[:1]))
    assert not torch.allclose(batched(images)[:1], batched(images[:1]), atol=1e-3)
