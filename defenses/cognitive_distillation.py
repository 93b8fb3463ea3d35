"""Search for the smallest mask of a query that keeps the model's output; a trigger needs only a small one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from bench.api.card import Card
from bench.api.defense import DefenderView, Images, InputDetector, Rng, defense
from hashing.inference import frozen

CARD = Card(
    title="Distilling Cognitive Backdoor Patterns within an Image",
    venue="ICLR",
    year=2023,
    url="https://arxiv.org/abs/2301.10908",
    follows="a mask m per query minimises mean |z(x') - z(x)| + gamma |m| + beta TV(m), with x' = x m + (1 - m) noise,"
    " noise of one colour in each step, and m = (tanh w + 1) / 2; Adam with rate 0.1 and betas 0.1, 0.1, 100 steps,"
    " gamma 0.01, beta 1 and w = 1 at first, as in the released code; a small L1 norm of m is suspicious",
    deviates="z are the logits of the bits instead of classes; the score is minus the mean of m, which does not grow"
    " with the image, while gamma multiplies the sum as published; the colours of the steps are drawn once and are the"
    " same for all queries; the losses of a batch are summed instead of averaged, and a batch is filled up to a fixed"
    " size, so that no query changes the mask of another one; the threshold (mean minus deviations in the paper) is"
    " that of all input detectors; only queries are judged: the paper also filters training data. On digits no gamma"
    " suits all attacks: with 0.01, 0.03 and 0.1 the AUROC of badnets is .79, .93 and .68, of blend .01, .06 and 1.00"
    " (seed 5, 50 trusted images with and without trigger)",
)
BATCH = 50  # images; always as many, because Adam's steps depend on the last digits of gradients


@defense
class CognitiveDistillation(InputDetector):
    """Scores: `mask`, minus the mean of the mask."""

    steps: Annotated[int, Field(ge=1)] = 100  # the authors
    """Steps of the optimiser."""
    lr: PositiveFloat = 0.1  # the authors
    """Learning rate of Adam."""
    gamma: NonNegativeFloat = 0.01  # the authors, for images of 32 x 32; 0.001 for ImageNet
    """Weight of the mask's L1 norm, a sum over pixels."""
    beta: NonNegativeFloat = 1.0  # the authors
    """Weight of the mask's total variation, a mean over pixels."""

    def fit(self, view: DefenderView, rng: Rng) -> Mapping[str, Tensor]:
        colours = view.setting.image_shape[0]
        return {"noise": rng.uniform((self.steps, 1, colours, 1, 1)).to(view.fit_set.images.device)}

    def score(self, images: Images, model: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Float[Tensor, " n"]]:
        still = frozen(model, images.shape[1:])
        found = []
        for part in torch.split(images, BATCH):
            filled = torch.cat([part, part[:1].expand(BATCH - len(part), -1, -1, -1)])
            found.append(-self.masks(filled, still, state["noise"]).mean((1, 2, 3))[: len(part)])
        return {"mask": torch.cat(found)}

    @torch.enable_grad()
    def masks(
        self, images: Images, model: nn.Module, noise: Float[Tensor, "steps 1 c 1 1"]
    ) -> Float[Tensor, "n 1 h w"]:
        with torch.no_grad():
            wanted = model(images)
        raw = torch.ones_like(images[:, :1]).requires_grad_()
        adam = torch.optim.Adam([raw], lr=self.lr, betas=(0.1, 0.1))
        for colour in noise:
            mask = (raw.tanh() + 1) / 2
            change = (model(images * mask + (1 - mask) * colour) - wanted).abs().mean(1)
            loss = change + self.gamma * mask.sum((1, 2, 3)) + self.beta * variation(mask)
            adam.zero_grad()
            loss.sum().backward()
            adam.step()
        return (raw.detach().tanh() + 1) / 2


def variation(mask: Float[Tensor, "n 1 h w"]) -> Float[Tensor, " n"]:
    """Total variation: the sum of squared differences of neighbouring pixels, divided by the number of pixels."""
    down, right = mask.diff(dim=2), mask.diff(dim=3)
    total: Tensor = down.square().sum((1, 2, 3)) + right.square().sum((1, 2, 3))
    return total / mask[0].numel()
