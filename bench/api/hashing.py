"""Base classes of data sets, backbones and hashing methods, and the training recipe."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol, TypeVar, dataclass_transform, runtime_checkable

from jaxtyping import Bool, Float, Int64, UInt8
from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass as validated
from torch import Tensor, nn

from bench.api.random import Rng
from bench.api.registry import component
from bench.api.types import Codes, Images, Logits

__all__ = [
    "Backbone",
    "Dataset",
    "DecodedDataset",
    "FeatureExtractor",
    "HashingMethod",
    "Hook",
    "Objective",
    "PositiveFloat",
    "Recipe",
    "Rng",
    "backbone",
    "dataset",
    "method",
]  # fmt: skip

T = TypeVar("T")


@dataclass_transform(kw_only_default=True, frozen_default=True)
def dataset(cls: type[T]) -> type[T]:
    """Makes the class a data set: a validated, frozen, keyword-only dataclass whose fields are the parameters."""
    return component("datasets")(cls)


@dataclass_transform(kw_only_default=True, frozen_default=True)
def backbone(cls: type[T]) -> type[T]:
    """Makes the class a backbone: a validated, frozen, keyword-only dataclass whose fields are the parameters."""
    return component("backbones")(cls)


@dataclass_transform(kw_only_default=True, frozen_default=True)
def method(cls: type[T]) -> type[T]:
    """Makes the class a method: a validated, frozen, keyword-only dataclass whose fields are the parameters."""
    return component("methods")(cls)


@validated(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Recipe:
    """The training of a model. Methods have the recipes of their papers; `[training]` of a suite changes fields."""

    optimizer: Literal["sgd", "adam", "adamw", "rmsprop"]
    """Optimiser of torch.optim."""
    lr: PositiveFloat
    """Learning rate of the hash layer; `backbone_lr` and `linear_lr` are multiples of it."""
    weight_decay: NonNegativeFloat
    """Weight decay of the optimiser."""
    batch: PositiveInt
    """Images per step."""
    epochs: NonNegativeInt
    """Passes over the training set."""
    momentum: NonNegativeFloat = 0.0
    """Momentum of sgd and rmsprop."""
    backbone_lr: NonNegativeFloat = 1.0
    """Learning rate of the backbone, as a multiple of `lr`."""
    linear_lr: NonNegativeFloat | None = None
    """Learning rate of the last linear layers of AlexNet and VGG, as a multiple of `lr`; default: `backbone_lr`."""
    schedule: Literal["constant", "cosine", "onecycle", "step"] = "constant"
    """Learning rate over the steps; onecycle warms up over the first 30 %."""
    step_at: Annotated[float, Field(gt=0, le=1)] = 0.8
    """For `schedule = "step"`: after this share of all steps the learning rate is divided by ten."""
    flip: bool | None = None
    """Whether images are mirrored at random; default: depends on the data set."""
    pad: NonNegativeInt | None = None
    """Pixels of padding before a random crop; default: depends on the data set."""
    batch_norm: Literal["train", "eval"] = "train"
    """eval: do not update the running statistics of batch norm; useful for small batches and public weights."""
    precision: Literal["float32", "bf16", "auto"] = "float32"
    """Precision of the training loop (bf16: autocast). auto: bf16 on devices with fast bf16, otherwise float32."""
    compile: bool = False
    """Whether to run torch.compile."""


@dataclass(frozen=True)
class DecodedDataset:
    """All images of a data set, decoded.

    origin: number of the published part of each image; each data set defines the numbers (0 if it has no parts).
    names: the file names of the images, below the folder of the data set; () if images are not files of their own.
    """

    images: UInt8[Tensor, "n c h w"]
    labels: Bool[Tensor, "n k"]
    origin: UInt8[Tensor, " n"]
    names: tuple[str, ...] = ()


class Dataset(ABC):
    """A data set and its retrieval protocol.

    flip, pad: the augmentation that suits its images (digits are not mirrored).
    protocol_version: to be raised with every change that gives other splits for the same parameters.
    proxy_dataset: another data set, without images of this one, for attackers who do not have the victim's data.
    """

    flip: ClassVar[bool] = True
    pad: ClassVar[int] = 4
    protocol_version: ClassVar[int] = 1
    proxy_dataset: ClassVar[str] = "shapes"

    @classmethod
    def as_proxy(cls, side: int) -> Mapping[str, Any]:
        """Parameters under which this data set is the proxy of one whose images have sides of `side` pixels.

        Data sets of larger pictures return the size that keeps the detail; the images are resized to the victim's size.
        """
        del side
        return {}

    @property
    def overlaps(self) -> frozenset[frozenset[str]]:
        """Pairs of splits that share images in the published protocol."""
        return frozenset()

    @abstractmethod
    def files(self, root: Path | None) -> tuple[Path, ...]:
        """Files that `decode` reads, if any. DataMissingError: a file is missing; the message says where to get it."""

    @abstractmethod
    def classes(self, root: Path | None) -> tuple[str, ...]:
        """Class names in label order, without decoding an image."""

    @abstractmethod
    def decode(self, root: Path | None) -> DecodedDataset:
        """All images. DataCorruptError names a file that cannot be decoded."""

    @abstractmethod
    def splits(
        self, labels: Bool[Tensor, "n k"], origin: UInt8[Tensor, " n"], rng: Rng
    ) -> Mapping[str, Int64[Tensor, " m"]]:
        """Positions of train, query, database, trusted and public; UserError for sizes that are not possible."""

    def protocol(self, root: Path | None) -> tuple[str, int | None]:
        """The name of the protocol, with the form of the files if there are several, and the R of mAP@R (None: all)."""
        del root
        return type(self).__module__.rpartition(".")[2], None


class FeatureExtractor(nn.Module):
    """A network [n c h w] -> [n d] as a chain of blocks. The last block pools and flattens."""

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        *,
        features: int,
        frozen: int = 0,
        linear: int = 0,
        last_stage: int = 1,
        normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
    ) -> None:
        """features: d. frozen: number of blocks, from the input on, that are not trained and stay in evaluation mode.

        linear: number of blocks at the end that are fully connected layers, for which recipes may set another rate.
        last_stage: number of blocks before the last one that form the last stage, as layer4 of a ResNet: those after
        the last reduction of the resolution; attacks and defenses that tune "the deep part" start there.
        normalisation: mean and standard deviation that the weights expect; None: those of the training images.
        """
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.features, self.frozen, self.linear, self.normalisation = features, frozen, linear, normalisation
        self.last_stage = last_stage
        self.blocks[:frozen].requires_grad_(requires_grad=False)

    def train(self, mode: bool = True) -> FeatureExtractor:
        super().train(mode)
        self.blocks[: self.frozen].eval()
        return self

    def prefix(self, images: Images) -> Float[Tensor, "n ..."]:
        """Output of the frozen blocks."""
        hidden: Tensor = images
        for block in self.blocks[: self.frozen]:
            hidden = block(hidden)
        return hidden

    def suffix(self, hidden: Float[Tensor, "n ..."]) -> Float[Tensor, "n d"]:
        """Output of the trained blocks, from the output of the frozen blocks."""
        for block in self.blocks[self.frozen :]:
            hidden = block(hidden)
        return hidden

    def forward(self, images: Images) -> Float[Tensor, "n d"]:
        return self.suffix(self.prefix(images))


@runtime_checkable
class Hook(Protocol):
    """Code that runs in every step of a training."""

    def before_step(
        self, model: nn.Module, images: Images, labels: Bool[Tensor, "n k"], ids: Int64[Tensor, " n"], progress: float
    ) -> tuple[Images, Bool[Tensor, "n k"], Tensor | None]:
        """The batch to train on, and a term to add to the loss (None: no term)."""

    def after_step(self) -> None:
        """Called after backward and the step of the optimiser."""


class Backbone(ABC):
    """A network before the hash head.

    optional_packages: packages of an extra that the backbone imports inside its methods. Their versions are part of the
    keys of all stages that build it. If one is missing, `files` raises DataMissingError, which tells how to install it.
    """

    optional_packages: ClassVar[tuple[str, ...]] = ()

    def batch_norm(self) -> bool:
        """Whether the network has batch norm."""
        return True

    def convolutional(self) -> bool:
        """Whether layers return maps of channels, which some defenses prune or examine; False for transformers."""
        return True

    def per_image(self) -> Backbone | None:
        """The variant of the network without batch statistics, for gradients of single images; None: there is none."""
        return None if self.batch_norm() else self

    def files(self) -> tuple[Path, ...]:
        """Files of public weights that `build` reads. DataMissingError tells how to get missing files."""
        return ()

    def state_dict_aliases(self, image_shape: tuple[int, int, int]) -> Mapping[str, str]:
        """The tensor names of this network in another library, each with the name in the network that `build` returns.

        "" for tensors of the last layer, which the hash head replaces. {}: no other library has this network.
        """
        del image_shape
        return {}

    @abstractmethod
    def build(self, image_shape: tuple[int, int, int]) -> FeatureExtractor:
        """An initialised network. Random weights come from torch's global generator."""


class Objective(nn.Module, ABC):
    """The loss of a method. Its buffers (centres, memory bank) are saved with the model, and repairs use them."""

    @abstractmethod
    def forward(self, logits: Logits, labels: Bool[Tensor, "n k"], ids: Int64[Tensor, " n"], progress: float) -> Tensor:
        """The loss. ids: positions in the training set. progress: share of the training steps that are done.

        Methods with views get logits of both views; see `HashingMethod.views`.
        """

    def reset_for(self, train_size: int) -> Objective:
        """The objective for another training set, as in repairs: keeps centres, resets memories of single images."""
        del train_size
        return self


class HashingMethod(ABC):
    """A hashing method: a head, a loss and a recipe.

    pointwise: whether the loss is a mean of losses of single images. The objective then has `aims(labels)`, +-1 [n b].
    """

    recipe: ClassVar[Recipe]
    pointwise: ClassVar[bool] = False

    def head(self, features: int, bits: int) -> nn.Module:
        """The module from features [n d] to logits [n b]."""
        return nn.Linear(features, bits)

    def relax(self, logits: Logits, progress: float = 1.0) -> Codes:
        """Relaxed codes. Some methods sharpen them with the `progress` of the training."""
        del progress
        return logits.tanh()

    def views(self, images: Images, rng: Rng) -> Float[Tensor, "m c h w"] | None:
        """Two random views of each image, [2n c h w], the second views behind all first ones.

        The objective then gets the logits of both views, [2n b], with the labels and ids of the n images. None: the
        network sees the images as they are.
        """
        del images, rng
        return None

    @property
    def has_views(self) -> bool:
        """Whether the method trains on views."""
        return type(self).views is not HashingMethod.views

    @abstractmethod
    def objective(self, *, bits: int, classes: int, train_size: int, rng: Rng) -> Objective:
        """The loss of one training."""
