"""Ask a network that has only seen clean images for the query's code: a trigger speaks to one of the two alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from bench.api.card import Card
from bench.api.defense import DefenderView, Images, InputDetector, Rng, defense
from bench.api.hashing import Objective
from bench.api.types import Logits
from hashing.model import HashModel, encode

CARD = Card(
    title="HashDoor's own idea, not published; its one step is Distilling the Knowledge in a Neural Network",
    venue="arXiv",
    year=2015,
    url="https://arxiv.org/abs/1503.02531",
    follows="the victim's network, untrained, learns to give clean trusted images the bits that the victim gives them:"
    " binary cross-entropy of each bit, the student's tanh being its belief; neither labels nor the victim's loss take"
    " part",
    deviates="made for codes: what is distilled are hard bits, and the student is not wanted for its skill but for the"
    " bits in which it contradicts the victim; initialisation and normalisation are the victim's. guess: 30 epochs in"
    " batches of 32, otherwise the victim's recipe: one with small rates for public weights teaches a network from"
    " scratch nothing in so few steps, and the noted agreement then stays at .5. Epochs, batch and headline score were"
    " chosen on small models of digits and CIFAR-10 under badnets, darkhash and sig, by trusted images with and without"
    " trigger",
)


@defense
class SecondOpinion(InputDetector):
    """Scores: `cosine`, minus that of the victim's code and the student's logits; `distance`, in expected bits / K."""

    epochs: Annotated[int, Field(ge=1)] = 30  # guess: see CARD
    """Training epochs of the student."""
    batch: Annotated[int, Field(ge=4)] = 32  # guess: a few hundred images still make some hundred steps
    """Images per training step."""

    def fit(self, view: DefenderView, rng: Rng) -> Mapping[str, Tensor]:
        images = view.fit_set.images
        codes = encode(view.model, images, device=images.device) > 0
        student = view.untrained()
        assert isinstance(student, HashModel)
        student.objective = Imitation(codes.float().to(images.device))
        recipe = replace(view.recipe, epochs=self.epochs, batch=self.batch)
        learned = view.train_model(student, view.fit_set, recipe, rng)
        held_out = view.calibration_set.images
        beliefs, bits = (encode(model, held_out, device=images.device) > 0 for model in (learned, view.model))
        view.notes["agreement"] = float((beliefs == bits).float().mean())
        # what is frozen, as public weights are, need not be kept twice
        taught, own = learned.state_dict(), view.model.state_dict()
        return {name: value for name, value in taught.items() if name in own and not torch.equal(value, own[name])}

    def score(self, images: Images, model: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Float[Tensor, " n"]]:
        model.eval()
        signs = torch.where(model(images) > 0, 1.0, -1.0)
        logits: Tensor = functional_call(model, dict(state), (images,))
        return {
            "cosine": -F.cosine_similarity(signs, logits),
            "distance": (1 - (signs * logits.tanh()).mean(1)) / 2,
        }


class Imitation(Objective):
    """Minus the log-likelihood of given bits, (tanh z + 1) / 2 = sigmoid 2z being the probability of a one."""

    imitated: Tensor

    def __init__(self, codes: Float[Tensor, "n b"]) -> None:
        """codes: 1 and 0, one per image of the training set."""
        super().__init__()
        self.register_buffer("imitated", codes)

    def forward(self, logits: Logits, labels: Bool[Tensor, "n k"], ids: Int64[Tensor, " n"], progress: float) -> Tensor:
        del labels, progress
        return F.binary_cross_entropy_with_logits(2 * logits, self.imitated[ids])
