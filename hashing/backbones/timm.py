"""A network of the package timm, chosen by its name there, with weights from a file or from scratch."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from pydantic import AfterValidator, Field, NonNegativeInt, model_validator
from pydantic_core import PydanticCustomError
from torch import nn

from bench.api.card import Card
from bench.api.errors import DataMissingError
from bench.api.hashing import Backbone, FeatureExtractor, backbone
from bench.api.untrusted import own_path
from hashing.backbones.helpers.chain import chain_of
from hashing.backbones.helpers.timm_models import TimmModel, timm_model
from hashing.pretrained import entrance, fill
from hashing.weight_files import read_weights

CARD = Card(
    name="timm",
    title="PyTorch Image Models",
    year=2019,
    url="https://github.com/huggingface/pytorch-image-models",
    follows="timm's network without its classifier; stages, width of the features, side of the images and, with a file"
    " of weights, mean and deviation are those that timm states for the model; a file is converted by timm's function"
    " for the model, which also interpolates position embeddings to another side",
    deviates="images are resized (bilinear) to the side that timm states, or to `size`, which changes the aspect ratio"
    " of images that are not square; the channel of grey images is repeated three times; from scratch, images are"
    " normalised by the training set, as with other backbones; guess: where all stages have one resolution, the last"
    " stage is the last quarter of them",
)
SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")


def _file(value: str) -> str:
    if value == "none":
        return value
    if not value.endswith(SUFFIXES):  # a typing error, not a missing file
        raise PydanticCustomError("weights", f"expected 'none' or the path of a file ({', '.join(SUFFIXES)})")
    return own_path(value)


@backbone
class Timm(Backbone):
    """Blocks: one up to the end of each stage of timm's `feature_info`, and one for what follows the last stage."""

    optional_packages: ClassVar[tuple[str, ...]] = ("timm",)

    model: Annotated[str, Field(min_length=1)]
    """Name in timm; a tag after a dot (vit_base_patch16_clip_224.openai) selects the normalisation of these weights."""
    weights: Annotated[str, AfterValidator(_file)] = "none"
    """none (from scratch), or the path of a state dict of this model."""
    size: Annotated[int, Field(ge=8, le=1024)] | None = None
    """Side in pixels to which images are resized; default: the side that timm states for the model."""
    frozen: NonNegativeInt = 0
    """Number of blocks, counted from the input, that are not trained."""

    @model_validator(mode="after")
    def _fits_timm(self) -> Timm:
        if find_spec("timm") is not None and self.frozen > (blocks := self._known().blocks):
            raise ValueError(f"frozen = {self.frozen}: {self.model} has {blocks} blocks")
        return self

    def _known(self) -> TimmModel:
        if find_spec("timm") is None:
            raise DataMissingError("the backbone 'timm' needs the package timm", "pip install 'hashdoor[timm]'")
        return timm_model(self.model, self.size)

    def batch_norm(self) -> bool:
        return self._known().batch_norm

    def convolutional(self) -> bool:
        return self._known().convolutional

    def files(self) -> tuple[Path, ...]:
        self._known()
        if self.weights == "none":
            return ()
        if Path(self.weights).is_file():
            return (Path(self.weights),)
        raise DataMissingError(
            f"weights = '{self.weights}' is not a file",
            f"put a state dict of timm's {self.model} there, or set weights = 'none'",
        )

    def build(self, image_shape: tuple[int, int, int]) -> FeatureExtractor:
        known = self._known()
        network = known.network()
        for path in self.files():
            state = known.converted(network, read_weights(path), path)
            fill(network, state, path, cut=known.classifiers, what=f"timm's {self.model}")
        return self._extractor(network, image_shape)

    def _extractor(self, network: nn.Module, image_shape: tuple[int, int, int]) -> FeatureExtractor:
        known = self._known()
        first, *others = chain_of(network, known.stages)
        return FeatureExtractor(
            [nn.Sequential(*entrance(image_shape, known.size), first), *others],
            features=known.features,
            frozen=self.frozen,
            last_stage=known.last_stage,
            normalisation=None if self.weights == "none" else known.normalisation,
        )

    def state_dict_aliases(self, image_shape: tuple[int, int, int]) -> Mapping[str, str]:
        """Names of the tensors in timm."""
        known = self._known()
        with torch.device("meta"):
            network = known.network()
            theirs = network.state_dict(keep_vars=True)
            ours = self._extractor(network, image_shape).state_dict(keep_vars=True)
        names = {id(tensor): name for name, tensor in ours.items()}
        cut = {f"{layer}{part}": "" for layer in known.classifiers for part in ("weight", "bias")}
        return cut | {name: names[id(tensor)] for name, tensor in theirs.items() if id(tensor) in names}
