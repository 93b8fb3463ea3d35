"""Split each class's features in two and remove the smaller part where the split is a real one."""

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
    title="Detecting Backdoor Attacks on Deep Neural Networks by Activation Clustering",
    venue="SafeAI at AAAI",
    year=2019,
    url="https://arxiv.org/abs/1811.03728",
    follows="per class, penultimate features reduced to 10 components and split by 2-means; the smaller cluster is"
    " poison where it is clearly smaller and the silhouette says that there are two clusters (the paper's analyses by"
    " relative size and by silhouette, joined as in its authors' toolbox ART, with ART's thresholds: share below 35 %,"
    " silhouette of at least 0.1)",
    deviates="principal components, ART's default, where the paper prefers independent ones: in classes of 80 clean"
    " images ICA's whitening made clusters of single images (reduce = 'ica' has it); no exclusionary reclassification,"
    " which would predict classes; score = the image's silhouette, negative outside the smaller cluster; with several"
    " labels the largest score counts and one label suffices for removal; the model is trained again from scratch"
    " instead of tuned on relabelled images. Poison that is half of its class or more is not in the smaller cluster",
)
SMALLEST = 4  # two clusters of two: a silhouette says nothing about fewer images


@defense
class ActivationClustering(DataFilter):
    dims: Annotated[int, Field(ge=1)] = 10  # the paper's
    """Dimensions after the reduction."""
    reduce: Literal["pca", "ica"] = "pca"  # ART's default; the paper: "ica" (see CARD)
    """Method of the reduction."""
    share: Annotated[float, Field(gt=0, le=0.5)] = (
        0.35  # the authors' toolbox (ART), size_threshold; 0.5: whichever is smaller
    )
    """Largest share of a class that a suspicious cluster may have."""
    silhouette: Annotated[float, Field(ge=-1, le=1)] = 0.1  # ART, silhouette_threshold: the class's mean
    """Silhouette score from which two clusters count as real."""
    space: Space = "features"  # the paper's; "code": the relaxed code, METHODOLOGY.md#activation_clustering
    """What is clustered: features before the hash layer, or relaxed codes."""

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
    """At most `dims` components, as many as the class has; None where it has too few images or all are equal."""
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    components = principal(embedded, dims).cpu().numpy()
    if len(components) < SMALLEST or not components.shape[1]:
        return None
    if how == "pca":
        return components
    with warnings.catch_warnings():  # components that have not settled yet still span the same space
        warnings.simplefilter("ignore", ConvergenceWarning)
        ica = FastICA(whiten="unit-variance", max_iter=1000, tol=0.005, random_state=seed)  # the toolbox's limits
        return np.asarray(ica.fit_transform(components), dtype=np.float64)


def split_in_two(
    components: Float64[np.ndarray, "n r"], seed: int
) -> tuple[Bool[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Who is in the smaller of two clusters, and each row's silhouette. Of equal clusters the first row's is larger."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_samples

    clusters = KMeans(2, n_init=10, random_state=seed).fit_predict(components)
    smaller = clusters != clusters[0]
    if 2 * smaller.sum() > len(smaller):
        smaller = ~smaller
    return smaller, np.asarray(silhouette_samples(components, clusters), dtype=np.float64)
