"""Neural Cleanse without labels: search for triggers for clusters of the database's codes."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from bench.api.card import Card
from bench.api.defense import DefenderView, ModelDetector, Needs, Rng, Verdict, defense
from defenses.helpers.trigger_inversion import Reversing, anomaly
from hashing.inference import encode

CARD = Card(
    title="Neural Cleanse: Identifying and Mitigating Backdoor Attacks in Neural Networks",
    venue="IEEE S&P",
    year=2019,
    url="https://ieeexplore.ieee.org/document/8835365",
    follows="neural_cleanse's search and index",
    deviates="as neural_cleanse; in place of classes, the search is for the medoids of k-means on the database's codes,"
    " and the images nearest to a medoid are its own, so that the score needs no labels; a suspected cluster is named"
    " after the most frequent label of its database items",
)


@defense
class NeuralCleanseFree(Reversing, ModelDetector):
    clusters: Annotated[int, Field(ge=1)] | None = None  # METHODOLOGY.md#neural_cleanse_free
    """Number of clusters of codes that are searched; default: one per class."""

    needs: ClassVar[Needs] = Needs.DATABASE

    def inspect(self, view: DefenderView, rng: Rng) -> Verdict:
        signs = view.database.signs
        medoids, belongs = clustered(signs, self.clusters or len(view.setting.classes), rng.child("clusters"))
        images = view.fit_set.images
        logits = encode(view.model, images, device=images.device).to(signs.device)
        likeness = torch.where(logits > 0, 1.0, -1.0) @ medoids.T
        own = likeness == likeness.amax(1, keepdim=True)
        found = self.reverse(view.model, images, own, medoids, rng)
        index, median, deviation = anomaly(found.sizes)
        score, at = float(index.max()), int(index.argmax())
        view.notes.update({f"size of cluster {cluster}": size for cluster, size in enumerate(found.sizes.tolist())})
        view.notes.update({"median size": median, "median deviation": deviation})
        held = view.database.labels[belongs[:, at].to(signs.device)].sum(0)
        return Verdict(score, int(held.argmax()) if score > 0 else None, alarm_at=2.0)


def clustered(signs: Float[Tensor, "m b"], clusters: int, rng: Rng) -> tuple[Float[Tensor, "g b"], Bool[Tensor, "m g"]]:
    """The medoids of k-means, largest cluster first, and the cluster of each item.

    There are at most as many clusters as distinct codes.
    """
    from sklearn.cluster import KMeans

    codes, inverse, counts = torch.unique(signs.cpu(), dim=0, return_inverse=True, return_counts=True)
    means = KMeans(n_clusters=min(clusters, len(codes)), n_init=10, random_state=rng.seed % 2**32)
    near = torch.from_numpy(means.fit_predict(codes.double().numpy(), sample_weight=counts.double().numpy())).long()
    inside = torch.nn.functional.one_hot(near).T.bool()
    inside = inside[(inside.double() @ counts.double()).argsort(descending=True, stable=True)]
    sums = (inside.float() * counts) @ codes
    likeness = torch.where(
        inside, sums @ codes.T, -torch.inf
    )  # the largest sum of products is the smallest sum of distances
    return codes[likeness.argmax(1)].to(signs.device), inside.T[inverse]
