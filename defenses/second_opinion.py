"""Compare the code of the query with the code of a second network, which is trained on clean images only."""

from __future__ import annotations

import copy
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
from bench.api.types import Logits, to_unit
from hashing.inference import Inference, encode
from hashing.model import HashModel

CARD = Card(
    title="HashDoor's own idea, not published; its one step is Distilling the Knowledge in a Neural Network",
    venue="arXiv",
    year=2015,
    url="https://arxiv.org/abs/1503.02531",
    follows="a student, the untrained network of the victim, learns the bits that the victim gives to clean trusted"
    " images: binary cross-entropy per bit, with (tanh + 1) / 2 as probability; neither labels nor the victim's loss"
    " are used. Two published detectors compare a suspect with a second encoder too: Model Pairing Using Embedding"
    " Translation (arXiv 2402.18718) by a linear map between embeddings and their cosine similarity, The Platonic"
    " Defense (arXiv 2606.29451) by an energy function that is learned on pairs of embeddings. The score `translation`"
    " is the linear map, as a baseline without a student",
    deviates="the idea is made for codes: hard bits are distilled, and the student's purpose is the bits in which it"
    " contradicts the victim; initialisation and normalisation are the victim's. guess: 30 epochs in batches of 32,"
    " otherwise the victim's recipe; a recipe with small rates for public weights trains a network from scratch too"
    " slowly, and the noted agreement then stays at .5. Epochs, batch and headline score were chosen on small models of"
    " digits and CIFAR-10 under badnets, darkhash and sig, on trusted images with and without trigger. Of the two"
    " papers only the abstracts were read. guess for `translation`: the second encoder is the victim's network before"
    " training (public or random weights), because a defender has no other model here; the map goes from its features"
    " to the victim's logits, where the paper maps the suspect's embedding; it is a ridge regression on standardised"
    " features whose strength minimises the leave-one-out error",
)
STRENGTHS = torch.logspace(-3, 5, 33, dtype=torch.float64)  # of the ridge regression, that are tried
REFERENCE = "reference."  # before the names of tensors of the network before training


@defense
class SecondOpinion(InputDetector):
    """The scores.

    cosine: minus the cosine similarity of the victim's code and the student's logits. distance: expected share of bits
    in which the student differs from the victim's code. translation: minus the cosine similarity of the victim's code
    and the logits that a linear map predicts from the features of the network before training.
    """

    epochs: Annotated[int, Field(ge=1)] = 30  # guess: see CARD
    """Training epochs of the student."""
    batch: Annotated[int, Field(ge=4)] = 32  # guess: enough steps with a few hundred images
    """Images per training step."""

    def fit(self, view: DefenderView, rng: Rng) -> Mapping[str, Tensor]:
        images = view.fit_set.images
        logits = encode(view.model, images, device=images.device)
        student, reference = view.untrained(), view.untrained()
        assert isinstance(student, HashModel)
        student.objective = Imitation((logits > 0).float().to(images.device))
        recipe = replace(view.recipe, epochs=self.epochs, batch=self.batch)
        learned = view.train_model(student, view.fit_set, recipe, rng)
        held_out = view.calibration_set.images
        beliefs, bits = (encode(model, held_out, device=images.device) > 0 for model in (learned, view.model))
        view.notes["agreement"] = float((beliefs == bits).float().mean())
        features = Inference(reference, images.shape[1:]).features(to_unit(images))
        translation, view.notes["ridge strength"] = linear_map(features, logits)
        before = {REFERENCE + name: value for name, value in unlike(reference, view.model).items()}
        return {**unlike(learned, view.model), **before, **translation}

    def score(self, images: Images, model: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Float[Tensor, " n"]]:
        model.eval()
        signs = torch.where(Inference(model, images.shape[1:]).logits(images) > 0, 1.0, -1.0)
        before = {name.removeprefix(REFERENCE): state[name] for name in state if name.startswith(REFERENCE)}
        taught = {name: value for name, value in state.items() if name in model.state_dict()}
        logits: Tensor = functional_call(model, taught, (images,))
        translated = with_tensors(model, before).features(images) @ state["translation.weight"].T
        return {
            "cosine": -F.cosine_similarity(signs, logits),
            "distance": (1 - (signs * logits.tanh()).mean(1)) / 2,
            "translation": -F.cosine_similarity(signs, translated + state["translation.bias"]),
        }


def unlike(network: nn.Module, victim: nn.Module) -> dict[str, Tensor]:
    """The tensors that differ from the victim's; others, such as frozen public weights, are not stored."""
    own = victim.state_dict()
    return {
        name: value for name, value in network.state_dict().items() if name in own and not torch.equal(value, own[name])
    }


def with_tensors(model: nn.Module, tensors: Mapping[str, Tensor]) -> HashModel:
    """A copy of the network with other tensors. The loss, which may hold a code per training image, is not copied."""
    assert isinstance(model, HashModel)
    copied = copy.deepcopy(model, {id(model.objective): model.objective})
    copied.load_state_dict(tensors, strict=False)
    return copied


def linear_map(features: Float[Tensor, "n d"], logits: Float[Tensor, "n b"]) -> tuple[dict[str, Tensor], float]:
    """Ridge regression with the least leave-one-out error: `translation.weight` [b d], `translation.bias` [b].

    Also returns its strength.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features.double().cpu().numpy())
    ridge = RidgeCV(STRENGTHS.numpy()).fit(scaler.transform(features.double().cpu().numpy()), logits.double().numpy())
    weight = ridge.coef_ / scaler.scale_
    found = {"translation.weight": weight, "translation.bias": ridge.intercept_ - weight @ scaler.mean_}
    tensors = {name: torch.from_numpy(value).float().to(features.device) for name, value in found.items()}
    return tensors, float(ridge.alpha_)


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
