"""Perturb scales and shifts of batch norm adversarially, and prune the channels that are most sensitive."""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float, Int64
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from bench.api.card import Card
from bench.api.defense import Backbone, DefenderView, HashingMethod, Repair, Rng, Share, defense
from bench.api.errors import DivergedError, UserError
from defenses.helpers.fine_tuning import MAX_DROP, note_price, quality
from defenses.helpers.masks import MaskedLoss, batch_norms, learning_part, without_channels

CARD = Card(
    name="ANP",
    title="Adversarial Neuron Pruning Purifies Backdoored Deep Models",
    venue="NeurIPS",
    year=2021,
    url="https://arxiv.org/abs/2110.14430",
    follows="a mask in [0, 1] on the scale of every batch norm channel is trained by SGD on 0.2 L + 0.8 max L, where"
    " the maximum is over relative perturbations of scales and shifts within 0.4 and is found by one signed step from a"
    " random start; batch norms use batch statistics in this training; channels with a small mask get scale 0 in the"
    " original model and keep their shift",
    deviates="L is the victim's hash loss on the fit half, without augmentation and in float32; the thresholds"
    " 0.05 to 0.90 are tried until leave-one-out mAP on the calibration half falls by more than 4 % (relative;"
    " BackdoorBench: 10 %); rate and steps are the authors' (BackdoorBench: a rate of 0.01); perturbations are clipped"
    " to 0.4 after the step (the code lets them reach 0.8); frozen blocks have no masks, because no training has"
    " changed them; no image is in a batch twice",
)
THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(1, 19))  # the authors' code: up to 0.90 in steps of 0.05


@defense
class ANP(Repair):
    threshold: Share | None = None
    """Channels with a smaller mask are pruned; default: until `max_drop` is exceeded for the first time."""
    max_drop: Share = MAX_DROP
    """Largest accepted relative drop of mAP on the calibration images."""
    steps: Annotated[int, Field(ge=0)] = 2000  # the authors' code
    """Optimisation steps of the masks."""
    batch: Annotated[int, Field(ge=2)] = 128  # the authors' code
    """Images per step."""
    lr: PositiveFloat = 0.2  # the authors' code
    """Learning rate of the masks."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # the authors' code
    """Momentum of SGD."""
    eps: NonNegativeFloat = 0.4  # the paper
    """Largest relative perturbation of scales and shifts."""
    ascents: Annotated[int, Field(ge=1)] = 1  # the authors' code
    """Signed gradient steps of the perturbation, of size eps / ascents."""
    clean_weight: Share = 0.2  # alpha of the paper
    """Weight of the loss without perturbation."""

    def unsupported_reason(self, backbone: Backbone, method: HashingMethod) -> str:
        del method
        return "" if backbone.batch_norm() else "it puts masks on batch norms, and this backbone has none"

    def repair(self, view: DefenderView, rng: Rng) -> nn.Module:
        if not batch_norms(learning_part(view.model)):
            raise UserError(
                "anp puts masks on batch norms, and this network has none in the blocks that learn",
                "choose a backbone with batch norms (and freeze fewer blocks), or leave anp out",
            )
        masks = self.train_masks(MaskedLoss(view), rng)
        threshold = self.largest_threshold(view, masks) if self.threshold is None else self.threshold
        pruned = without_channels(view.model, masks < threshold)
        view.notes["threshold"] = threshold
        view.notes["pruned share"] = float((masks < threshold).float().mean())
        note_price(view, quality(view.model, view.calibration_set), quality(pruned, view.calibration_set))
        return pruned

    def largest_threshold(self, view: DefenderView, masks: Float[Tensor, " d"]) -> float:
        """The threshold before the first one that exceeds the bound; 0, which prunes nothing, if 0.05 does."""
        reference, allowed = quality(view.model, view.calibration_set), 0.0
        for threshold in THRESHOLDS:
            candidate = without_channels(view.model, masks < threshold)
            if reference.drop_to(quality(candidate, view.calibration_set)) > self.max_drop:
                break
            allowed = threshold
        return allowed

    def train_masks(self, loss: MaskedLoss, rng: Rng) -> Float[Tensor, " d"]:
        """The trained masks of all channels, from input to output. DivergedError: masks are not finite."""
        masks = torch.ones(loss.channels, device=loss.device, requires_grad=True)
        optimizer = torch.optim.SGD([masks], lr=self.lr, momentum=self.momentum)
        with rng.child("ambient").ambient():  # dropout uses torch's global generator
            for step in range(self.steps):
                ids = rng.permutation(loss.images)[: self.batch].to(loss.device)
                progress = step / self.steps
                noise = self.worst_noise(loss, masks.detach(), ids, progress, rng)
                # two separate gradients: a loss with a memory overwrites tensors that a joint backward pass would need
                attacked = torch.autograd.grad(loss(masks, noise, ids, progress), masks)[0]
                clean = torch.autograd.grad(loss(masks, None, ids, progress), masks)[0]
                masks.grad = self.clean_weight * clean + (1 - self.clean_weight) * attacked
                optimizer.step()
                with torch.no_grad():
                    masks.clamp_(0, 1)
        if not bool(torch.isfinite(masks).all()):
            raise DivergedError("masks are not finite: lower anp's lr or eps")
        return masks.detach()

    def worst_noise(
        self, loss: MaskedLoss, masks: Float[Tensor, " d"], ids: Int64[Tensor, " n"], progress: float, rng: Rng
    ) -> Float[Tensor, "2 d"]:
        """Perturbations of scales (row 0) and shifts (row 1), within eps, that raise the loss."""
        noise = self.eps * (2 * rng.uniform((2, loss.channels)).to(loss.device) - 1)
        for _ in range(self.ascents):
            noise.requires_grad_()
            ascent = torch.autograd.grad(loss(masks, noise, ids, progress), noise)[0].sign()
            noise = (noise.detach() + self.eps / self.ascents * ascent).clamp(-self.eps, self.eps)
        return noise
