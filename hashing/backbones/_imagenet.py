"""What torchvision's networks share: public weights and where they lie, frozen stages, grey and small images.

torchvision's ImageNet weights are files whose names end in the first eight digits of their sha256. Nothing is
downloaded: a file that is not on this machine is named, with the folder that it belongs in.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO, ClassVar

import torch
from jaxtyping import Float
from pydantic import AfterValidator, ConfigDict, NonNegativeInt
from pydantic.dataclasses import dataclass as validated
from pydantic_core import PydanticCustomError
from torch import Tensor, nn

from bench.api.errors import DataCorruptError, DataMissingError
from bench.api.hashing import Backbone, FeatureExtractor
from bench.api.types import Images

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and standard deviation that the weights expect
COLOURS = 3
SOURCE = "https://download.pytorch.org/models"
LATER = "num_batches_tracked"  # a counter of batch norms that files from before torch 0.4.1 do not have


def _known(value: str) -> str:
    if value in {"imagenet", "none"}:
        return value
    if not value.endswith((".pth", ".pt")):  # a slip of the pen is no missing file
        raise PydanticCustomError("weights", "expected 'imagenet', 'none' or the path of a .pth file")
    try:
        return str(Path(value).expanduser().absolute())  # workers may stand in another folder
    except RuntimeError:
        raise PydanticCustomError("weights", "expected a path; nobody of that name has a home here") from None


Weights = Annotated[str, AfterValidator(_known)]


@dataclass(frozen=True)
class Published:
    """torchvision's file of a network's ImageNet weights.

    cut: how the names of the layers begin that are cut off; what a file says about these is not read, so that
    networks fine-tuned on other classes serve as well.
    """

    network: str
    file: str
    cut: str

    def find(self, weights: str, folders: Sequence[Path] = (), instead: str = "") -> tuple[Path, ...]:
        """The file that `weights` stands for.

        folders: looked through before torchvision's own. instead: another way to get the file, for the message.
        """
        if weights == "none":
            return ()
        if weights != "imagenet":
            if Path(weights).is_file():
                return (Path(weights),)
            raise DataMissingError(
                f"weights = '{weights}' is not a file: put a state dict of torchvision's {self.network} there, or set"
                " weights = 'imagenet' or 'none'"
            )
        cache = Path(torch.hub.get_dir()) / "checkpoints"
        for folder in (*folders, cache):
            if (folder / self.file).is_file():
                return (folder / self.file,)
        raise DataMissingError(
            f"the ImageNet weights of {self.network} are not on this machine: {instead}put torchvision's {self.file}"
            f" into {cache} ({SOURCE}/{self.file})"
        )

    def fill(self, network: nn.Module, state: dict[str, Tensor], path: Path) -> None:
        """Load `state` up to the cut; every tensor must be there with its shape, and none besides."""
        state = {name: value for name, value in state.items() if not name.startswith(self.cut)}
        there = {name: tuple(value.shape) for name, value in state.items() if not name.endswith(LATER)}
        wanted = {
            name: tuple(value.shape)
            for name, value in network.state_dict().items()
            if not name.startswith(self.cut) and not name.endswith(LATER)
        }
        wrong = sorted(name for name in there.keys() | wanted.keys() if there.get(name) != wanted.get(name))
        if wrong:
            raise DataCorruptError(
                f"'{path}' does not fit {self.network}: {len(wrong)} tensors differ, first '{wrong[0]}'"
                f" ({there.get(wrong[0], 'missing')}, expected {wanted.get(wrong[0], 'none')}):"
                f" give a state dict of torchvision's {self.network}"
            )
        network.load_state_dict(state, strict=False)  # the cut layers and the counters keep what they have


def read(path: Path) -> dict[str, Tensor]:
    """A state dict; where the file's name ends in eight digits of a sha256, as torchvision's do, these are verified."""
    named = re.search(r"-([0-9a-f]{8})\.pth$", path.name)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if named and not digest.startswith(named[1]):
            raise DataCorruptError(
                f"'{path}' is not torchvision's file (its sha256 differs: {digest[:8]}, by its name {named[1]}): get it"
                " again, or rename a file of your own"
            )
        file.seek(0)
        if _packed(file):
            raise DataCorruptError(
                f"'{path}' (sha256 {digest[:8]}...) is compressed inside, which torch.save never does: write it with"
                " torch.save(network.state_dict(), path)"
            )
        file.seek(0)
        try:
            state: Any = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # unpacking and unpickling fail in any way on damaged files
            raise DataCorruptError(
                f"'{path}' (sha256 {digest[:8]}...) is damaged or holds more than tensors ({type(error).__name__}):"
                " write it with torch.save(network.state_dict(), path)"
            ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataCorruptError(
            f"'{path}' (sha256 {digest[:8]}...) is no state dict (names with tensors): write it with"
            " torch.save(network.state_dict(), path)"
        )
    return dict(state)


def _packed(file: BinaryIO) -> bool:
    """Whether a zip holds members that become larger when they are read: torch would unpack them without end."""
    try:
        with zipfile.ZipFile(file) as archive:
            return any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError):
        return False  # torch's old form, or damaged


@validated(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Pretrained(Backbone, ABC):
    """A network of torchvision's.

    weights: "imagenet" (torchvision's file, from its cache), "none" (from scratch), or the path of a state dict of the
    same network, which is taken to expect images normalised as ImageNet's are. A path that is relative is taken from
    the current folder. Default: ImageNet, which the hashing papers' recipes fine-tune.
    frozen: how many stages, from the input on, never learn.
    """

    published: ClassVar[Published]

    weights: Weights = "imagenet"
    frozen: NonNegativeInt = 0

    def network(self, image_shape: tuple[int, int, int]) -> nn.Module:
        """The network as torchvision builds it, with initial weights."""
        from torchvision.models import get_model  # takes seconds to import, and plans build no network

        del image_shape
        built: nn.Module = get_model(self.published.network, weights=None)
        return built

    def files(self) -> tuple[Path, ...]:
        return self.published.find(self.weights)

    def read(self, path: Path, image_shape: tuple[int, int, int]) -> dict[str, Tensor]:
        """What to load from a file of weights."""
        del image_shape
        return read(path)

    def filled(self, image_shape: tuple[int, int, int]) -> Any:
        """The network, on its weights."""
        network = self.network(image_shape)
        for path in self.files():
            self.published.fill(network, self.read(path, image_shape), path)
        return network

    def extractor(self, stages: Sequence[nn.Module], features: int, linear: int = 0) -> FeatureExtractor:
        normalisation = None if self.weights == "none" else IMAGENET
        return FeatureExtractor(
            stages, features=features, frozen=self.frozen, linear=linear, normalisation=normalisation
        )


class Colours(nn.Module):
    """Grey images as colour ones; normalisation by three channels may have done that already."""

    def forward(self, images: Images) -> Float[Tensor, "n 3 h w"]:
        return images.expand(-1, COLOURS, -1, -1)


def entrance(image_shape: tuple[int, int, int], size: tuple[int, int]) -> list[nn.Module]:
    """What stands before the first layer of a network for colour images of `size`; nothing where they are that."""
    layers: list[nn.Module] = []
    if image_shape[1:] != size:
        layers.append(nn.Upsample(size=size, mode="bilinear"))
    if image_shape[0] != COLOURS:
        layers.append(Colours())
    return layers
