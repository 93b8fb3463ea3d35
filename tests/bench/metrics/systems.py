"""Codes and labels of small systems, and their metrics."""

from __future__ import annotations

import numpy as np

from bench.metrics import (
    ModelCodes,
    Number,
    Truth,
    of_codes,
)
from bench.metrics.geometry import GEOMETRY
from bench.metrics.health import HEALTH
from bench.metrics.retrieval import BENIGN
from bench.metrics.triggered import TRIGGERED
from hashing.codes import pack


def one_hot(classes: list[int], count: int) -> np.ndarray:
    return np.eye(count, dtype=bool)[classes]


Codes = tuple[np.ndarray, np.ndarray, np.ndarray]


def system(query: np.ndarray, database: np.ndarray, triggered: np.ndarray) -> Codes:
    return query, database, triggered


def model(codes: Codes, truth: Truth) -> ModelCodes:
    return ModelCodes(*map(pack, codes), truth)


def benign_metrics(codes: Codes, truth: Truth) -> dict[str, Number]:
    return of_codes(model(codes, truth), BENIGN, HEALTH)


def triggered_metrics(codes: Codes, truth: Truth) -> dict[str, Number]:
    return of_codes(model(codes, truth), TRIGGERED, GEOMETRY)


def truth(query: np.ndarray, database: np.ndarray, target: list[int], positions: list[int] | None = None) -> Truth:
    vector = np.zeros(query.shape[1], dtype=bool)
    vector[target] = True
    where = np.flatnonzero(~(query & vector).any(1)) if positions is None else np.array(positions)
    return Truth(query, database, where.astype(np.int64), vector, None)


CENTRES = np.array([[1, 1, 1, 1, -1, -1, -1, -1], [1, 1, -1, -1, 1, 1, -1, -1], [1, -1, 1, -1, 1, -1, 1, -1]])
