"""The artifacts of the stages `make_trigger` and `implant`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from bench.artifacts.artifact import Artifact, Output, prefixed, stored
from bench.artifacts.outputs.model import StoredModel

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, UInt8
    from torch import Tensor


@dataclass(frozen=True)
class PoisonAmounts:
    """The amounts of poison in a training set.

    poisons: number of poisoned images. poisoned_share: their share of the training set. target_share: the share of
    poisons among images with the target's labels after poisoning. exact_share: the same among images without other
    labels. exact: whether no poison has another label than the target's. covers: number of images that were changed but
    are no poisons.
    """

    poisons: int
    poisoned_share: float
    target_share: float
    exact_share: float
    exact: bool
    covers: int


class StoredTrigger(Artifact):
    """An attack's trigger: tensors by name."""

    @property
    def trigger(self) -> dict[str, Tensor]:
        return prefixed(self.tensors, "trigger.")

    @staticmethod
    def trigger_output(trigger: Mapping[str, Tensor]) -> Output:
        return Output(stored(trigger, "trigger."))


class Implanted(StoredModel, StoredTrigger):
    """The attacked model, the poisoned images, and the trigger on some images.

    The artifact holds the trigger too, unless the attack is a PoisoningAttack, whose trigger is that of `make_trigger`.
    Properties that only poisoning sets are None for other attacks.
    """

    @property
    def mask(self) -> Bool[Tensor, " n"] | None:
        """True for poisoned training images."""
        return self.tensors.get("mask")

    @property
    def poison_images(self) -> UInt8[Tensor, "m c h w"]:
        """The images at `mask` after poisoning."""
        return self.tensors["poison_images"]

    @property
    def poison_labels(self) -> Bool[Tensor, "m k"]:
        """The labels at `mask` after poisoning."""
        return self.tensors["poison_labels"]

    @property
    def cover(self) -> Bool[Tensor, " n"] | None:
        """True for training images that were changed but are no poisons; None without any."""
        return self.tensors.get("cover")

    @property
    def cover_images(self) -> UInt8[Tensor, "m c h w"]:
        """The images at `cover` after poisoning."""
        return self.tensors["cover_images"]

    @property
    def poisons(self) -> int | None:
        """The number of poisoned training images, as recorded; `mask` holds them."""
        count: int | None = self.meta.get("poisons")
        return count

    @property
    def poison_amounts(self) -> dict[str, int | float]:
        """The first four of `PoisonAmounts`, by name; empty for an attack that poisons nothing."""
        return {name: self.meta[name] for name in ("poisons", "poisoned_share", "target_share", "exact_share")
                if name in self.meta}  # fmt: skip

    @property
    def stealth(self) -> Float[Tensor, "m s"]:
        """L-inf, PSNR, SSIM, area and contrast of triggered queries; older artifacts lack the last two."""
        return self.tensors["stealth"]

    @property
    def attention(self) -> Float[Tensor, " e"]:
        """Mean Hamming distance between triggered queries and the trigger alone, after some epochs; may be empty."""
        return self.tensors["attention"]

    @staticmethod
    def poison_output(
        mask: Bool[Tensor, " n"],
        images: UInt8[Tensor, "m c h w"],
        labels: Bool[Tensor, "m k"],
        stealth: Float[Tensor, "m 5"],
        cover: Bool[Tensor, " n"] | None,
        cover_images: UInt8[Tensor, "o c h w"] | None,
        amounts: PoisonAmounts,
    ) -> Output:
        """images, labels, stealth: those of the poisons."""
        tensors = {"mask": mask, "poison_images": images, "poison_labels": labels, "poison_stealth": stealth}
        if cover is not None and cover_images is not None:
            tensors |= {"cover": cover, "cover_images": cover_images}
        return Output(tensors, asdict(amounts))

    @staticmethod
    def look_output(
        stealth: Float[Tensor, "m 5"],
        clean: UInt8[Tensor, "g c h w"],
        triggered: UInt8[Tensor, "g c h w"],
        attention: Float[Tensor, " e"],
        epochs: Float[Tensor, " e"],
    ) -> Output:
        """clean, triggered: pairs of images for galleries. attention, epochs: see `attention`."""
        return Output({
            "stealth": stealth, "gallery_clean": clean, "gallery_triggered": triggered,
            "attention": attention, "attention_epochs": epochs,
        })  # fmt: skip
