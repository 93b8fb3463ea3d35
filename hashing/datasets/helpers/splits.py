"""Disjoint splits of labelled images: balanced per class, or random if images have several labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Bool, Int64
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError
from torch import Tensor

from bench.api.errors import UserError
from bench.api.random import Rng


def _several(count: int) -> int:
    if count == 1:
        raise PydanticCustomError(
            "queries",
            "queries of the target's class carry no trigger, and the only one may be of that class: give more",
        )
    return count


SHARE = 10  # one public image of a class per this many of its images
QueryCount = Annotated[int, Field(ge=1), AfterValidator(_several)]
"""The type of a parameter for the number of queries."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Images per split. None: all that are left.

    public: images per class, at most a tenth of the class (but at least one).
    """

    train: int | None
    query: int
    trusted: int
    database: int | None
    public: int = 5


def draw_splits(
    labels: Bool[Tensor, "n k"],
    sizes: Sizes,
    rng: Rng,
    *,
    query_from: Bool[Tensor, " n"] | None = None,
    train_from: Bool[Tensor, " n"] | None = None,
    train_in_database: bool = False,
) -> dict[str, Int64[Tensor, " m"]]:
    """Ascending positions of every split; the public split is in the order of the classes that its images stand for.

    Splits are drawn in the order public, query, trusted, train, database, each with its own random stream. A split's
    size therefore changes only later splits, and a smaller split is part of a larger one. query_from: images that may
    become queries. train_from: images that may become train, trusted or public. train_in_database: the database is
    drawn from `train_from` and may hold training images.
    """
    free = torch.ones(len(labels), dtype=torch.bool)
    single = bool((labels.sum(1) == 1).all())
    learn = free.clone() if train_from is None else train_from
    ask = free.clone() if query_from is None else query_from
    public = _public(labels, learn, sizes.public, rng.child("public"), complete=single)
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
                f"{name} = {wanted} images requested, but {len(pool)} of the {len(labels)} are free: request fewer"
            )
        if wanted == 0:
            raise UserError(f"no image of the {len(labels)} is left for the {name}: request smaller other splits")
        draw = rng.child(name)
        parts[name] = _balanced(labels, pool, wanted, draw) if single else draw.choose(pool, wanted)
        free[parts[name]] = name == "train" and train_in_database
    return parts


def _balanced(labels: Bool[Tensor, "n k"], pool: Int64[Tensor, " m"], count: int, rng: Rng) -> Int64[Tensor, " c"]:
    """`count` of `pool`, with class sizes as equal as possible; random classes get one image more."""
    shuffled = pool[rng.permutation(len(pool))]
    own = labels[shuffled].int().argmax(1)
    held = own.bincount(minlength=labels.shape[1])
    level = 0  # images per class; smaller classes give all
    while int(held.clamp(max=level + 1).sum()) <= count and level < int(held.max()):
        level += 1
    quota = held.clamp(max=level)
    order = rng.permutation(labels.shape[1])
    more = order[held[order] > level][: count - int(quota.sum())]
    quota[more] += 1
    chosen = [shuffled[own == kind][: int(quota[kind])] for kind in range(labels.shape[1])]
    return torch.cat(chosen).sort().values


def _public(
    labels: Bool[Tensor, "n k"], allowed: Bool[Tensor, " n"], count: int, rng: Rng, *, complete: bool
) -> Int64[Tensor, " c"]:
    """Different images for each class, rare classes first: one for every class, then a second one, and so on.

    A class has at most `count`, and more than one only as far as that is a tenth of its images. A class without an
    image is left out, or an error if `complete`.
    """
    pool = torch.nonzero(allowed).flatten()
    pool = pool[rng.permutation(len(pool))]
    taken = torch.zeros(len(pool), dtype=torch.bool)
    sizes = labels[pool].sum(0)
    if complete and not bool(sizes.all()):
        kind = int((sizes == 0).int().argmax())
        raise UserError(f"class number {kind} has no image in the training part", "add some, or remove the class")
    found: dict[int, list[int]] = {kind: [] for kind in range(labels.shape[1])}
    for turn in range(count):
        for kind in sizes.argsort(stable=True).tolist():
            if turn and (turn + 1) * SHARE > int(sizes[kind]):
                continue
            candidates = torch.nonzero(labels[pool, kind] & ~taken).flatten()
            if len(candidates):
                taken[candidates[0]] = True
                found[kind].append(int(pool[candidates[0]]))
    return torch.tensor([place for places in found.values() for place in places], dtype=torch.int64)
