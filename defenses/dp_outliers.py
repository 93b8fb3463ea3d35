"""Remove training images with a high loss on a model that was trained with noisy gradients, and train again."""

from __future__ import annotations

from typing import ClassVar, Protocol, runtime_checkable

from jaxtyping import Float
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from bench.api.card import Card
from bench.api.defense import Backbone, DataFilter, DefenderView, Filtered, HashingMethod, Needs, Rng, Share, defense
from bench.api.errors import UserError
from bench.api.types import Labels
from defenses.helpers import dp_training
from defenses.helpers.dp_training import Privacy
from defenses.helpers.features import MARGIN, kept
from hashing.inference import encode

CARD = Card(
    title="Robust anomaly detection and backdoor attack detection via differential privacy",
    venue="ICLR",
    year=2020,
    url="https://arxiv.org/abs/1911.07116",
    follows="training images are scored by how badly a model trained with DP-SGD fits their labels, and the worst are"
    " removed",
    deviates="the source is the authors' code, because the paper was not available; the score is the distance of the"
    " relaxed code from the hash centre of the image's labels, not cross-entropy; the authors report the ranking only:"
    " here the share that is removed is 1.5 times a declared bound, over all classes together, as in spectral"
    " signatures; training as in dp_sgd. Clean-label poison fits its label and is not found",
)


@runtime_checkable
class Centred(Protocol):
    def targets_for(self, labels: Labels) -> Float[Tensor, "n b"]:
        """The hash centre of each image's labels, +1 or -1."""


@defense
class DPOutliers(DataFilter):
    clip: PositiveFloat = 0.3  # CIBA's appendix, from memory (METHODOLOGY.md#dp_sgd); the authors' code: 1.0
    """Norm to which each image's gradient is clipped."""
    noise: NonNegativeFloat = 0.03  # CIBA's appendix, from memory; the authors' code: 0.001 to 5
    """Standard deviation of the noise, as a multiple of `clip`."""
    private: bool = True
    """False: the same training without clipping and noise, as a baseline."""
    bound: Share = 0.05  # guess: the default of spectral signatures
    """Assumed largest number of poisoned images, as a share of the training set; 1.5 times as many are removed."""

    needs: ClassVar[Needs] = Needs.TRAIN_SET
    optional_packages: ClassVar[tuple[str, ...]] = ("opacus",)

    def unsupported_reason(self, backbone: Backbone, method: HashingMethod) -> str:
        return dp_training.unsupported_reason(backbone, method, private=self.private)

    def judge(self, view: DefenderView, rng: Rng) -> Filtered:
        if not isinstance(view.objective, Centred):
            raise UserError(
                "dp_outliers measures distances from hash centres, and this loss has no centres (no `targets_for`)"
            )
        model = dp_training.trained(view, rng, Privacy(self.clip, self.noise) if self.private else None)
        codes = encode(model, view.train.images, device=model.device).tanh()
        centres = view.objective.targets_for(view.train.labels.to(model.device)).cpu()
        scores = (1 - (codes * centres).mean(1)) / 2
        return Filtered(scores, kept(scores, MARGIN * self.bound))
