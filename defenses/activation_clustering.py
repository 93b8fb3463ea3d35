"""Split each class's features into two clusters, and remove the smaller one if the clusters are distinct."""

from __future__ import annotations

import warnings
from typing import Annotated, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from pydantic import Field
from torch import Tensor

from bench.api.card import Card
from bench.api.defense import DataFilter, DefenderView, Filtered, Rng, defense
from defenses.helpers.features import Space, by_label, embed, principal

CARD = Card(
    name="Activation Clustering",
    title="Detecting Backdoor Attacks on Deep Neural Networks by Activation Clustering",
    venue="SafeAI at AAAI",
    year=2019,
    url="https://arxiv.org/abs/1811.03728",
    follows="per class, penultimate features are reduced to 10 components and split by 2-means; the smaller cluster is"
    " poison if its share is below 35 % and the silhouette is at least 0.1 (the paper's analyses by relative size and"
    " by silhouette, combined with the thresholds of its authors' toolbox ART)",
    deviates="principal components, ART's default, are used, while the paper prefers independent ones: in classes of 80"
    " clean images the whitening of ICA made clusters of single images (reduce = 'ica' selects it); there is no"
    " exclusionary reclassification, because it needs class predictions; the score is the image's silhouette, negative"
    " outside the smaller cluster; an image with several labels gets the largest score and is removed if one label says"
    " so; the model is trained again from scratch, not tuned on relabelled images. Poison that is half of its class or"
    " more is not in the smaller cluster",
)
SMALLEST = 4  # two clusters of two; for fewer images a silhouette has no meaning


@defense
class ActivationClustering(DataFilter):
    dims: Annotated[int, Field(ge=1)] = 10  # the paper
    """Dimensions after the reduction."""
    reduce: Literal["pca", "ica"] = "pca"  # ART; the paper has "ica" (see CARD)
    """Method of the reduction."""
    share: Annotated[float, Field(gt=0, le=0.5)] = 0.35  # ART, size_threshold
    """The smaller cluster is suspicious only up to this share of the class; 0.5: always suspicious."""
    silhouette: Annotated[float, Field(ge=-1, le=1)] = 0.1  # ART, silhouette_threshold
    """The two clusters of a class are distinct if their mean silhouette is at least this value."""
    space: Space = "features"  # the paper; METHODOLOGY.md#activation_clustering
    """Input of the clustering: features before the hash layer, or relaxed codes."""

    def judge(self, view: DefenderView, rng: Rng) -> Filtered:
        embedded = embed(view, self.space)
        seed = rng.seed % 2**32
        view.notes["classes with a suspect cluster"] = 0.0

        def judge(own: Int64[Tensor, " m"]) -> tuple[Float[Tensor, " m"], Bool[Tensor, " m"]]:
            components = reduced(embedded[own.to(embedded.device)], self.dims, self.reduce, seed)
            if components is None:
                return torch.full((len(own),), -1.0), torch.zeros(len(own), dtype=torch.bool)
            smaller, cohesion = split_in_two(components, seed)
            suspect = smaller.mean() < self.share and cohesion.mean() >= self.silhouette
            view.notes["classes with a suspect cluster"] += float(suspect)
            return torch.from_numpy(np.where(smaller, cohesion, -cohesion)).float(), torch.from_numpy(smaller & suspect)

        scores, removed = by_label(view.train.labels, judge, lowest=-1.0)
        return Filtered(scores, ~removed)


def reduced(
    embedded: Float[Tensor, "n d"], dims: int, how: Literal["pca", "ica"], seed: int
) -> Float64[np.ndarray, "n r"] | None:
    """At most `dims` components of a class; None if it has too few images or all are equal."""
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    components = principal(embedded, dims).cpu().numpy()
    if len(components) < SMALLEST or not components.shape[1]:
        return None
    if how == "pca":
        return components
    with warnings.catch_warnings():  # components before convergence span the same space
        warnings.simplefilter("ignore", ConvergenceWarning)
        ica = FastICA(whiten="unit-variance", max_iter=1000, tol=0.005, random_state=seed)  # the toolbox's limits
        return np.asarray(ica.fit_transform(components), dtype=np.float64)


def split_in_two(
    components: Float64[np.ndarray, "n r"], seed: int
) -> tuple[Bool[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """The rows in the smaller of two clusters, and the silhouette of each row.

    If both clusters have the same size, the one with the first row counts as the larger.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_samples

    clusters = KMeans(2, n_init=10, random_state=seed).fit_predict(components)
    smaller = clusters != clusters[0]
    if 2 * smaller.sum() > len(smaller):
        smaller = ~smaller
    return smaller, np.asarray(silhouette_samples(components, clusters), dtype=np.float64)
