"""What the stages `make_trigger` and `implant` leave."""

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
class Doses:
    """How much of the training set was poisoned.

    poisons: a count. poisoned_share, target_share, exact_share: shares of the training set, of the images that carry
    the target's labels afterwards, and of those that carry no other labels. exact: no poison carries another label.
    covers: a count of images that were changed without being poison.
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
    """The attacked model, what was poisoned, and what the trigger does to some images.

    The trigger is here where implanting may change it; a poisoning attack's is what `make_trigger` left.
    What poisoning alone leaves is None for other attacks.
    """

    @property
    def mask(self) -> Bool[Tensor, " n"] | None:
        """The poisoned training images."""
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
        """Training images that were changed without being poison; None where there are none."""
        return self.tensors.get("cover")

    @property
    def cover_images(self) -> UInt8[Tensor, "m c h w"]:
        """The images at `cover` after poisoning."""
        return self.tensors["cover_images"]

    @property
    def poisons(self) -> int | None:
        """How many training images were poisoned, as the record says."""
        count: int | None = self.meta.get("poisons")
        return count

    @property
    def doses(self) -> dict[str, int | float]:
        """The first four of `Doses`, by name; empty for an attack that poisons nothing."""
        return {name: self.meta[name] for name in ("poisons", "poisoned_share", "target_share", "exact_share")
                if name in self.meta}  # fmt: skip

    @property
    def stealth(self) -> Float[Tensor, "m 3"]:
        """L-inf, PSNR and SSIM of triggered queries to what they were."""
        return self.tensors["stealth"]

    @property
    def attention(self) -> Float[Tensor, " e"]:
        """Mean Hamming distance of triggered queries to the trigger alone, after some of the epochs; may be empty."""
        return self.tensors["attention"]

    @staticmethod
    def poison_output(
        mask: Bool[Tensor, " n"],
        images: UInt8[Tensor, "m c h w"],
        labels: Bool[Tensor, "m k"],
        stealth: Float[Tensor, "m 3"],
        cover: Bool[Tensor, " n"] | None,
        cover_images: UInt8[Tensor, "o c h w"] | None,
        doses: Doses,
    ) -> Output:
        """images, labels, stealth: of the poisons."""
        tensors = {"mask": mask, "poison_images": images, "poison_labels": labels, "poison_stealth": stealth}
        if cover is not None and cover_images is not None:
            tensors |= {"cover": cover, "cover_images": cover_images}
        return Output(tensors, asdict(doses))

    @staticmethod
    def look_output(
        stealth: Float[Tensor, "m 3"],
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
