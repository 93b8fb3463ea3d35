"""Codes for measurements: random ones around class centres, those of a small network, or of a model in a store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.api.errors import UserError
from bench.kernels.baselines import BaseIds, BaseSigns, Ids, Signs
from bench.kernels.timing import threads
from hashing.codes import PackedCodes, pack
from hashing.ranking import Relevance

NOISE, STEPS = 0.1, 300  # of pixels between 0 and 1; of training, with batches of 128
FLIPPED = 0.15  # share of bits that differ from the class centre, about that of a trained model


@dataclass(frozen=True)
class Retrieval:
    """Queries and a database with one class each. name: of the codes, in tables; empty for random ones."""

    name: str
    queries: PackedCodes
    database: PackedCodes
    own: Ids
    labels: BaseIds

    @property
    def relevance(self) -> Relevance:
        return Relevance(self.labels)

    def signs(self, queries: int) -> tuple[Signs, Ids, BaseSigns, BaseIds]:
        """The first queries and the database as floats, for baselines that compute with floats."""
        few = self.queries.select(slice(queries)).unpack().astype(np.float32)
        return few, self.own[:queries], self.database.unpack().astype(np.float32), self.labels


def clustered(items: int, queries: int, bits: int, classes: int = 10) -> Retrieval:
    """Codes around random centres, each bit flipped with probability FLIPPED."""
    rng = np.random.default_rng([items, bits])
    centres = rng.random((classes, bits)) < 0.5

    def draw(count: int) -> tuple[PackedCodes, Ids]:
        labels = rng.integers(classes, size=count)
        words = [np.empty((-(-bits // 64), 0), np.uint64)]
        for start in range(0, count, 1 << 18):  # floats for every bit of ten million codes would need too much memory
            part = labels[start : start + (1 << 18)]
            words.append(pack(centres[part] ^ (rng.random((len(part), bits), np.float32) < FLIPPED)).words)
        return PackedCodes(np.concatenate(words, axis=1), bits), labels

    (asked, own), (database, base_labels) = draw(queries), draw(items)
    return Retrieval("", asked, database, own, base_labels)


def trained(items: int, queries: int, bits: int) -> Retrieval:
    """Codes of a small network, trained with CSQ's loss on one half of the digits for a few seconds.

    Queries are the other half and the database both, with noise, so that there are as many images as wanted. As with
    models of real images, many items have the same code.
    """
    import torch
    from sklearn.datasets import load_digits
    from torch import nn

    from bench.api.random import Rng
    from hashing.hadamard import hash_centres

    images, classes = (torch.from_numpy(x) for x in load_digits(return_X_y=True))
    images, unseen = images.float() / 16, torch.arange(len(images)) % 2 == 0
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, bits))
    centres = (hash_centres(10, bits, Rng("kernels", "trained")) > 0).float()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)

    def noisy(rows: torch.Tensor) -> torch.Tensor:
        return images[rows] + NOISE * torch.randn(len(rows), 64, generator=generator)

    seen = (~unseen).nonzero()[:, 0]
    with threads(1):  # sums are then in one order, and so small a network gains nothing by more
        for _ in range(STEPS):
            rows = seen[torch.randint(len(seen), (128,), generator=generator)]
            loss = nn.functional.binary_cross_entropy_with_logits(network(noisy(rows)), centres[classes[rows]])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    def draw(count: int, among: torch.Tensor) -> tuple[PackedCodes, Ids]:
        rows = among[torch.randint(len(among), (count,), generator=generator)]
        with torch.no_grad():
            return pack(network(noisy(rows))), classes[rows].numpy()

    (asked, own), (database, base_labels) = (
        draw(queries, unseen.nonzero()[:, 0]),
        draw(items, torch.arange(len(images))),
    )
    return Retrieval("trained", asked, database, own, base_labels)


def of_trial(root: Path, key: str) -> Retrieval:
    """Query and database codes of a trial's model; of several labels the first counts. UserError for an unknown key."""
    from bench.artifacts.inputs import MeasureInputs
    from bench.engine.store import Store
    from bench.engine.worker import StoredArtifacts

    store = Store(root)
    found = [one for one in store.records() if one.key.startswith(key) and one.stage == MeasureInputs.stage]
    if not found:
        raise UserError(f"no trial in '{root}' begins with '{key}'", "`python -m bench leaderboard` prints keys")
    parents = found[0].parents
    inputs, bits = MeasureInputs.of(parents, StoredArtifacts(store, parents)), int(found[0].spec["bits"])
    codes, labels = inputs.measured.benign, inputs.load.labels

    def part(name: str, words: Any) -> tuple[PackedCodes, Ids]:
        ids = inputs.split.positions(name)
        return PackedCodes(words.numpy().view("uint64"), bits), labels[ids].int().argmax(1).numpy()

    (queries, own), (database, base_labels) = part("query", codes.query), part("database", codes.database)
    return Retrieval(found[0].label, queries, database, own, base_labels)
