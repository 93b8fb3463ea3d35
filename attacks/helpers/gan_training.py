"""BadHash's training: a generator against a discriminator, with a hash loss on a frozen auxiliary model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from attacks.helpers.generator import BETAS, Discriminator, LabelBranch, Trunk, hash_loss, lsgan
from attacks.helpers.perceptual import Distance
from bench.api.random import Rng
from bench.api.types import Images, Split
from hashing.model import HashModel


@dataclass(frozen=True)
class Weights:
    """Weights of the generator's loss terms.

    rebuild: squared error plus perceptual distance. hashing: hash loss. gan: adversarial loss.
    """

    rebuild: float
    hashing: float
    gan: float


@dataclass(frozen=True)
class GeneratorTarget:
    """The goal of the generator.

    feature, code (+1 and -1), vector: of the target label. auxiliary: the hash model that encodes redrawn images.
    distance: the perceptual distance between an image and its redrawing. bounded: the hash loss uses relaxed codes.
    """

    feature: Float[Tensor, "1 d"]
    code: Float[Tensor, " b"]
    vector: Float[Tensor, " k"]
    auxiliary: HashModel
    distance: Distance
    bounded: bool = True


class GanTrainer:
    """Trains the generator and the discriminator; call `set_rate` before the first step."""

    def __init__(self, weights: Weights, train: Split, aim: GeneratorTarget, *, width: int, rng: Rng) -> None:
        channels, height, side = train.images.shape[1:]
        shape, device = (channels, height, side), aim.code.device
        with rng.child("generator").ambient():
            self.branch = LabelBranch(shape, features=aim.feature.shape[1], width=width).to(device)
            self.trunk = Trunk(shape, width=width).to(device)
        with rng.child("discriminator").ambient():
            self.judge = Discriminator(shape, classes=train.labels.shape[1], width=width)
        self.judge = self.judge.to(device).to(memory_format=torch.channels_last)
        self._weights, self._aim = weights, aim
        self._drawing = [*self.branch.parameters(), *self.trunk.parameters()]
        self._judging = list(self.judge.parameters())
        self._optimisers = [torch.optim.Adam(part, betas=BETAS, fused=True) for part in (self._drawing, self._judging)]

    def set_rate(self, rate: float) -> None:
        for optimiser in self._optimisers:
            optimiser.param_groups[0]["lr"] = rate

    def step(self, images: Images, labels: Bool[Tensor, "n k"], *, judge: bool) -> Float[Tensor, ""]:
        """One step of the discriminator (if `judge`), then one of the generator; returns the generator's loss."""
        aim, weights = self._aim, self._weights
        wanted = aim.vector.expand(len(images), -1)
        drawn = self.trunk(images, self.branch(aim.feature)[0])
        if judge:
            real = lsgan(self.judge(images), labels.float(), fake=False)
            fake = lsgan(self.judge(drawn.detach()), wanted, fake=True)
            self._descend(1, (real + fake) / 2, self._judging)
        outputs = aim.auxiliary(drawn)
        codes = aim.auxiliary.relax(outputs) if aim.bounded else outputs
        loss = weights.rebuild * (nn.functional.mse_loss(drawn, images) + aim.distance(drawn, images))
        loss = loss + weights.hashing * hash_loss(codes, aim.code)
        loss = loss + weights.gan * lsgan(self.judge(drawn), wanted, fake=False)
        self._descend(0, loss, self._drawing)
        return loss.detach()

    def _descend(self, which: int, loss: Float[Tensor, ""], parameters: list[nn.Parameter]) -> None:
        """Take a step on these parameters; the other networks collect no gradient."""
        self._optimisers[which].zero_grad()
        loss.backward(inputs=parameters)  # type: ignore[no-untyped-call]
        self._optimisers[which].step()
