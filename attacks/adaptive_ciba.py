"""CIBA whose perturbations also keep the features of the images near those of their class."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from attacks.helpers.confusing import PerturbedPatch, objective, perturb
from attacks.helpers.latent import spread
from bench.api.attack import AttackerView, Rng, Share, attack
from bench.api.card import Card
from bench.api.types import Images
from hashing.inference import frozen
from hashing.model import HashModel

CARD = Card(
    title="HashDoor's own, not published: Backdoor Attack on Hash-based Image Retrieval via Clean-label Data Poisoning"
    " with a term against defenses on features",
    venue="BMVC",
    year=2023,
    url="https://arxiv.org/abs/2109.08868",
    follows="ciba, with one more term in eq. (5): minus `hide` times the mean squared distance of the features of"
    " perturbed and clean images, as a share of the spread of the clean features of a batch",
    deviates="hide = 0 is ciba with pairs = 'unordered'; features are those of the attacker's surrogate; guess: hide ="
    " 1, so that features that move by the spread of their class cost one bit",
)


@attack
class AdaptiveCIBA(PerturbedPatch):
    shares_trigger_with: ClassVar[str | None] = "tri"
    not_in_trigger: ClassVar[frozenset[str]] = PerturbedPatch.not_in_trigger | {"lam", "hide"}

    lam: Share = 0.8  # as ciba
    """Weight lambda of the dispersion of the codes; the adversarial loss has the weight 1 - lambda."""
    hide: Annotated[float, Field(ge=0)] = 1.0  # guess: see CARD
    """Bits that a move of the features by the spread of their class costs."""

    def disturb(self, view: AttackerView, images: Images, rng: Rng) -> Images:
        del rng
        model = frozen(view.surrogates[0], images.shape[1:])
        assert isinstance(model, HashModel)

        def maximise(features: Float[Tensor, "n d"], clean: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
            codes, own = model.head(features).tanh(), model.head(clean).tanh()
            goal = own if self.reference == "relaxed" else torch.where(own > 0, 1.0, -1.0)
            moved = (features - clean).square().sum(1).mean() / spread(clean)
            return objective(codes, goal, self.lam) - self.hide * moved

        found = perturb(
            model.features, images.to(model.device), maximise, eps=self.eps, iterations=self.iterations,
            step=self.step * self.eps, batch=self.confusing_batch, relax=lambda features: features,
        )  # fmt: skip
        return found.to(images.device)
