"""Train again with clipped and noisy gradients, which limits the influence of a few images."""

from __future__ import annotations

from typing import ClassVar

from pydantic import NonNegativeFloat, PositiveFloat
from torch import nn

from bench.api.card import Card
from bench.api.defense import Backbone, DefenderView, HashingMethod, Needs, Repair, Rng, defense
from defenses.helpers import dp_training
from defenses.helpers.dp_training import Privacy

CARD = Card(
    name="DP-SGD",
    title="Robust anomaly detection and backdoor attack detection via differential privacy",
    venue="ICLR",
    year=2020,
    url="https://arxiv.org/abs/1911.07116",
    follows="training from scratch on the suspected set by DP-SGD: each image's gradient is clipped, and normal noise"
    " is added to the sum; the paper uses the model for detection, CIBA's appendix and this repair use it as the"
    " result",
    deviates="the source is the authors' code (plain SGD, shuffled batches), because the paper was not available;"
    " optimiser, schedule, epochs and augmentation are the victim's, so that the two models can be compared; Poisson"
    " sampling; group normalisation replaces batch normalisation, and `private = false` shows the effect of that alone;"
    " float32; clip and noise are from CIBA's appendix, because clean digits lose a quarter of their mAP at the"
    " authors' 1 and 0.5. There is no formal privacy guarantee: images are normalised by statistics of the training"
    " set, the random generator is not secure, and epsilon is above 10,000 at such noise",
)


@defense
class DPSGD(Repair):
    clip: PositiveFloat = 0.3  # CIBA's appendix, from memory (METHODOLOGY.md#dp_sgd); the authors' code: 1.0
    """Norm to which each image's gradient is clipped."""
    noise: NonNegativeFloat = 0.03  # CIBA's appendix, from memory; the authors' code: 0.001 to 5
    """Standard deviation of the noise, as a multiple of `clip`."""
    private: bool = True
    """False: the same training without clipping and noise, as a baseline."""

    needs: ClassVar[Needs] = Needs.TRAIN_SET
    optional_packages: ClassVar[tuple[str, ...]] = ("opacus",)

    def unsupported_reason(self, backbone: Backbone, method: HashingMethod) -> str:
        return dp_training.unsupported_reason(backbone, method, private=self.private)

    def repair(self, view: DefenderView, rng: Rng) -> nn.Module:
        return dp_training.trained(view, rng, Privacy(self.clip, self.noise) if self.private else None)
