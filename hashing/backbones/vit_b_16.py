"""torchvision's ViT-B/16, with ImageNet weights or from scratch."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from bench.api.card import Card
from bench.api.errors import DataCorruptError
from bench.api.hashing import FeatureExtractor, backbone
from bench.api.types import Images
from hashing.pretrained import Pretrained, PretrainedWeights, entrance

CARD = Card(
    name="ViT-B/16",
    title="An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale",
    venue="ICLR",
    year=2021,
    url="https://arxiv.org/abs/2010.11929",
    follows="torchvision's network and ImageNet weights (vit_b_16-c867db91, trained on ImageNet-1k alone); the feature"
    " is the class token after the last normalisation",
    deviates="images are enlarged (bilinear) to a square whose side is the smallest multiple of 16 pixels that is not"
    " below theirs, which changes the aspect ratio of images that are not square; position embeddings are interpolated"
    " to that side (bicubic, torchvision's function), also below 224 pixels, where few tokens are left (4 at 32"
    " pixels); the channel of grey images is repeated three times",
)
PATCH = 16  # pixels
BLOCKS = 12
LAST_STAGE = 3  # guess: a quarter of the blocks, since all have one resolution
POSITIONS = "encoder.pos_embedding"


def _side(image_shape: tuple[int, int, int]) -> int:
    return -(-max(image_shape[1:]) // PATCH) * PATCH


@backbone
class ViTB16(Pretrained):
    """Blocks: the tokens with their positions, twelve transformer blocks, the normalised class token."""

    published: ClassVar[PretrainedWeights] = PretrainedWeights("vit_b_16", "vit_b_16-c867db91.pth", cut="heads.")

    frozen: Annotated[int, Field(ge=0, le=BLOCKS + 2)] = 0

    def batch_norm(self) -> bool:
        return False

    def convolutional(self) -> bool:
        return False  # its only convolution embeds the patches

    def network(self, image_shape: tuple[int, int, int]) -> nn.Module:
        from torchvision.models.vision_transformer import vit_b_16

        net: nn.Module = vit_b_16(weights=None, image_size=_side(image_shape))
        return net

    def read(self, path: Path, image_shape: tuple[int, int, int]) -> dict[str, Tensor]:
        from torchvision.models.vision_transformer import interpolate_embeddings

        state = super().read(path, image_shape)
        if POSITIONS not in state:
            return state  # the file is of another network, which `fill` reports
        try:
            return dict(interpolate_embeddings(_side(image_shape), PATCH, OrderedDict(state)))
        except ValueError as error:
            raise DataCorruptError(
                f"'{path}' has position embeddings of shape {tuple(state[POSITIONS].shape)}, which are no square of"
                " patches and a class token",
                "give a state dict of torchvision's vit_b_16",
            ) from error

    def chain(self, network: Any, image_shape: tuple[int, int, int]) -> FeatureExtractor:
        side = _side(image_shape)
        encoder = network.encoder
        tokens = _Tokens(network.conv_proj, network.class_token, encoder.pos_embedding, encoder.dropout)
        first = nn.Sequential(*entrance(image_shape, (side, side)), tokens)
        return self.extractor(
            [first, *encoder.layers, _ClassToken(encoder.ln)], network.hidden_dim, last_stage=LAST_STAGE
        )


class _Tokens(nn.Module):
    """The class token and the patches as tokens, with position embeddings added."""

    def __init__(self, project: nn.Module, first: nn.Parameter, positions: nn.Parameter, dropout: nn.Module) -> None:
        super().__init__()
        self.project, self.first, self.positions, self.dropout = project, first, positions, dropout

    def forward(self, images: Images) -> Float[Tensor, "n t d"]:
        patches = self.project(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.first.expand(len(patches), -1, -1), patches], dim=1)
        hidden: Tensor = self.dropout(tokens + self.positions)
        return hidden


class _ClassToken(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, tokens: Float[Tensor, "n t d"]) -> Float[Tensor, "n d"]:
        normalised: Tensor = self.norm(tokens[:, 0])
        return normalised
