"""Blend clean images with a query; a code that stays the same is a sign of a trigger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from bench.api.card import Card
from bench.api.defense import DefenderView, Images, InputDetector, Needs, PositiveShare, Rng, defense
from bench.api.types import to_unit
from defenses.helpers.code_posterior import entropy, fit_posterior, posterior
from defenses.helpers.ranks import ranks, two_sided
from hashing.inference import Inference

CARD = Card(
    title="STRIP: A Defence Against Trojan Attacks on Deep Neural Networks",
    venue="ACSAC",
    year=2019,
    url="https://arxiv.org/abs/1902.06531",
    follows="N clean images are superimposed on each input, with weights 1 and 1 as in the original code; low entropy"
    " is suspicious",
    deviates="codes have no softmax: the posterior is a softmax over class anchors with a temperature that is fitted to"
    " smoothed targets; anchors and temperature are from the fit half, so that thresholds stay valid; four more scores"
    " (entropy of the mean posterior, labels of the nearest database items, dispersion of the codes, and the entropy's"
    " two-sided rank, for triggers that raise the entropy); overlays are the same for all queries; blended images are"
    " clipped to [0, 1] (the original's uint8 sum saturates; BackdoorBench does not clip, and blends normalised"
    " images); N = 64, the default of BackdoorBench's class (its program passes 100, the paper's code has 100)",
)
LIMIT = 2**24  # pixel values of blended images in memory at a time


@defense
class Strip(InputDetector):
    overlays: Annotated[int, Field(ge=2)] = 64  # BackdoorBench's default; 100 in the paper's code
    """Clean images that are laid over each query."""
    image_weight: PositiveShare = 1.0  # the original code adds the images
    """Weight of the query in the mix."""
    overlay_weight: PositiveShare = 1.0
    """Weight of the clean image in the mix."""
    neighbours: Annotated[int, Field(ge=1)] = 10  # guess: the first page of results
    """Nearest database items whose labels give the entropy."""

    needs: ClassVar[Needs] = Needs.DATABASE

    def fit(self, view: DefenderView, rng: Rng) -> Mapping[str, Tensor]:
        trusted = view.fit_set
        wanted = torch.arange(self.overlays) % len(trusted)  # images repeat only if the set is smaller
        chosen = rng.permutation(len(trusted))[wanted].to(trusted.images.device)
        codes, inverse = torch.unique(view.database.signs, dim=0, return_inverse=True)
        labels = torch.zeros(len(codes), view.database.labels.shape[1], device=codes.device)
        labels.index_add_(0, inverse, view.database.labels.float())
        state = {
            **fit_posterior(view.model, trusted),
            "overlays": to_unit(trusted.images[chosen]),
            "codes": codes,
            "labels": labels,
            "counts": torch.bincount(inverse, minlength=len(codes)).float(),
        }
        # images that are overlays too mix with themselves once in `overlays`, which moves their entropy little
        clean = self._scores(to_unit(trusted.images), view.model, state)["entropy"]
        return {**state, "clean": clean.sort().values}

    def score(self, images: Images, model: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Float[Tensor, " n"]]:
        scores = self._scores(images, model, state)
        rank = ranks(scores["entropy"][None], state["clean"][None])[0]
        return scores | {"two_sided": two_sided(rank)}

    def _scores(self, images: Images, model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Float[Tensor, " n"]]:
        inference = Inference(model, images.shape[1:])
        portions = torch.split(images, max(1, LIMIT // state["overlays"].numel()))
        parts = [self._score(portion, inference, state) for portion in portions]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _score(
        self, images: Images, inference: Inference, state: Mapping[str, Tensor]
    ) -> dict[str, Float[Tensor, " n"]]:
        n, overlays = len(images), state["overlays"]
        mixed = self.image_weight * images[:, None] + self.overlay_weight * overlays
        logits = inference.logits(mixed.clamp(0, 1).flatten(0, 1))
        probabilities = posterior(logits, state).reshape(n, len(overlays), -1)
        signs = torch.where(logits > 0, 1.0, -1.0)
        return {
            "entropy": -entropy(probabilities, state).mean(1),
            "consensus": -entropy(probabilities.mean(1), state),
            "retrieval": self.retrieval(signs, state, n),
            "dispersion": -dispersion(signs.reshape(n, len(overlays), -1)),
        }

    def retrieval(self, signs: Float[Tensor, "m b"], state: Mapping[str, Tensor], n: int) -> Float[Tensor, " n"]:
        """Minus the entropy of the labels of the nearest database items, pooled over the blended copies of an image.

        The database is distinct codes with counts. Items that are tied at the last rank share its places evenly.
        """
        codes, counts = state["codes"], state["counts"]
        k = counts.sum().clamp(max=self.neighbours)
        distances = (codes.shape[1] - signs @ codes.T) / 2
        nearest = distances.topk(min(self.neighbours, len(codes)), largest=False)
        reached = counts[nearest.indices].cumsum(1) >= k
        last = nearest.values.gather(1, reached.int().argmax(1, keepdim=True))
        inside, border = (distances < last).float(), (distances == last).float()
        share = (k - inside @ counts) / (border @ counts)
        votes = (inside + border * share[:, None]) @ state["labels"]
        pooled = votes.reshape(n, -1, votes.shape[1]).sum(1)
        total = pooled.sum(1, keepdim=True)
        even = torch.full_like(pooled, 1 / pooled.shape[1])  # neighbours without labels: all labels are equally likely
        entropies: Tensor = torch.special.entr(torch.where(total > 0, pooled / total.clamp_min(1e-9), even))
        return -entropies.sum(1)


def dispersion(signs: Float[Tensor, "n j b"]) -> Float[Tensor, " n"]:
    """Mean pairwise Hamming distance of each image's copies, as a share of the bits."""
    copies, bits = signs.shape[1:]
    ones = (signs > 0).float().sum(1)
    different: Tensor = (ones * (copies - ones)).sum(1)
    return different * (2 / (bits * copies * (copies - 1)))
