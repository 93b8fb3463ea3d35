"""Training batches from 8-bit images on the device, where they are cropped and mirrored in one gather operation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from bench.api.hashing import Recipe
from bench.api.random import Rng
from bench.api.types import Images, Split


@dataclass(frozen=True)
class Augmentation:
    """flip: mirror half of the images. pad: random crops after padding by that many pixels."""

    flip: bool
    pad: int


def augmentation_of(recipe: Recipe) -> Augmentation:
    """The augmentation of a recipe; what the recipe leaves open is off."""
    return Augmentation(flip=bool(recipe.flip), pad=recipe.pad or 0)


class Loader:
    """One pass over the data per iteration, in a new order each time.

    All random numbers of an epoch are drawn at once on the CPU, so that batches are the same on every device and no
    step waits for the host. Batch sizes differ by at most one image, so that no batch norm gets a last batch of one
    image.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch: int,
        augmentation: Augmentation,
        rng: Rng,
        unaugmented: Bool[Tensor, " n"] | None = None,
    ) -> None:
        """unaugmented: items that are never augmented."""
        pad = augmentation.pad
        self._images = nn.functional.pad(split.images, (pad, pad, pad, pad)) if pad else split.images
        self._labels = split.labels
        self._size = split.images.shape[-2:]
        self._flip, self._pad, self._rng = augmentation.flip, pad, rng
        self._unaugmented = unaugmented if unaugmented is not None else torch.zeros(len(split), dtype=torch.bool)
        self._batches = -(-len(split) // batch)

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[tuple[Tensor, Bool[Tensor, "n k"], Int64[Tensor, " n"]]]:
        n, device = len(self._labels), self._images.device
        order = self._rng.permutation(n)
        free = ~self._unaugmented
        offsets = torch.where(free[:, None], self._rng.integers(2 * self._pad + 1, (n, 2)), self._pad)
        mirrored = (self._rng.uniform((n,)) < 0.5) & free & self._flip
        offsets, mirrored = offsets[order].to(device), mirrored[order].to(device)
        parts = zip(
            order.to(device).tensor_split(self._batches),
            offsets.tensor_split(self._batches),
            mirrored.tensor_split(self._batches),
            strict=True,
        )
        for index, offset, mirror in parts:
            yield self._batch(index, offset, mirror), self._labels[index], index

    def _batch(self, index: Int64[Tensor, " n"], offset: Int64[Tensor, "n 2"], mirror: Bool[Tensor, " n"]) -> Tensor:
        return self._crop(index, offset, mirror)

    def _crop(self, index: Int64[Tensor, " n"], offset: Int64[Tensor, "n 2"], mirror: Bool[Tensor, " n"]) -> Images:
        height, width = self._size
        rows = offset[:, :1] + torch.arange(height, device=index.device)
        columns = torch.arange(width, device=index.device).expand(len(index), width)
        columns = offset[:, 1:] + torch.where(mirror[:, None], width - 1 - columns, columns)
        # The slice between the advanced indices puts the channels last, which is the fast layout for convolutions.
        cropped = self._images[index[:, None, None], :, rows[:, :, None], columns[:, None, :]]
        return (cropped.to(torch.float32) / 255).permute(0, 3, 1, 2)


class HiddenLoader(Loader):
    """The same batches in the same order, but of outputs of a frozen prefix, computed once per image, not augmented."""

    def __init__(self, split: Split, hidden: Float[Tensor, "n ..."], *, batch: int, rng: Rng) -> None:
        super().__init__(split, batch=batch, augmentation=Augmentation(flip=False, pad=0), rng=rng)
        self._hidden = hidden

    def _batch(self, index: Int64[Tensor, " n"], offset: Int64[Tensor, "n 2"], mirror: Bool[Tensor, " n"]) -> Tensor:
        del offset, mirror
        return self._hidden[index]
