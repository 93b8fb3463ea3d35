"""Enlarging many images, a group at a time (bench/test_large_data.py has the files that large data sets go through)."""

from __future__ import annotations

import torch
from torch.nn.functional import interpolate

from bench.api.random import Rng
from hashing.datasets.helpers.image_buffer import GROUP, enlarged


def test_groups_do_not_show() -> None:
    images = Rng("tests", "enlarged").integers(256, (GROUP + 3, 1, 4, 4)).to(torch.uint8)
    found = enlarged(images, 6)
    assert found.shape == (GROUP + 3, 1, 6, 6)
    for at in (0, GROUP - 1, GROUP, GROUP + 2):
        alone = interpolate(images[at : at + 1].float(), size=(6, 6), mode="bilinear").round().to(torch.uint8)
        assert torch.equal(found[at : at + 1], alone)
