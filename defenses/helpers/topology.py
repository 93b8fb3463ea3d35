"""What TED and TED++ share: ranks of the nearest clean image of a class after each layer, scored by PyOD's PCA."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from bench.api.defense import DefenderView, Images, InputDetector, Rng
from bench.api.types import to_unit
from defenses.helpers.code_posterior import nearest_anchor
from defenses.helpers.trigger_inversion import class_anchors
from hashing.inference import Inference

BATCH = 50  # images
Components = int | float | str  # of scikit-learn's PCA: a number, a share of the variance, or a rule


class Layers(NamedTuple):
    """distances: from images to the clean images after each layer. same: whether these have the predicted class."""

    distances: list[Float[Tensor, "n m"]]
    same: Bool[Tensor, "n m"]


class Topology(InputDetector):
    """Score: `topology`, the outlier score of the ranks after each layer."""

    @abstractmethod
    def components(self, images: int, layers: int) -> Components:
        """Number of components of the PCA: see scikit-learn."""

    def measure(self, layers: Layers) -> dict[str, Float[Tensor, "n layers"]]:
        """What is kept of the clean images among each other, a row for each."""
        del layers
        return {}

    @abstractmethod
    def ranks(
        self, layers: Layers, state: Mapping[str, Tensor], itself: Int64[Tensor, " n"] | None
    ) -> Float[Tensor, "n layers"]:
        """The rank of each image after each layer. itself: places of the images among the clean ones, if they are."""

    def fit(self, view: DefenderView, rng: Rng) -> Mapping[str, Tensor]:
        del rng  # nothing is drawn
        trusted = view.fit_set
        known = class_anchors(view.model, trusted)
        images = to_unit(trusted.images)
        predicted = nearest_anchor(Inference(view.model, images.shape[1:]).logits(images), known.codes)
        right = (known.classes[predicted] & trusted.labels).any(1)
        if int(right.sum()) < 2:  # an image needs another one
            right = torch.ones_like(right)
        images, predicted = images[right], predicted[right]
        view.notes["clean images"] = float(len(images))
        state = {"anchors": known.codes, "images": images, "predicted": predicted}
        places = torch.split(torch.arange(len(images), device=images.device), BATCH)
        followed = [follow(images[at], view.model, state) for at in places]
        measured = [self.measure(layers) for layers in followed]
        state.update({name: torch.cat([part[name] for part in measured]) for name in measured[0]})
        parts = [self.ranks(layers, state, at) for layers, at in zip(followed, places, strict=True)]
        ranks = torch.cat(parts).cpu().numpy()
        return {**state, **outlier_model(ranks, self.components(*ranks.shape), images.device)}

    def score(self, images: Images, model: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Float[Tensor, " n"]]:
        return {"topology": outlier_scores(self.ranks(follow(images, model, state), state, None), state).float()}


@torch.inference_mode()
def follow(images: Images, model: nn.Module, state: Mapping[str, Tensor]) -> Layers:
    """Images and clean images pass the network together, so that only their distances are stored."""
    n, distances = len(images), list[Tensor]()

    def compare(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        del module, inputs
        rows = output.flatten(1).float()
        distances.append(torch.cdist(rows[:n], rows[n:], compute_mode="donot_use_mm_for_euclid_dist"))

    handles = [module.register_forward_hook(compare) for module in model.modules() if is_layer(module)]
    try:
        logits = model.eval()(torch.cat([images, state["images"]]))[:n]
    finally:
        for handle in handles:
            handle.remove()
    return Layers(distances, nearest_anchor(logits, state["anchors"])[:, None] == state["predicted"])


def is_layer(module: nn.Module) -> bool:
    wide = isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1)
    return wide or isinstance(module, nn.ReLU | nn.Linear)


def first_rank(
    distances: Float[Tensor, "n m"], same: Bool[Tensor, "n m"], itself: Int64[Tensor, " n"] | None
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"], Int64[Tensor, " n"]]:
    """How many clean images are nearer than the nearest one of the same class, its distance, and its place.

    If there is none: m, infinity and 0. itself: a clean image to leave out in each row.
    """
    if itself is not None:
        rows = torch.arange(len(distances), device=distances.device)
        distances, same = distances.clone(), same.clone()
        distances[rows, itself], same[rows, itself] = torch.inf, False
    best, place = torch.where(same, distances, torch.inf).min(1)
    nearer = (distances < best[:, None]).sum(1).double()
    return torch.where(same.any(1), nearer, float(distances.shape[1])), best, place


def outlier_model(ranks: np.ndarray, components: Components, device: torch.device) -> dict[str, Tensor]:
    """PyOD's PCA detector: the ranks' `mean` and `scale`, and principal `components` with their shares of variance."""
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(ranks)
    scaled = scaler.transform(ranks)
    vectors, weights = np.zeros((1, ranks.shape[1])), np.ones(1)
    if scaled.any():
        pca = PCA(components, svd_solver="full").fit(scaled)
        kept = pca.explained_variance_ratio_ > np.finfo(np.float64).eps
        vectors, weights = pca.components_[kept], pca.explained_variance_ratio_[kept]
    found = {"mean": scaler.mean_, "scale": scaler.scale_, "components": vectors, "weights": weights}
    return {name: torch.from_numpy(value).to(device) for name, value in found.items()}


def outlier_scores(ranks: Float[Tensor, "n layers"], state: Mapping[str, Tensor]) -> Float[Tensor, " n"]:
    """PyOD's score: the sum of the distances between standardised ranks and each component, divided by its share."""
    scaled = (ranks - state["mean"]) / state["scale"]
    return (torch.cdist(scaled, state["components"]) / state["weights"]).sum(1)
