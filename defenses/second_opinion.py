"""Compare the code of the query with the code of a second network, which is trained on clean images only."""

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
from hashing.inference import Inference, encode
from hashing.model import HashModel

CARD = Card(
    title="HashDoor's own idea, not published; its one step is Distilling the Knowledge in a Neural Network",
    venue="arXiv",
    year=2015,
    url="https://arxiv.org/abs/1503.02531",
    follows="a student, the untrained network of the victim, learns the bits that the victim gives to clean trusted"
    " images: binary cross-entropy per bit, with (tanh + 1) / 2 as probability; neither labels nor the victim's loss"
    " are used",
    deviates="the idea is made for codes: hard bits are distilled, and the student's purpose is the bits in which it"
    " contradicts the victim; initialisation and normalisation are the victim's. guess: 30 epochs in batches of 32,"
    " otherwise the victim's recipe; a recipe with small rates for public weights trains a network from scratch too"
    " slowly, and the noted agreement then stays at .5. Epochs, batch and headline score were chosen on small models of"
    " digits and CIFAR-10 under badnets, darkhash and sig, on trusted images with and without trigger",
)


@defense
class SecondOpinion(InputDetector):
    """The scores.

    cosine: minus the cosine similarity of the victim's code and the student's logits. distance: expected share of bits
    in which the student differs from the victim's code.
    """

    epochs: Annotated[int, Field(ge=1)] = 30  # guess: see CARD
    """Training epochs of the student."""
    batch: Annotated[int, Field(ge=4)] = 32  # guess: enough steps with a few hundred images
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
        # tensors that equal the victim's, such as frozen public weights, are not stored
        taught, own = learned.state_dict(), view.model.state_dict()
        return {name: value for name, value in taught.items() if name in own and not torch.equal(value, own[name])}

    def score(self, images: Images, model: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Float[Tensor, " n"]]:
        model.eval()
        signs = torch.where(Inference(model, images.shape[1:]).logits(images) > 0, 1.0, -1.0)
        logits: Tensor = functional_call(model, dict(state), (images,))
        return {
            "cosine": -F.cosine_similarity(signs, logits),
            "distance": (1 - (signs * logits.tanh()).mean(1)) / 2,
        }


class Imitation(Objective):
    """Minus the log-likelihood of given bits; the probability of a one is (tanh z + 1) / 2 = sigmoid(2z)."""

    imitated: Tensor

    def __init__(self, codes: Float[Tensor, "n b"]) -> None:
        """codes: 1 or 0 per bit, for each image of the training set."""
        super().__init__()
        self.register_buffer("imitated", codes)

    def forward(self, logits: Logits, labels: Bool[Tensor, "n k"], ids: Int64[Tensor, " n"], progress: float) -> Tensor:
        del labels, progress
        return F.binary_cross_entropy_with_logits(2 * logits, self.imitated[ids])
