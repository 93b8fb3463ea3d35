"""Follow through the layers how near a query is to images of its class; a trigger brings it there only late."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from bench.api.card import Card
from bench.api.defense import DefenderView, Images, InputDetector, Rng, defense
from bench.api.types import to_unit
from defenses.helpers.code_posterior import nearest_anchor
from defenses.helpers.trigger_inversion import class_anchors
from hashing.inference import Inference

CARD = Card(
    title="Robust Backdoor Detection for Deep Learning via Topological Evolution Dynamics",
    venue="IEEE S&P",
    year=2024,
    url="https://arxiv.org/abs/2312.02673",
    follows="after each layer, the rank of the nearest clean image with the query's predicted class among all clean"
    " images (Euclidean distance of flattened activations); these ranks are scored by the PCA outlier detector of PyOD,"
    " fitted to the ranks of the clean images among each other; clean images are those that are predicted as their"
    " label. Layers as in the authors' notebook: convolutions larger than 1 x 1, ReLUs and linear layers",
    deviates="codes have no softmax: the predicted class is that of the nearest anchor; clean images are the fit half"
    " alone, with about ten images of a class on digits instead of at least 20; a module that runs several times counts"
    " each time; guess: a query whose class no clean image has gets the last rank plus 1 (the notebook leaves it out),"
    " and with fewer clean images than layers the PCA keeps 95 % of the variance, because Minka's estimate (`mle`)"
    " needs more",
)
BATCH = 50  # images


@defense
class Ted(InputDetector):
    """Score: `topology`, the outlier score of the ranks."""

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
        places = torch.arange(len(images), device=images.device)
        parts = [self.trajectories(images[at], view.model, state, itself=at) for at in torch.split(places, BATCH)]
        return {**state, **outlier_model(torch.cat(parts).cpu().numpy(), images.device)}

    def score(self, images: Images, model: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Float[Tensor, " n"]]:
        return {"topology": outlier_scores(self.trajectories(images, model, state), state).float()}

    @torch.inference_mode()
    def trajectories(
        self, images: Images, model: nn.Module, state: Mapping[str, Tensor], itself: Int64[Tensor, " n"] | None = None
    ) -> Float[Tensor, "n layers"]:
        """The rank of each image after each layer. itself: places of the images among the clean ones, if they are some.

        Images and clean images pass the network together, so that only their distances are stored.
        """
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
        same = nearest_anchor(logits, state["anchors"])[:, None] == state["predicted"]
        return torch.stack([first_rank(found, same, itself) for found in distances], 1)


def is_layer(module: nn.Module) -> bool:
    wide = isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1)
    return wide or isinstance(module, nn.ReLU | nn.Linear)


def first_rank(
    distances: Float[Tensor, "n m"], same: Tensor, itself: Int64[Tensor, " n"] | None
) -> Float[Tensor, " n"]:
    """How many clean images are nearer than the nearest one of the same class; m if there is none.

    itself: a clean image to leave out in each row.
    """
    if itself is not None:
        rows = torch.arange(len(distances), device=distances.device)
        distances, same = distances.clone(), same.clone()
        distances[rows, itself], same[rows, itself] = torch.inf, False
    best = torch.where(same, distances, torch.inf).amin(1, keepdim=True)
    nearer = (distances < best).sum(1).double()
    return torch.where(same.any(1), nearer, float(distances.shape[1]))


def outlier_model(ranks: np.ndarray, device: torch.device) -> dict[str, Tensor]:
    """PyOD's PCA detector: the ranks' `mean` and `scale`, and principal `components` with their shares of variance."""
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(ranks)
    scaled = scaler.transform(ranks)
    components, weights = np.zeros((1, ranks.shape[1])), np.ones(1)
    if scaled.any():
        pca = PCA("mle" if len(ranks) >= ranks.shape[1] > 1 else 0.95, svd_solver="full").fit(scaled)
        components, weights = pca.components_, pca.explained_variance_ratio_
    found = {"mean": scaler.mean_, "scale": scaler.scale_, "components": components, "weights": weights}
    return {name: torch.from_numpy(value).to(device) for name, value in found.items()}


def outlier_scores(ranks: Float[Tensor, "n layers"], state: Mapping[str, Tensor]) -> Float[Tensor, " n"]:
    """PyOD's score: the sum of the distances between standardised ranks and each component, divided by its share."""
    scaled = (ranks - state["mean"]) / state["scale"]
    return (torch.cdist(scaled, state["components"]) / state["weights"]).sum(1)
