"""Cutting labelled images into disjoint splits: balanced per class, or random where images carry several labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from bench.api.errors import UserError
from bench.api.random import Rng


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Images per split; train or database None: all that is left."""

    train: int | None
    query: int
    trusted: int
    database: int | None


def draw_splits(
    labels: Bool[Tensor, "n k"],
    sizes: Sizes,
    rng: Rng,
    *,
    query_from: Bool[Tensor, " n"] | None = None,
    train_from: Bool[Tensor, " n"] | None = None,
    train_in_database: bool = False,
) -> dict[str, Int64[Tensor, " m"]]:
    """Positions of every split, ascending; public holds one image per class, in class order.

    Each split has its own stream and the database is drawn last: a split's size changes only the splits drawn after it
    (public, query, trusted, train, database), and of two sizes of a split the smaller is part of the larger.
    query_from, train_from: the images that may become queries, and those that may become train, trusted or public.
    train_in_database: the database is drawn from `train_from` instead, and the training images are free for it again.
    """
    free = torch.ones(len(labels), dtype=torch.bool)
    single = bool((labels.sum(1) == 1).all())
    learn = free.clone() if train_from is None else train_from
    ask = free.clone() if query_from is None else query_from
    public = _one_per_class(labels, learn, rng.child("public"), complete=single)
    free[public] = False
    parts = {"public": public}
    for name, count, allowed in (
        ("query", sizes.query, ask),
        ("trusted", sizes.trusted, learn),
        ("train", sizes.train, learn),
        ("database", sizes.database, learn if train_in_database else torch.ones_like(free)),
    ):
        pool = torch.nonzero(free & allowed).flatten()
        wanted = len(pool) if count is None else count
        if wanted > len(pool):
            raise UserError(
                f"{name} = {wanted} images asked, but {len(pool)} of the {len(labels)} are free for it: ask for fewer"
            )
        if wanted == 0:
            raise UserError(f"no image of the {len(labels)} is left for the {name}: ask for smaller other splits")
        draw = rng.child(name)
        parts[name] = _balanced(labels, pool, wanted, draw) if single else draw.choose(pool, wanted)
        free[parts[name]] = name == "train" and train_in_database
    return parts


def _balanced(labels: Bool[Tensor, "n k"], pool: Int64[Tensor, " m"], count: int, rng: Rng) -> Int64[Tensor, " c"]:
    """`count` of `pool`, as many of each class as can be; which classes give one more is random."""
    shuffled = pool[rng.permutation(len(pool))]
    own = labels[shuffled].int().argmax(1)
    held = own.bincount(minlength=labels.shape[1])
    level = 0  # every class gives this many, or all it has
    while int(held.clamp(max=level + 1).sum()) <= count and level < int(held.max()):
        level += 1
    quota = held.clamp(max=level)
    order = rng.permutation(labels.shape[1])
    more = order[held[order] > level][: count - int(quota.sum())]
    quota[more] += 1
    chosen = [shuffled[own == kind][: int(quota[kind])] for kind in range(labels.shape[1])]
    return torch.cat(chosen).sort().values


def _one_per_class(
    labels: Bool[Tensor, "n k"], allowed: Bool[Tensor, " n"], rng: Rng, *, complete: bool
) -> Int64[Tensor, " c"]:
    """A different image for each class; rare classes choose first. One without any is left out unless `complete`."""
    pool = torch.nonzero(allowed).flatten()
    pool = pool[rng.permutation(len(pool))]
    taken = torch.zeros(len(pool), dtype=torch.bool)
    found: dict[int, int] = {}
    for kind in labels[pool].sum(0).argsort(stable=True).tolist():
        candidates = torch.nonzero(labels[pool, kind] & ~taken).flatten()
        if len(candidates):
            taken[candidates[0]] = True
            found[kind] = int(pool[candidates[0]])
        elif complete:
            raise UserError(f"class number {kind} has no image that training may use: add some, or remove the class")
    return torch.tensor([found[kind] for kind in sorted(found)], dtype=torch.int64)
