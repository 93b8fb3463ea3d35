"""Sizes of splits as shares of the images, where the user gives none."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Bool
from torch import Tensor

from hashing.datasets.helpers.splits import SHARE, Sizes

# guess: half of the images to learn from; enough queries and trusted images for thresholds; the rest to retrieve
SHARES = {"train": 0.5, "query": 0.15, "trusted": 0.1, "database": 0.25}


def shared_sizes(
    labels: Bool[Tensor, "n k"],
    given: Mapping[str, int | None],
    *,
    query_from: Bool[Tensor, " n"],
    train_from: Bool[Tensor, " n"],
) -> dict[str, int]:
    """Train, query and trusted, as far as `given` leaves them open.

    The images without the public ones and without the given splits are divided in the ratio of SHARES. query_from,
    train_from: as for `draw_splits`; there are no more queries than images in query_from, and training and trusted
    images leave a tenth of train_from.
    """
    classes = labels[train_from].sum(0).tolist()
    public = sum(min(Sizes.public, max(1, count // SHARE)) for count in classes if count)
    fixed = {name: size for name, size in given.items() if size is not None}
    left = max(0, len(labels) - public - sum(fixed.values()))
    total = sum(share for name, share in SHARES.items() if name not in fixed)
    sizes = {name: left * share / total for name, share in SHARES.items() if name not in fixed}
    sizes.pop("database", None)  # what is left of the images
    room = max(0.0, 0.9 * (int(train_from.sum()) - public) - fixed.get("train", 0) - fixed.get("trusted", 0))
    learned = [name for name in ("train", "trusted") if name in sizes]
    if (wanted := sum(sizes[name] for name in learned)) > room:
        sizes |= {name: room * sizes[name] / wanted for name in learned}
    if "query" in sizes:
        sizes["query"] = min(max(2.0, sizes["query"]), float(query_from.sum()))
    return {name: max(1, int(size)) for name, size in sizes.items()}
