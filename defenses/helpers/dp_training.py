"""Training with per-example clipping and noise (DP-SGD): the victim's recipe on the victim's training set."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import accumulate
from typing import cast

import torch
from jaxtyping import Bool, Int64
from torch import Tensor, nn, optim

from bench.api.defense import Backbone, DefenderView, HashingMethod, Rng
from bench.api.errors import DivergedError
from bench.api.hashing import Recipe
from hashing.loader import Loader, augmentation_of
from hashing.model import HashModel
from hashing.train import optimizer_of, schedule_of

NOISELESS = 1e-6  # as a multiple of `clip`; for less noise the accountant does not terminate


@dataclass(frozen=True)
class Privacy:
    """clip: bound on the norm of an image's gradient. noise: standard deviation of the noise, as a multiple of `clip`.

    The noise differs between CPU and CUDA.
    """

    clip: float
    noise: float


def unsupported_reason(backbone: Backbone, method: HashingMethod, *, private: bool) -> str:
    """Why gradients of single images cannot be clipped, or ""; private: whether Opacus is needed for the clipping."""
    if private and find_spec("opacus") is None:
        return "it needs Opacus: pip install 'hashdoor[privacy]'"
    if not method.pointwise:
        return "the loss of the hashing method compares images, so that a single image has no gradient to clip"
    if not backbone.convolutional():
        return "gradients of single images are not available for attention (Opacus)"
    if backbone.per_image() is None:
        return "there is no variant of the backbone without statistics over batches"
    return ""


def epsilon(train_size: int, recipe: Recipe, noise: float) -> float:
    """Epsilon of one training at delta = 1 / n, by the accountant for Renyi differential privacy.

    The number is no privacy guarantee, because images are normalised by statistics of the training set and the random
    generator of the noise is not secure.
    """
    from opacus.accountants import RDPAccountant

    if noise < NOISELESS:
        return math.inf
    per_epoch = -(-train_size // recipe.batch)
    accountant = RDPAccountant()
    accountant.history.append((noise, 1 / per_epoch, recipe.epochs * per_epoch))
    with (
        warnings.catch_warnings()
    ):  # a warning about the order: for little noise the smallest order gives the best bound
        warnings.filterwarnings("ignore", message="Optimal order")
        return float(accountant.get_epsilon(1 / train_size))


class PoissonLoader(Loader):
    """Poisson sampling: in each step, every image is drawn independently with the same probability.

    The number of steps and the augmentation are those of the victim's loader, so that the expected batch size is also
    the same. The gradient that is clipped is that of one augmented image.
    """

    @property
    def expected(self) -> float:
        return len(self._labels) / len(self)

    def __iter__(self) -> Iterator[tuple[Tensor, Bool[Tensor, "n k"], Int64[Tensor, " n"]]]:
        n, device = len(self._labels), self._images.device
        chosen = [torch.nonzero(self._rng.uniform((n,)) < 1 / len(self)).flatten() for _ in range(len(self))]
        ends = list(accumulate(len(part) for part in chosen))
        offsets = self._rng.integers(2 * self._pad + 1, (ends[-1], 2))
        mirrored = (self._rng.uniform((ends[-1],)) < 0.5) & self._flip
        drawn = (value.to(device).tensor_split(ends[:-1]) for value in (torch.cat(chosen), offsets, mirrored))
        for ids, offset, mirror in zip(*drawn, strict=True):
            yield self._batch(ids, offset, mirror), self._labels[ids], ids


def trained(view: DefenderView, rng: Rng, privacy: Privacy | None) -> HashModel:
    """The victim's network without batch statistics, trained on the training set.

    privacy: None trains without clipping and noise. The precision is float32, whatever the recipe says, so that the
    bound on each image's gradient is exact. DivergedError: loss or weights are not finite.
    """
    model = view.untrained(per_image=True)
    assert isinstance(model, HashModel)
    if privacy and privacy.noise >= NOISELESS:
        view.notes["epsilon at delta = 1/n, no claim"] = epsilon(len(view.train), view.recipe, privacy.noise)
    pupil = _prepared(copy.deepcopy(model))  # Opacus adds hooks and attributes, which stay on the copy
    _fit(pupil, view, rng, privacy)
    model.load_state_dict(pupil.state_dict())
    return model.eval()


def _prepared(model: HashModel) -> HashModel:
    """Make the inputs of convolutions contiguous: Opacus 1.6 computes wrong gradients for channels-last inputs."""
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # type: ignore[assignment]  # backward hooks do not work with in-place layers
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))
    return model.to(memory_format=torch.contiguous_format)


def _fit(model: HashModel, view: DefenderView, rng: Rng, privacy: Privacy | None) -> None:
    split, recipe = view.train.to(model.device), view.recipe
    objective = view.objective.reset_for(len(split))
    loader = PoissonLoader(split, batch=recipe.batch, augmentation=augmentation_of(recipe), rng=rng.child("order"))
    optimizer = optimizer_of(model, recipe)
    schedule = schedule_of(optimizer, recipe, max(1, recipe.epochs * len(loader)))
    network, step, clear = _parts(model, optimizer, privacy, loader.expected, rng.child("noise"))
    done = 0
    with rng.child("ambient").ambient(), _no_warning_about_inputs():
        for epoch in range(recipe.epochs):
            model.train()
            total = torch.zeros((), device=model.device)
            for images, labels, ids in loader:
                clear()
                if len(ids):
                    loss = objective(network(images), labels, ids, done / (recipe.epochs * len(loader)))
                    (loss * (1 if privacy else len(ids) / loader.expected)).backward()
                    total += loss.detach() * len(ids)
                else:
                    _no_gradients(model)
                step()
                schedule.step()
                done += 1
            if not math.isfinite(value := float(total)):
                raise DivergedError(f"the loss of epoch {epoch + 1} is {value}: lower the learning rate or the noise")
    if not all(bool(torch.isfinite(weights).all()) for weights in model.parameters()):
        raise DivergedError("training left weights that are not finite: lower the learning rate or the noise")


def _parts(
    model: HashModel, optimizer: optim.Optimizer, privacy: Privacy | None, expected: float, rng: Rng
) -> tuple[nn.Module, Callable[[], object], Callable[[], object]]:
    """The network and the optimiser's `step` and `zero_grad`, wrapped by Opacus if `privacy` is given."""
    if privacy is None:
        return model, optimizer.step, optimizer.zero_grad
    from opacus.grad_sample import GradSampleModule
    from opacus.optimizers import DPOptimizer

    private = DPOptimizer(
        optimizer,
        noise_multiplier=privacy.noise,
        max_grad_norm=privacy.clip,
        expected_batch_size=expected,
        generator=torch.Generator(model.device).manual_seed(rng.seed),
    )
    return cast("nn.Module", GradSampleModule(model)), private.step, private.zero_grad


def _no_gradients(model: nn.Module) -> None:
    """Gradients of an empty batch, so that only noise, momentum and weight decay change the weights."""
    for weights in model.parameters():
        if weights.requires_grad:
            weights.grad = torch.zeros_like(weights)
            weights.grad_sample = weights.new_zeros((0, *weights.shape))  # type: ignore[attr-defined]  # Opacus's own


@contextmanager
def _no_warning_about_inputs() -> Iterator[None]:
    """Silence PyTorch's warning that the input of the first layer, an image, has no gradient."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        yield
