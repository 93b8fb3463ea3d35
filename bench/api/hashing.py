"""What a data set, a backbone and a hashing method must offer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Protocol, TypeVar, dataclass_transform, runtime_checkable

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
    """How a model is trained. A method's recipe is its paper's; a suite's `[training]` table changes single fields.

    lr: of the hash head and of everything trained from scratch; the backbone gets lr * backbone_lr, its fully connected
    layers, where it ends in such, lr * linear_lr (None: as the rest of it).
    schedule: per step; "onecycle" warms up over the first 30 %, "step" goes on at a tenth of the rate after the share
    `step_at` of all steps.
    flip, pad: horizontal mirroring and random crops after padding by that many pixels; None: the data set's own.
    batch_norm: "eval" keeps running statistics as they are, which suits small batches on public weights.
    precision: "bf16" autocasts the training loop (nothing else); "auto" does so where the device is fast at it.
    """

    optimizer: Literal["sgd", "adam", "adamw", "rmsprop"]
    """Optimiser, as torch defines it."""
    lr: PositiveFloat
    """Learning rate of the hash layer and of everything trained from scratch."""
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
    """For `schedule = "step"`: share of all steps after which the learning rate is a tenth."""
    flip: bool | None = None
    """Whether images are mirrored at random; default: as suits the data set."""
    pad: NonNegativeInt | None = None
    """Pixels of padding before a random crop; default: as suits the data set."""
    batch_norm: Literal["train", "eval"] = "train"
    """eval keeps the running statistics of batch norm, which suits small batches on public weights."""
    precision: Literal["auto", "bf16", "float32"] = "auto"
    """Precision of the training loop; auto is bf16 where the device computes in it."""
    compile: bool = False
    """Whether to run torch.compile."""


@dataclass(frozen=True)
class DecodedDataset:
    """Every image of a data set, decoded.

    origin: which published part an image comes from (the meaning is the data set's; 0 where there are no parts).
    """

    images: UInt8[Tensor, "n c h w"]
    labels: Bool[Tensor, "n k"]
    origin: UInt8[Tensor, " n"]


class Dataset(ABC):
    """A data set and its retrieval protocol.

    flip, pad: the augmentation that suits its images (digits are not mirrored).
    protocol_version: raise it whenever the same parameters would cut other splits.
    proxy_dataset: another data set, with no image of this one, for attackers who do not hold the victim's data.
    """

    flip: ClassVar[bool] = True
    pad: ClassVar[int] = 4
    protocol_version: ClassVar[int] = 1
    proxy_dataset: ClassVar[str] = "shapes"

    @property
    def overlaps(self) -> frozenset[frozenset[str]]:
        """Pairs of splits that the published protocol lets share images."""
        return frozenset()

    @abstractmethod
    def files(self, root: Path | None) -> tuple[Path, ...]:
        """The files that `decode` reads (none for embedded data); raises DataMissingError saying how to get them."""

    @abstractmethod
    def classes(self, root: Path | None) -> tuple[str, ...]:
        """Class names in label order, found without decoding an image."""

    @abstractmethod
    def decode(self, root: Path | None) -> DecodedDataset:
        """All images; raises DataCorruptError naming the member that does not decode."""

    @abstractmethod
    def splits(
        self, labels: Bool[Tensor, "n k"], origin: UInt8[Tensor, " n"], rng: Rng
    ) -> Mapping[str, Int64[Tensor, " m"]]:
        """Positions of train, query, database, trusted and public; raises UserError where the sizes cannot be met."""

    def protocol(self, root: Path | None) -> tuple[str, int | None]:
        """The protocol's name (which of several on-disk forms was found is part of it) and the R of mAP@R."""
        del root
        return type(self).__module__.rpartition(".")[2], None


class FeatureExtractor(nn.Module):
    """A network [n c h w] -> [n d] as a chain of blocks, the last of which pools and flattens."""

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        *,
        features: int,
        frozen: int = 0,
        linear: int = 0,
        normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
    ) -> None:
        """features: d. frozen: how many blocks, from the input on, never learn and stay in evaluation mode.

        linear: how many blocks, the last ones, are fully connected layers, which recipes may give another rate.
        normalisation: mean and standard deviation that the weights expect; None takes the training images'.
        """
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.features, self.frozen, self.linear, self.normalisation = features, frozen, linear, normalisation
        self.blocks[:frozen].requires_grad_(requires_grad=False)

    def train(self, mode: bool = True) -> FeatureExtractor:
        super().train(mode)
        self.blocks[: self.frozen].eval()
        return self

    def prefix(self, images: Images) -> Float[Tensor, "n ..."]:
        """Through the frozen blocks."""
        hidden: Tensor = images
        for block in self.blocks[: self.frozen]:
            hidden = block(hidden)
        return hidden

    def suffix(self, hidden: Float[Tensor, "n ..."]) -> Float[Tensor, "n d"]:
        """Through the blocks that learn."""
        for block in self.blocks[self.frozen :]:
            hidden = block(hidden)
        return hidden

    def forward(self, images: Images) -> Float[Tensor, "n d"]:
        return self.suffix(self.prefix(images))


@runtime_checkable
class Hook(Protocol):
    """Something that takes part in the steps of a training."""

    def before_step(
        self, model: nn.Module, images: Images, labels: Bool[Tensor, "n k"], ids: Int64[Tensor, " n"], progress: float
    ) -> tuple[Images, Bool[Tensor, "n k"], Tensor | None]:
        """The batch that is trained on, and a term to add to the loss (None: nothing)."""

    def after_step(self) -> None:
        """After backward and the optimiser's step."""


class Backbone(ABC):
    def batch_norm(self) -> bool:
        """Whether the network normalises over batches."""
        return True

    def convolutional(self) -> bool:
        """Whether its layers hand on maps of channels, which some defenses prune or look at; False for transformers."""
        return True

    def per_image(self) -> Backbone | None:
        """The same network without statistics over batches, for training on single examples; None: there is none."""
        return None if self.batch_norm() else self

    def files(self) -> tuple[Path, ...]:
        """Files of public weights that `build` reads; raises DataMissingError saying how to get them."""
        return ()

    def state_dict_aliases(self, image_shape: tuple[int, int, int]) -> Mapping[str, str]:
        """Another library's names of this network's tensors, each with its name in what `build` returns.

        "" for a layer that was cut off, where the hash head stands now. {}: no other library has this network.
        """
        del image_shape
        return {}

    @abstractmethod
    def build(self, image_shape: tuple[int, int, int]) -> FeatureExtractor:
        """An initialised network (from torch's ambient generator)."""


class Objective(nn.Module, ABC):
    """A method's loss; its buffers (centres, memory bank) are saved with the model and reused by repairs."""

    @abstractmethod
    def forward(self, logits: Logits, labels: Bool[Tensor, "n k"], ids: Int64[Tensor, " n"], progress: float) -> Tensor:
        """The loss. ids: positions in the training set; progress: share of the training that has passed."""

    def reset_for(self, train_size: int) -> Objective:
        """The objective for another training set (a repair's): centres stay, memories of single images do not."""
        del train_size
        return self


class HashingMethod(ABC):
    """pointwise: the loss is a mean over images, of which none looks at another; it has `aims(labels)`, +-1 [n b]."""

    recipe: ClassVar[Recipe]
    pointwise: ClassVar[bool] = False

    def head(self, features: int, bits: int) -> nn.Module:
        return nn.Linear(features, bits)

    def relax(self, logits: Logits, progress: float = 1.0) -> Codes:
        """Relaxed codes; `progress` is for methods that sharpen them while training."""
        del progress
        return logits.tanh()

    @abstractmethod
    def objective(self, *, bits: int, classes: int, train_size: int, rng: Rng) -> Objective: ...
