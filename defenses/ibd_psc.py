"""Enlarge batch norms of the last layers; a code that keeps its class is a sign of a trigger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from bench.api.card import Card
from bench.api.defense import DefenderView, Images, InputDetector, Rng, defense
from bench.api.hashing import Backbone, HashingMethod
from bench.api.types import Logits, PositiveShare, to_unit
from defenses.helpers.code_posterior import fit_posterior, nearest_anchor, posterior
from defenses.helpers.ranks import ranks, two_sided
from defenses.helpers.trigger_inversion import class_anchors

CARD = Card(
    title="IBD-PSC: Input-level Backdoor Detection via Parameter-oriented Scaling Consistency",
    venue="ICML",
    year=2024,
    url="https://arxiv.org/abs/2405.09786",
    follows="weight and bias of the last k, ..., k + n - 1 batch norms are multiplied by 1.5; PSC is the mean"
    " confidence of these networks in the class that the unchanged network predicts; a high PSC is suspicious. k is"
    " the smallest number of batch norms at which more than 60 % of clean images lose their class (Algorithm 1), or the"
    " number of all batch norms if there is none. Batch norms are counted in the order of `named_modules`, as in the"
    " authors' BackdoorBox",
    deviates="codes have no softmax: the class is that of the nearest anchor, and the confidence is the class posterior"
    " of the unchanged network's codes, whose temperature and anchors are not fitted again for the enlarged networks."
    " BackdoorBox enlarges one batch norm more than the paper's equation (from k + 1 on), does not try all batch norms"
    " together and fails if no number loses 60 %. Networks that would need more batch norms than there are have all of"
    " them enlarged, as in BackdoorBox, so that a network of few layers has several equal ones. guess: multi-label"
    " images lose their class if the nearest anchor is that of none of their labels. The posterior of many clean images"
    " is the largest possible one, because relaxed codes saturate; `cosine` has no such ties. Under some triggers the"
    " class is lost sooner than without: hence `two_sided`. Both were added after a look at trusted images of digits,"
    " with seeds 5 and 7, under badnets and blend",
)
BATCH = 50  # images


@defense
class IbdPsc(InputDetector):
    """The scores.

    consistency: mean confidence of the enlarged networks in the class of the unchanged one (PSC).
    cosine: mean cosine similarity of their logits and the anchor of this class.
    two_sided: |2 rank - 1| of this cosine among the fit half, for triggers that lower it.
    """

    factor: Annotated[float, Field(gt=1)] = 1.5  # Section 5.1
    """Factor of the weights and biases of batch norms."""
    networks: Annotated[int, Field(ge=1)] = 5  # Section 5.1
    """Number of enlarged networks."""
    error: PositiveShare = 0.6  # Section 5.1
    """Share of clean images that must lose their class; gives the number of batch norms."""

    def unsupported_reason(self, backbone: Backbone, method: HashingMethod) -> str:
        del method
        return "" if backbone.batch_norm() else "it enlarges batch norms, and this backbone has none"

    def fit(self, view: DefenderView, rng: Rng) -> Mapping[str, Tensor]:
        del rng  # nothing is drawn
        trusted, model = view.fit_set, view.model.eval()
        images, known = to_unit(trusted.images), class_anchors(model, trusted)
        layers, start, lost = len(norms_of_maps(model)), 0, 0.0
        while start < layers and lost <= self.error:
            start += 1
            logits = torch.cat([self.enlarged(part, model, start) for part in torch.split(images, BATCH)])
            predicted = nearest_anchor(logits, known.codes)
            lost = float((~(known.classes[predicted] & trusted.labels).any(1)).double().mean())
        view.notes.update({"batch norms": float(start), "lost": lost})
        state = {name: value.to(images.device) for name, value in fit_posterior(model, trusted).items()}
        state["start"] = torch.tensor(start)
        found = torch.cat([self.compare(part, model, state)[1] for part in torch.split(images, BATCH)])
        return {**state, "clean": found.sort().values[None]}

    def score(self, images: Images, model: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Float[Tensor, " n"]]:
        consistency, cosine = self.compare(images, model, state)
        rank = ranks(cosine[None], state["clean"])[0]
        return {"consistency": consistency, "cosine": cosine, "two_sided": two_sided(rank)}

    @torch.no_grad()
    def compare(
        self, images: Images, model: nn.Module, state: Mapping[str, Tensor]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Mean confidence of the enlarged networks in the class, and mean cosine of their logits and its anchor."""
        model.eval()
        predicted, layers = nearest_anchor(model(images), state["anchors"]), len(norms_of_maps(model))
        counts = [min(int(state["start"]) + i, layers) for i in range(self.networks)]
        logits = {count: self.enlarged(images, model, count) for count in sorted(set(counts))}
        confidence = [posterior(logits[count], state).gather(1, predicted[:, None])[:, 0] for count in counts]
        cosine = [F.cosine_similarity(logits[count], state["anchors"][predicted]) for count in counts]
        return torch.stack(confidence).mean(0), torch.stack(cosine).mean(0)

    @torch.no_grad()
    def enlarged(self, images: Images, model: nn.Module, count: int) -> Logits:
        """Logits of the network whose last `count` batch norms are enlarged."""
        changed = {
            f"{name}.{kind}": self.factor * value
            for name, norm in norms_of_maps(model)[-count:]
            for kind, value in norm.named_parameters()
        }
        logits: Tensor = functional_call(model, changed, (images,))
        return logits


def norms_of_maps(model: nn.Module) -> list[tuple[str, nn.BatchNorm2d]]:
    return [(name, module) for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
