"""Fine-tune with gradients at perturbed weights (sharpness-aware minimisation), which changes large weights most."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing

import torch
from jaxtyping import Bool, Int64
from pydantic import NonNegativeFloat
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from bench.api.card import Card
from bench.api.defense import DefenderView, Images, Repair, Rng, Share, defense
from defenses.helpers.attention import statistics_kept
from defenses.helpers.fine_tuning import MAX_DROP, PEAKS, STEPS, Rates, Steps, tuned_twice
from hashing.model import HashModel

CARD = Card(
    name="FT-SAM",
    title="Enhancing Fine-Tuning Based Backdoor Defense with Sharpness-Aware Minimization",
    venue="ICCV",
    year=2023,
    url="https://arxiv.org/abs/2304.11823",
    follows="each step takes the gradient g at the weights w, then the gradient at w + rho w^2 g / |w g| (products of"
    " elements, |.| over all weights: adaptive SAM), and applies the second one to w; rho = 2 throughout; running"
    " statistics of batch norms are those of the first pass, and so are the codes that a loss remembers",
    deviates="the victim's hash loss replaces cross-entropy with smoothed labels; rho needs no other value, because the"
    " gradient is divided by its norm; optimiser, rates and number of steps are those of fine_tuning (BackdoorBench:"
    " SGD with a rate of 0.01); the first pass is in float32",
)


@defense
class FTSAM(Repair):
    rho: NonNegativeFloat = 2.0  # the authors' code in BackdoorBench
    """Size of the perturbation of the weights. 0: fine_tuning."""
    adaptive: bool = True  # the paper
    """Whether weights are perturbed in proportion to their squares; False: rho g / |g|."""
    max_drop: Share = MAX_DROP
    """Largest accepted relative drop of mAP on the calibration images."""
    steps: Steps = STEPS
    """Least number of tuning steps; a larger trusted set has as many as in BackdoorBench. 0: no tuning."""
    peaks: Rates = PEAKS
    """Peak learning rates, as multiples of the victim's; the largest that `max_drop` allows counts."""

    def repair(self, view: DefenderView, rng: Rng) -> nn.Module:
        with closing(SharpnessAware(self.rho, adaptive=self.adaptive)) as hook:
            return tuned_twice(
                view, view.model, rng, steps=self.steps, peaks=self.peaks, max_drop=self.max_drop, hook=hook
            ).on_both


class SharpnessAware:
    """A training hook: the training's gradient is that at perturbed weights, its step starts at the weights before."""

    def __init__(self, rho: float, *, adaptive: bool) -> None:
        self._rho, self._adaptive = rho, adaptive
        self._before: list[tuple[Tensor, Tensor]] = []
        self._memory: list[tuple[Tensor, Tensor]] = []  # codes of training images that a loss keeps
        self._step = ExitStack()

    def before_step(
        self, model: nn.Module, images: Images, labels: Bool[Tensor, "n k"], ids: Int64[Tensor, " n"], progress: float
    ) -> tuple[Images, Bool[Tensor, "n k"], None]:
        assert isinstance(model, HashModel)
        self.close()  # after a step that failed
        loss = model.objective(model(images), labels, ids, progress)
        self._memory = [(buffer, buffer.clone()) for buffer in model.objective.buffers()]
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        found = torch.autograd.grad(loss, weights, allow_unused=True)
        used = [(weight, gradient) for weight, gradient in zip(weights, found, strict=True) if gradient is not None]
        self._before = [(weight, weight.detach().clone()) for weight, _ in used]
        with torch.no_grad():
            for (weight, _), change in zip(used, perturbation(used, self._rho, adaptive=self._adaptive), strict=True):
                weight.add_(change)
        self._step.enter_context(statistics_kept(model))
        self._step.callback(register_optimizer_step_pre_hook(self._restore).remove)
        return images, labels, None

    def _restore(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        """Between the backward pass and the step of the optimiser, for which the training has no hook of its own."""
        stepped = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
        put_back([(weight, value) for weight, value in self._before if id(weight) in stepped])

    def after_step(self) -> None:
        put_back(self._memory)
        self.close()

    def close(self) -> None:
        """End a step: remove the hook in torch, and let batch norms update their statistics again."""
        self._before, self._memory = [], []
        self._step.close()


@torch.no_grad()
def put_back(values: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Give tensors their earlier values."""
    for tensor, value in values:
        tensor.copy_(value)


def perturbation(used: Sequence[tuple[Tensor, Tensor]], rho: float, *, adaptive: bool) -> list[Tensor]:
    """The changes of weights, each given with its gradient, that raise the loss the most in a neighbourhood."""
    scales = [weight.detach().abs() if adaptive else torch.ones_like(weight) for weight, _ in used]
    norm = torch.stack([(scale * gradient).norm() for scale, (_, gradient) in zip(scales, used, strict=True)]).norm()
    pairs = zip(scales, used, strict=True)
    return [rho / (norm + 1e-12) * scale**2 * gradient for scale, (_, gradient) in pairs]
