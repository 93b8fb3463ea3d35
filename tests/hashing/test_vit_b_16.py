"""ViT-B/16: positions of a file's grid for images of another size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bench.api import registry
from bench.api.errors import DataCorruptError
from tests.hashing.networks import images_of, state_of


@torch.no_grad()
def test_transformers_positions_are_interpolated_to_the_images_side(tiny_transformer, tmp_path):
    state = state_of(tiny_transformer)
    torch.save(state, tmp_path / "vit.pth")
    made = registry.create("backbones", "vit_b_16", {"weights": str(tmp_path / "vit.pth")})
    grid = state["encoder.pos_embedding"][0, 1:].reshape(14, 14, 8)
    positions = made.build((3, 60, 64)).blocks[0][1].positions  # behind the enlargement
    assert positions.shape == (1, 17, 8)
    torch.testing.assert_close(positions[0, 0], state["encoder.pos_embedding"][0, 0])
    torch.testing.assert_close(positions[0, 1:].reshape(4, 4, 8)[::3, ::3], grid[::13, ::13])  # corners stay corners
    whole = tiny_transformer()
    whole.load_state_dict(state)
    whole.heads = nn.Identity()
    images = images_of(2, (3, 224, 224))
    body = made.build((3, 224, 224)).eval()
    torch.testing.assert_close(body(images), whole.eval()(images), rtol=1e-4, atol=1e-5)


def test_transformers_file_without_a_square_of_positions_is_refused(tiny_transformer, tmp_path):
    state = state_of(tiny_transformer)
    state["encoder.pos_embedding"] = torch.zeros(1, 12, 8)
    torch.save(state, tmp_path / "vit.pth")
    made = registry.create("backbones", "vit_b_16", {"weights": str(tmp_path / "vit.pth")})
    with pytest.raises(DataCorruptError, match=r"\(1, 12, 8\)"):
        made.build((3, 32, 32))
    del state["encoder.pos_embedding"]
    torch.save(state, tmp_path / "vit.pth")
    with pytest.raises(DataCorruptError, match=r"vit_b_16.*'encoder\.pos_embedding'"):
        made.build((3, 32, 32))
