"""Grad-CAM for hash codes: the pixels that a code depends on."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, softplus

from bench.api.types import Images

NORMS = (nn.BatchNorm2d, nn.GroupNorm)
RECTIFIERS = (nn.ReLU, nn.ReLU6)


def makers_of_maps(model: nn.Module) -> list[nn.Module]:
    """For each convolution, the module that gives its maps: the convolution, or its normalisation, or its ReLU.

    Blocks of a ResNet share one ReLU, whose last call ends the block. TypeError: the model has no convolution.
    """
    modules, found = list(model.modules()), []
    for at, module in enumerate(modules):
        if not isinstance(module, nn.Conv2d):
            continue
        end = at
        for kinds in (NORMS, RECTIFIERS):
            if end + 1 < len(modules) and isinstance(modules[end + 1], kinds):
                end += 1
        found.append(modules[end])
    if not found:
        raise TypeError("the model has no convolution to look at")
    return found


def grad_cam(model: nn.Module, images: Images, cells: int) -> Float[Tensor, "n h w"]:
    """relu(sum_c a_c A_c), resized to the images; A: maps, a_c: mean gradient of u.h in map c, with h = sign(u) fixed.

    cells: the maps are the last ones whose width and height are at least this, or else the first maps. The result is
    exact up to a positive factor per image: the derivatives of tanh are scaled so that the largest is 1, because those
    of saturated codes, which triggers cause, are zero in float32.
    """
    seen: list[Tensor] = []

    def cut(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Continue with a leaf, so that earlier layers get no gradient; a copy, as later layers may write in place."""
        del module, inputs
        if seen and min(output.shape[2:]) < cells:
            return output
        seen[:] = [output.detach().clone().requires_grad_()]
        return seen[0].clone()

    with torch.enable_grad():
        handles = [module.register_forward_hook(cut) for module in makers_of_maps(model)]
        try:
            logits = model(images)
        finally:
            for handle in handles:
                handle.remove()
        size = logits.detach().abs()
        slope = -2 * size - 2 * softplus(-2 * size)  # log of tanh's derivative, less log 4
        weight = torch.where(logits > 0, 1.0, -1.0) * (slope - slope.amax(1, keepdim=True)).exp()
        (gradient,) = torch.autograd.grad(
            logits, seen, weight
        )  # images do not affect each other: one backward pass for all
    cam = (gradient.mean((2, 3), keepdim=True) * seen[0].detach()).sum(1, keepdim=True).relu()
    return interpolate(cam, size=images.shape[2:], mode="bilinear", align_corners=False)[:, 0]


def salient(cam: Float[Tensor, "n h w"], share: float) -> Bool[Tensor, "n h w"]:
    """The pixels above `share` times the maximum of each image; none if the map is zero."""
    return cam > share * cam.amax((1, 2), keepdim=True)
