"""Codes and labels that the store holds for one trial, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from bench.api.errors import StoreError
from bench.artifacts.inputs import MeasureInputs, SystemInputs
from bench.engine.record_cache import RecordCache
from hashing.codes import PackedCodes
from reports.artifact_files import fitting, opened

Labels = Bool[np.ndarray, "_ k"]


@dataclass(frozen=True)
class StoredData:
    """Queries and database of a trial.

    load: the key of the data set. query, database: positions in it. target: the target's labels. triggered: positions
    of the triggered queries among all queries.
    """

    load: str
    classes: tuple[str, ...]
    query: Int64[np.ndarray, " q"]
    database: Int64[np.ndarray, " m"]
    query_labels: Labels
    database_labels: Labels
    target: Bool[np.ndarray, " k"]
    triggered: Int64[np.ndarray, " t"]


@dataclass(frozen=True)
class StoredCodes:
    """The codes of one model as the metrics rank them. positions: of the triggered queries among all queries."""

    query: PackedCodes
    database: PackedCodes
    triggered: PackedCodes
    positions: Int64[np.ndarray, " t"]


def data_of(cache: RecordCache, inputs: MeasureInputs, target: Sequence[str]) -> StoredData:
    """StoreError where an artifact is missing or damaged, or the classes on record are not those of the labels."""
    triggered = inputs.measured.purified_triggered or inputs.measured.triggered
    pool, parts, marked = (_tensors(cache, key) for key in (inputs.load.key, inputs.split.key, triggered.key))
    with fitting(inputs.load.key):
        data = cache.record(inputs.load.key)
        classes = data.meta.classes if data is not None else ()
        labels = pool["labels"].astype(bool)
        if labels.shape[1] != len(classes):
            raise ValueError(f"{labels.shape[1]} labels of {len(classes)} classes")
        wanted = np.fromiter((name in target for name in classes), dtype=bool, count=len(classes))
        query, database = parts["query"], parts["database"]
        return StoredData(
            inputs.load.key, tuple(classes), query, database, labels[query], labels[database], wanted,
            marked["positions"],
        )  # fmt: skip


def codes_of(cache: RecordCache, system: SystemInputs, bits: int, data: StoredData) -> StoredCodes:
    """StoreError where an artifact is missing or damaged, or does not fit the data.

    With a purification, queries have the codes of purified images.
    """
    asked, triggered = system.purified_benign or system.benign, system.purified_triggered or system.triggered
    stored, queries, marked = (_tensors(cache, one.key) for one in (system.benign, asked, triggered))
    with fitting(system.benign.key):
        made = StoredCodes(
            _packed(queries["query"], bits),
            _packed(stored["database"], bits),
            _packed(marked["codes"], bits),
            marked.get("positions", data.triggered),  # a bundle has those that `measure` reads
        )
        pairs = ((made.database, data.database), (made.query, data.query), (made.triggered, made.positions))
        if any(len(codes) != len(items) or not len(codes) for codes, items in pairs):
            raise ValueError(
                f"{[len(codes) for codes, _ in pairs]} codes of {[len(items) for _, items in pairs]} items"
            )
        if made.positions.min() < 0 or made.positions.max() >= len(made.query):
            raise ValueError("positions of triggered queries beyond the queries")
        return made


def _tensors(cache: RecordCache, key: str) -> dict[str, Any]:
    """The tensors of an artifact without images, which may exceed the memory, and without their names."""
    if not key or not cache.store.artifact_path(key).is_file():
        raise StoreError("an artifact is missing", "run its suite again, which makes it again")
    with opened(cache, key) as file:
        return {name: file.get_tensor(name) for name in file.keys() if name not in {"images", "names"}}  # noqa: SIM118


def _packed(words: Int64[np.ndarray, "w n"], bits: int) -> PackedCodes:
    return PackedCodes(np.ascontiguousarray(words).view("uint64"), bits)
