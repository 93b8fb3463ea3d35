"""Metrics of codes from two files, which are untrusted: pickled objects are refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from bench import metrics
from bench.api.errors import UserError, unknown
from bench.metrics import ModelCodes, Truth
from bench.metrics.context import CONVENTION_CUTOFF, mean_of
from bench.metrics.geometry import spread
from bench.metrics.retrieval import BENIGN
from bench.metrics.triggered import PRECISION_AT, TRIGGERED
from hashing import ranking
from hashing.codes import PackedCodes
from reports.board import Board
from reports.code_files import CODES, CodeFile, packed, read
from reports.trial_details import table_of

QueryLabels = Bool[np.ndarray, "q k"]
BaseLabels = Bool[np.ndarray, "m k"]

MAX_LABELS = 2**31  # items x classes


@dataclass(frozen=True)
class _Pair:
    """Queries and database over the same classes. notes: sentences about the files, for the caption."""

    queries: PackedCodes
    base: PackedCodes
    query_labels: QueryLabels
    base_labels: BaseLabels
    cutoff: int | None
    notes: tuple[str, ...]

    def caption(self, *more: str) -> str:
        where = "the whole database" if self.cutoff is None else f"the first {self.cutoff:,}"
        size = min(len(self.base), self.cutoff or CONVENTION_CUTOFF)
        first = (
            f"{len(self.queries):,} queries against {len(self.base):,} items, {self.queries.bits} bits."
            f" AP over {where}; R of zero@R and drop@R is {size:,}. Metrics v{metrics.VERSION}."
        )
        return "\n".join((first, *self.notes, *more))


def score(query: Path, database: Path, *, target: str | None = None, cutoff: int | None = None) -> list[Board]:
    """Metrics of benign queries; with `target`, of triggered queries of other classes with respect to that label."""
    queries, base = read_both(query, database, cutoff)
    query_labels, base_labels, names = together(queries, base)
    query_codes, base_codes, notes = packed(queries, base)
    own = dict.fromkeys(filter(None, (queries.note, base.note)))
    pair = _Pair(query_codes, base_codes, query_labels, base_labels, cutoff, (*own, *notes))
    if target is None:
        return [_benign(pair)]
    wanted = _wanted(target, names)
    if (query_labels & wanted).any(1).all():
        raise UserError(f"every query of '{query}' carries the target {target}: t-mAP needs queries of other classes")
    if not (base_labels & wanted).any():
        raise UserError(f"no item of '{database}' carries the target {target}: no result could be relevant")
    return [_triggered(pair, wanted, target)]


def read_both(
    query: Path, database: Path, cutoff: int | None, words: Sequence[str] = CODES, unit: str = "bits"
) -> tuple[CodeFile, CodeFile]:
    """Both files. words: names of the arrays of codes. unit: what a column of them is."""
    if cutoff is not None and not 1 <= cutoff < 2**63:
        raise UserError(f"--cutoff {cutoff}: the number of ranked items that count is at least 1 and below 2**63")
    queries, base = read(query, "query", words), read(database, "database", words)
    if queries.codes.shape[1] != base.codes.shape[1]:
        raise UserError(
            f"'{query}' has {queries.codes.shape[1]} {unit} and '{database}' has {base.codes.shape[1]}:"
            " both must come from one model"
        )
    return queries, base


def together(queries: CodeFile, base: CodeFile) -> tuple[QueryLabels, BaseLabels, list[str]]:
    """Labels of both files over the same classes, and their names."""
    a, b = queries.labels, base.labels
    if a.ndim != b.ndim or (a.ndim == 2 and a.shape[1] != b.shape[1]) or (a.dtype.kind == "U") != (b.dtype.kind == "U"):
        raise UserError(
            f"labels do not fit: '{queries.path}' has {a.dtype} {list(a.shape)},"
            f" '{base.path}' has {b.dtype} {list(b.shape)}"
        )
    if a.ndim == 2:
        return a, b, [str(number) for number in range(a.shape[1])]
    names, places = np.unique(np.concatenate([a, b]), return_inverse=True)
    if len(places) * len(names) > MAX_LABELS:
        raise UserError(
            f"'{queries.path}' and '{base.path}' hold {len(names)} classes, too many: labels are class ids or names"
        )
    hot = np.zeros((len(places), len(names)), np.bool_)
    hot[np.arange(len(places)), places] = True
    return hot[: len(a)], hot[len(a) :], [str(name) for name in names]


def _wanted(target: str, names: list[str]) -> np.ndarray:
    if target not in names:
        raise unknown("target label", target, names[:50])
    return np.array([name == target for name in names])


def _benign(pair: _Pair) -> Board:
    size = pair.base_labels.shape[1]
    truth = Truth(pair.query_labels, pair.base_labels, np.zeros(0, np.int64), np.zeros(size, np.bool_), pair.cutoff)
    codes = ModelCodes(pair.queries, pair.base, pair.queries.select(slice(0)), truth)
    found = metrics.of_codes(codes, BENIGN)
    values = {name: value for name, value in found.items() if name != "map_target"}  # benign queries have no target
    excluded = int((~codes.answerable).sum())
    left_out = (
        f"Every mean leaves out {excluded:,} of the {len(pair.queries):,} queries, because no item of the database"
        " shares a label with them."
    )
    board = table_of("Retrieval", values, pair.caption(*[left_out] * bool(excluded)))
    assert board is not None
    depth = min(PRECISION_AT, len(pair.base))
    total, relevant = (counts[codes.answerable] for counts in (codes.benign.total, codes.benign.relevant))
    precision = mean_of(ranking.precision_at(total, relevant, depth))
    chance = mean_of(codes.benign.chance())
    extra: list[dict[str, Any]] = [
        {"metric": f"P@{depth}", "value": math.nan if precision is None else precision, "unit": "",
         "meaning": f"expected precision among the first {depth} results of benign queries"},
        {"metric": "chance", "value": math.nan if chance is None else chance, "unit": "",
         "meaning": "mAP of a random ranking"},
    ]  # fmt: skip
    return _extended(board, extra, "asr_at", "chance")


def _extended(board: Board, rows: list[dict[str, Any]], *kinds: str) -> Board:
    import pandas as pd

    table = pd.concat([board.table, pd.DataFrame(rows)], ignore_index=True)
    return replace(board, table=table, by_row=(*board.by_row, *kinds))


def _triggered(pair: _Pair, target: np.ndarray, name: str) -> Board:
    positions = np.flatnonzero(~(pair.query_labels & target).any(1))
    truth = Truth(pair.query_labels, pair.base_labels, positions, target, pair.cutoff)
    codes = ModelCodes(pair.queries, pair.base, pair.queries.select(positions), truth)
    found = metrics.of_codes(codes, TRIGGERED) | {"spread": spread(codes.triggered)}
    board = table_of("Triggered queries", found, pair.caption(
        f"Target {name}; {len(pair.queries) - len(positions)} queries of the target are left out. For the control,"
        " score the codes of a clean model with the same target."
    ))  # fmt: skip
    assert board is not None
    return board
