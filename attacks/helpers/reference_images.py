"""Which public images stand for a target."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from bench.api.errors import UserError
from bench.api.types import Split, Target, to_unit
from hashing.model import HashModel


def candidates(labels: Bool[Tensor, "n k"], target: Target) -> list[Int64[Tensor, " m"]]:
    """Positions of the public images that can stand for the target; one of each group is needed.

    The first choice is a group of the images with exactly the target's labels. The second choice is a group of those
    that have all of them and the fewest others. The third choice is, for each label of the target, a group of the
    images that have it and the fewest others. UserError: a label of the target is on no public image.
    """
    wanted, count = target.vector.to(labels.device), labels.sum(1)
    for fits in ((labels == wanted).all(1), target.contains(labels)):
        if bool(fits.any()):
            return [_fewest(fits, count)]
    groups = [labels[:, label] for label in torch.nonzero(wanted).flatten()]
    if not all(bool(group.any()) for group in groups):
        raise UserError(f"a label of the target {target.name} is on no public image", "choose another target")
    return [_fewest(group, count) for group in groups]


def central(outputs: Float[Tensor, "m b"]) -> int:
    """The output whose code has the smallest sum of Hamming distances to the other codes; the first one if tied."""
    codes = torch.where(outputs > 0, 1.0, -1.0)
    return int((codes @ codes.T).sum(1).argmax())


def central_images(model: HashModel, public: Split, target: Target) -> UInt8[Tensor, "r c h w"]:
    """The image of each needed group whose code is nearest to the codes of its group (see `candidates`, `central`)."""
    groups = [public.images[group] for group in candidates(public.labels, target)]
    return torch.stack([images[central(model(to_unit(images.to(model.device))))] for images in groups])


def _fewest(fits: Bool[Tensor, " n"], count: Int64[Tensor, " n"]) -> Int64[Tensor, " m"]:
    return torch.nonzero(fits & (count == count[fits].min())).flatten()
