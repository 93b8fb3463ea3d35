"""Train again with clipped and noisy gradients, so that no few images can teach anything."""

from __future__ import annotations

from typing import ClassVar

from pydantic import NonNegativeFloat, PositiveFloat
from torch import nn

from bench.api.card import Card
from bench.api.defense import Backbone, DefenderView, HashingMethod, Needs, Repair, Rng, defense
from defenses.helpers import dp_training
from defenses.helpers.dp_training import Privacy

CARD = Card(
    title="Robust anomaly detection and backdoor attack detection via differential privacy",
    venue="ICLR",
    year=2020,
    url="https://arxiv.org/abs/1911.07116",
    follows="training from scratch on the suspected set by DP-SGD: each image's gradient clipped, normal noise added to"
    " their sum; the paper detects with that model, CIBA's appendix and this repair keep it",
    deviates="the paper was not read, its authors' code was (plain SGD, shuffled batches); the victim's optimiser,"
    " schedule, epochs and augmentation, since a model is compared with the victim; Poisson sampling; group in place of"
    " batch normalisation, whose own effect `private = false` shows; float32; clip and noise from CIBA's appendix, for"
    " at the authors' 1 and 0.5 clean digits lose a quarter of their mAP; no formal privacy is claimed: images are"
    " normalised by statistics of the training set, the generator is not a secure one, and at such noise epsilon is"
    " beyond 10,000",
)


@defense
class DPSGD(Repair):
    clip: PositiveFloat = 0.3  # CIBA's appendix, from memory (METHODOLOGY.md#dp_sgd); the authors' code: 1.0
    """Norm to which each image's gradient is clipped."""
    noise: NonNegativeFloat = 0.03  # times clip; CIBA's appendix, from memory; the authors' code: 0.001 to 5
    """Standard deviation of the noise, as a multiple of `clip`."""
    private: bool = True  # False: the same training without clipping and noise, the baseline to compare with
    """False: the same training without clipping and noise, the baseline."""

    needs: ClassVar[Needs] = Needs.TRAIN_SET
    optional_packages: ClassVar[tuple[str, ...]] = ("opacus",)

    def unsupported_reason(self, backbone: Backbone, method: HashingMethod) -> str:
        return dp_training.unsupported_reason(backbone, method, private=self.private)

    def repair(self, view: DefenderView, rng: Rng) -> nn.Module:
        return dp_training.trained(view, rng, Privacy(self.clip, self.noise) if self.private else None)
