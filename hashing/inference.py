"""Logits and features without gradients: the one path for all code that only asks a model.

On CPUs the time of a forward pass depends on the caches, so batches are small, and batch norm, which only reads and
writes memory, becomes part of the convolution before it. On GPUs large batches are as fast without (measured on an
H200), and finding the pairs takes longer than a forward pass.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from math import prod
from typing import Any, TypeVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from bench.api.types import Images, Logits, to_unit
from hashing.model import HashModel

__all__ = ["Inference", "encode", "frozen"]

ACTIVATIONS = 2**21  # values in the largest layer's output per batch on CPUs: the fastest of 2**19 to 2**24 (measured)
FEWEST = 16  # images per batch on CPUs, unless these are very large; fewer leave the matrix products too small
VALUES = 2**27  # pixel values in a batch on other devices; 500 colour images of 224 x 224 pixels have about half
MOST = 500  # images per batch
Model = TypeVar("Model", bound=nn.Module)
TOLERANCE = 1e-3  # of the largest logit; a folded network agrees to 1e-5, a wrongly folded one differs by about 1


class Inference:
    """Asks a model, in evaluation mode and in float32, as it was when this object was made.

    shape: (colours, height, width) of the images. A model that is no HashModel is asked as it is.
    """

    def __init__(self, model: nn.Module, shape: tuple[int, ...]) -> None:
        model.eval()
        self._model, self._batch = model, min(MOST, max(1, VALUES // prod(shape)))
        if isinstance(model, HashModel) and model.device.type == "cpu":
            self._model, largest = _folded(model, shape)
            few = min(FEWEST, 4 * ACTIVATIONS // largest)
            self._batch = min(MOST, max(1, few, ACTIVATIONS // largest))

    @torch.inference_mode()
    def logits(self, images: Images) -> Logits:
        """Logits of images in [0, 1], on the model's device."""
        return self._in_batches(self._model, images)

    @torch.inference_mode()
    def features(self, images: Images) -> Float[Tensor, "n d"]:
        """Penultimate features of images in [0, 1], on the model's device. TypeError: the model is no HashModel."""
        if not isinstance(self._model, HashModel):
            raise TypeError(f"{type(self._model).__name__} has no features: expected a HashModel")
        return self._in_batches(self._model.features, images)

    @torch.inference_mode()
    def encode(self, images: UInt8[Tensor, "n c h w"], device: torch.device) -> Logits:
        """Logits of 8-bit images; on the CPU, after one transfer at the end."""
        return self._in_batches(lambda part: self._model(to_unit(part.to(device))), images).cpu()

    def _in_batches(self, call: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        return torch.cat([call(part) for part in torch.split(images, self._batch)]).float()


def encode(model: nn.Module, images: UInt8[Tensor, "n c h w"], *, device: torch.device) -> Logits:
    """Logits of 8-bit images, computed in float32 and evaluation mode; on the CPU, after one transfer at the end.

    ValueError: there are no images.
    """
    if not len(images):
        raise ValueError("no images to encode")
    return Inference(model, images.shape[1:]).encode(images, device)


def frozen(model: Model, shape: tuple[int, ...]) -> Model | HashModel:
    """A copy in evaluation mode without gradients of parameters, for code that optimises images or triggers.

    shape: (colours, height, width) of the images. Logits agree with those of the model up to rounding.
    """
    modes = {module: module.training for module in model.modules()}
    copied = _folded(model.eval(), shape)[0] if isinstance(model, HashModel) else model
    copied = (copy.deepcopy(model) if copied is model else copied).eval()
    for module, learning in modes.items():  # not `model.train()`: a method may keep some layers in evaluation mode
        module.training = learning
    for name, parameter in copied.named_parameters():
        if not name.startswith("objective."):  # which may be that of the model itself
            parameter.requires_grad = False
    return copied


@torch.no_grad()
def _folded(model: HashModel, shape: tuple[int, ...]) -> tuple[HashModel, int]:
    """A copy whose convolutions contain the batch norms that follow them, and the size of the largest output per image.

    Which batch norm follows which convolution is seen in a forward pass. If that does not describe the network (the
    output of a convolution is used elsewhere too), the copy gives other logits, and the model itself is returned.
    """
    # noise, so that every unit answers; always the same, so that batches are the same in every run
    example = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)).to(model.device)
    expected, pairs, largest = _observed(model, example)
    if not pairs:
        return model, largest
    names = {module: name for name, module in model.named_modules()}
    try:
        # the loss may hold codes of all training images and has no part in logits: it is not copied
        copied = copy.deepcopy(model, {id(model.objective): model.objective})
        for convolution, norm in pairs:
            _fold(copied, names[convolution], names[norm])
        found = copied(example)
    except Exception:  # noqa: BLE001 -- a plugin's network may refuse copies, or read the weights of its norms
        return model, largest
    same = bool(((found - expected).abs() <= TOLERANCE * expected.abs().max()).all())
    return (copied, largest) if same else (model, largest)


def _fold(model: nn.Module, convolution: str, norm: str) -> None:
    """Make a batch norm of the model part of a convolution, both given by their names."""
    conv: Any = model.get_submodule(convolution)
    bn: Any = model.get_submodule(norm)
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias
    )
    parent, _, name = norm.rpartition(".")
    setattr(model.get_submodule(parent), name, nn.Identity())


def _observed(model: nn.Module, example: Images) -> tuple[Tensor, list[tuple[nn.Module, nn.Module]], int]:
    """The logits, the pairs of convolution and batch norm, and the number of values in the largest output per image."""
    made: dict[int, tuple[nn.Module, Tensor]] = {}  # outputs stay alive, so that no identity is used twice
    pairs: list[tuple[nn.Module, nn.Module]] = []
    calls: Counter[nn.Module] = Counter()
    largest = 1

    modules = [module for module in model.modules() if not isinstance(module, torch.jit.ScriptModule)]
    plain = {module for module in modules if _is_plain(module)}

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        maker = made.get(id(inputs[0]), (None,))[0] if inputs else None
        if maker in plain and isinstance(maker, nn.Conv2d) and module in plain and isinstance(module, nn.BatchNorm2d):
            pairs.append((maker, module))

    def after(module: nn.Module, inputs: tuple[Any, ...], output: object) -> None:
        nonlocal largest
        del inputs
        calls[module] += 1
        if isinstance(output, Tensor):
            made[id(output)] = module, output
            largest = max(largest, output.numel() // len(example))

    handles = [module.register_forward_pre_hook(before) for module in modules]
    handles += [module.register_forward_hook(after) for module in modules]
    try:
        logits = model(example)
    finally:
        for handle in handles:
            handle.remove()
    return logits, [pair for pair in pairs if calls[pair[0]] == calls[pair[1]] == 1], largest


def _is_plain(module: nn.Module) -> bool:
    """Whether a convolution or batch norm computes what its weights say: hooks may mask channels or change weights."""
    if module._forward_hooks or module._forward_pre_hooks:  # noqa: SLF001 -- torch has no public way to ask
        return False
    return type(module) is nn.Conv2d or (type(module) is nn.BatchNorm2d and module.running_mean is not None)
