"""The parts of anti-backdoor learning: local gradient ascent on hash losses, and unlearning."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.func import functional_call

from bench.api.hashing import Objective
from bench.api.types import Images, Labels, Split, to_unit
from hashing.inference import encode
from hashing.majority_code import component_vote


def own_losses(relaxed: Float[Tensor, "n b"], labels: Labels, anchors: Float[Tensor, "k b"]) -> Float[Tensor, " n"]:
    """(1 - u.a/K)/2 for relaxed codes u and anchors a: the mean over the labels of an image, or 0.5 without labels."""
    apart = (1 - relaxed @ anchors.T / relaxed.shape[1]) / 2
    carried = labels.to(relaxed.dtype)
    count = carried.sum(1)
    return torch.where(count > 0, (apart * carried).sum(1) / count.clamp_min(1), 0.5)


def voted(model: nn.Module, split: Split) -> tuple[Float[Tensor, "k b"], Float[Tensor, "n b"]]:
    """The majority code of each class, and the relaxed codes of the images; on the CPU."""
    relaxed = encode(model, split.images, device=split.images.device).tanh()
    return component_vote(relaxed, split.labels.cpu()), relaxed


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; every module gets its own mode back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


class LocalAscent(Objective):
    """The victim's loss with reversed gradients where l, the loss of `own_losses`, is below gamma.

    gate: "image" multiplies the gradient of each image by sign(l_i - gamma), "batch" that of all images by the sign for
    the batch's mean of l. With "batch" the mean stays near gamma, while images that are learned fast fall below it. A
    negative gamma reverses nothing.
    """

    anchors: Tensor
    gamma: Tensor

    def __init__(self, inner: Objective, anchors: Float[Tensor, "k b"], gate: str, gamma: float = -1.0) -> None:
        super().__init__()
        self.inner, self._gate = inner, gate
        self.register_buffer("anchors", anchors)
        self.register_buffer("gamma", torch.tensor(gamma, device=anchors.device))

    def reset_for(self, train_size: int) -> Objective:
        turned = copy.copy(self)
        turned._modules = {"inner": self.inner.reset_for(train_size)}  # noqa: SLF001 -- a copy with another part
        return turned

    def forward(
        self, logits: Float[Tensor, "m b"], labels: Labels, ids: Int64[Tensor, " n"], progress: float
    ) -> Tensor:
        fixed = logits.detach()
        views = len(logits) // max(1, len(labels))  # of each image
        own = own_losses(fixed.tanh(), labels.repeat(views, 1), self.anchors)
        sign = torch.sign((own.mean() if self._gate == "batch" else own[:, None]) - self.gamma)
        loss: Tensor = self.inner(sign * logits + (1 - sign) * fixed, labels, ids, progress)
        return loss


class Watch:
    """Measures `own_losses` of all training images after every epoch and updates anchors and gamma of the ascent."""

    def __init__(self, train: Split, epochs: int, quantile: float) -> None:
        self._train, self._epochs, self._quantile = train, epochs, quantile
        self.losses: list[Float[Tensor, " n"]] = []

    def before_step(
        self, model: nn.Module, images: Images, labels: Labels, ids: Int64[Tensor, " n"], progress: float
    ) -> tuple[Images, Labels, None]:
        del ids
        if int(progress * self._epochs + 1e-6) > len(self.losses):
            self.look(model)
        return images, labels, None

    def after_step(self) -> None:
        pass

    def look(self, model: nn.Module) -> None:
        with evaluating(model):
            anchors, relaxed = voted(model, self._train)
        self.losses.append(own_losses(relaxed, self._train.labels.cpu(), anchors))
        ascent = model.objective
        assert isinstance(ascent, LocalAscent)
        ascent.anchors.copy_(anchors)
        ascent.gamma.copy_(torch.quantile(self.losses[0], self._quantile))


class Unlearn:
    """Subtracts the clipped loss of isolated images in each step. picks: the images for each step of an epoch."""

    def __init__(
        self, isolated: Split, anchors: Float[Tensor, "k b"], picks: Int64[Tensor, "s m"], weight: float, clip: float
    ) -> None:
        self._isolated, self._anchors, self._picks = isolated, anchors, iter(picks)
        self._weight, self._clip = weight, clip

    def before_step(
        self, model: nn.Module, images: Images, labels: Labels, ids: Int64[Tensor, " n"], progress: float
    ) -> tuple[Images, Labels, Tensor]:
        del ids, progress
        batch = self._isolated.select(next(self._picks))
        # copies, because the training step updates running statistics before the gradient of this pass reads them
        kept = {name: value.clone() for name, value in model.named_buffers() if not name.startswith("objective.")}
        with evaluating(model):
            relaxed = functional_call(model, kept, (to_unit(batch.images),)).tanh()
        loss = own_losses(relaxed, batch.labels, self._anchors).clamp(max=self._clip).mean()
        return images, labels, -self._weight * loss

    def after_step(self) -> None:
        pass
