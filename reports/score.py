"""Metrics of codes from two .npz files, which are untrusted: pickled objects are refused."""

from __future__ import annotations

import math
import pickle
import struct
import tokenize
import zipfile
import zlib
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
from hashing.codes import MAX_BITS, PackedCodes, pack
from reports.context import Board
from reports.trial_details import table_of

QueryLabels = Bool[np.ndarray, "q k"]
BaseLabels = Bool[np.ndarray, "m k"]

_BROKEN = (OSError, ValueError, TypeError, KeyError, EOFError, SyntaxError, NotImplementedError, MemoryError,
           OverflowError, RuntimeError, IndexError, AttributeError, struct.error, tokenize.TokenError,
           zipfile.BadZipFile, zlib.error, pickle.UnpicklingError)  # fmt: skip


FLOOR, RATIO = 2**30, 100  # an array may have FLOOR bytes, or RATIO times the size of the file if that is larger
MAX_LABELS = 2**31  # items x classes


@dataclass(frozen=True)
class CodeFile:
    """Codes of n items, and their labels: [n] class ids or names, or [n, k] multi-hot."""

    path: Path
    codes: PackedCodes
    labels: np.ndarray


def score(query: Path, database: Path, *, target: str | None = None, cutoff: int | None = None) -> list[Board]:
    """Metrics of benign queries; with `target`, of triggered queries of other classes with respect to that label."""
    if cutoff is not None and cutoff < 1:
        raise UserError(f"--cutoff {cutoff}: the number of ranked items that count is at least 1")
    queries, base = read(query), read(database)
    if queries.codes.bits != base.codes.bits:
        raise UserError(
            f"'{query}' has {queries.codes.bits} bits and '{database}' has {base.codes.bits}:"
            " both must come from one model"
        )
    query_labels, base_labels, names = _together(queries, base)
    if target is None:
        return [_benign(queries, base, query_labels, base_labels, cutoff)]
    return [_triggered(queries, base, query_labels, base_labels, _wanted(target, names), target, cutoff)]


def read(path: Path) -> CodeFile:
    """Read a code file; UserError with one line for a file of another form."""
    arrays = _arrays(path)
    codes = _codes(path, arrays["codes"])
    labels = _labels(path, arrays["labels"])
    if len(labels) != len(codes):
        raise UserError(f"'{path}': {len(codes)} codes but {len(labels)} labels; both have one row per item")
    return CodeFile(path, codes, labels)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    if path.exists() and not path.is_file():  # reading a pipe could wait forever
        raise UserError(f"'{path}' is no ordinary file: give an .npz file with the arrays codes and labels")
    try:
        loaded = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"'{path}' does not exist: give an .npz file with the arrays codes and labels") from None
    except _BROKEN as error:
        raise UserError(f"'{path}' is not an .npz file ({_short(error)}): write it with numpy.savez") from None
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        raise UserError(f"'{path}' holds a single array: write codes and labels with numpy.savez")
    found: dict[str, np.ndarray] = {}
    archive = loaded.zip
    assert archive is not None
    with loaded:
        for name in ("codes", "labels"):
            if name not in loaded.files:
                held = ", ".join(loaded.files[:20]) or "nothing"
                raise UserError(f"'{path}' has no array '{name}'; it has: {held}")
            try:
                _bounded(path, archive, f"{name}.npy")
                found[name] = np.asarray(loaded[name])
            except _BROKEN as error:
                why = f"({_short(error)}); objects are not accepted"
                raise UserError(f"'{path}': array '{name}' cannot be read {why}") from None
    return found


def _bounded(path: Path, archive: zipfile.ZipFile, name: str) -> None:
    """ValueError if an array claims more bytes than the file holds, or more than the limit."""
    member = archive.getinfo(name if name in archive.NameToInfo else name.removesuffix(".npy"))
    if member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise ValueError("its compression is not deflate")
    limit = max(FLOOR, RATIO * path.stat().st_size)
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        head = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = head(file)
    size = math.prod(shape) * dtype.itemsize
    if not dtype.hasobject and size > min(limit, member.file_size):
        raise ValueError(f"it claims {size} bytes, the file holds {member.file_size}, the limit is {limit}")


def _short(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:120].rstrip(": ")


def _codes(path: Path, codes: np.ndarray) -> PackedCodes:
    where = f"'{path}': codes"
    if codes.dtype.kind not in "biuf":
        raise UserError(f"{where} are {codes.dtype}; numbers or booleans are expected")
    if codes.ndim != 2:
        raise UserError(f"{where} have shape {list(codes.shape)}; expected [items, bits]")
    items, bits = codes.shape
    if not items or not 1 <= bits <= MAX_BITS:
        raise UserError(f"{where} have shape [{items}, {bits}]; expected at least one item and 1 to {MAX_BITS} bits")
    if codes.dtype.kind == "f" and np.isnan(codes).any():
        count = int(np.isnan(codes).any(1).sum())
        raise UserError(f"{where} hold NaN in {count} of {items} items: the training of their model has diverged")
    if codes.dtype.kind in "iu" and (odd := codes[(codes > 1) | (codes < -1)]).size:
        hint = "packed bytes: numpy.unpackbits first"
        raise UserError(f"{where} hold the integer {odd.flat[0]}; expected 0/1 or -1/+1 ({hint})")
    return pack(codes)


def _labels(path: Path, labels: np.ndarray) -> np.ndarray:
    where = f"'{path}': labels"
    if labels.dtype.kind not in "biufU":
        raise UserError(f"{where} are {labels.dtype}; expected class ids [items] or multi-hot [items, labels]")
    if labels.ndim == 2 and labels.dtype.kind != "U":
        if not labels.shape[1] or not np.isin(labels, (0, 1)).all():
            raise UserError(f"{where} have shape {list(labels.shape)} but are not multi-hot: expected only 0 and 1")
        return labels.astype(np.bool_)
    if labels.ndim != 1:
        raise UserError(f"{where} have shape {list(labels.shape)}; expected [items] or [items, labels]")
    if labels.dtype.kind == "U":
        return labels
    if labels.dtype.kind == "f" and not (np.isfinite(labels).all() and (labels == np.floor(labels)).all()):
        raise UserError(f"{where} are not whole numbers: expected class ids [items] or multi-hot [items, labels]")
    if (labels < 0).any():
        raise UserError(f"{where} hold the class id {labels.min():.0f}; class ids are not negative")
    if len(labels) and labels.max() >= 2**62:
        raise UserError(f"{where} hold the class id {labels.max():.0f}; class ids have at most 62 bits")
    return labels.astype(np.int64)


def _together(queries: CodeFile, base: CodeFile) -> tuple[QueryLabels, BaseLabels, list[str]]:
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


def _benign(
    queries: CodeFile, base: CodeFile, query_labels: QueryLabels, base_labels: BaseLabels, cutoff: int | None
) -> Board:
    size = base_labels.shape[1]
    truth = Truth(query_labels, base_labels, np.zeros(0, np.int64), np.zeros(size, np.bool_), cutoff)
    codes = ModelCodes(queries.codes, base.codes, queries.codes.select(slice(0)), truth)
    found = metrics.of_codes(codes, BENIGN)
    values = {name: value for name, value in found.items() if name != "map_target"}  # benign queries have no target
    caption = _caption(queries, base, cutoff)
    if excluded := int((~codes.answerable).sum()):
        caption += (
            f"\nEvery mean leaves out {excluded:,} of the {len(queries.codes):,} queries, because no item of the database"
            " shares a label with them."
        )
    board = table_of("Retrieval", values, caption)
    assert board is not None
    depth = min(PRECISION_AT, len(base.codes))
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


def _triggered(
    queries: CodeFile,
    base: CodeFile,
    query_labels: QueryLabels,
    base_labels: BaseLabels,
    target: np.ndarray,
    name: str,
    cutoff: int | None,
) -> Board:
    positions = np.flatnonzero(~(query_labels & target).any(1))
    if not len(positions):
        raise UserError(
            f"every query of '{queries.path}' carries the target {name}: t-mAP needs queries of other classes"
        )
    if not (base_labels & target).any():
        raise UserError(f"no item of '{base.path}' carries the target {name}: no result could be relevant")
    truth = Truth(query_labels, base_labels, positions, target, cutoff)
    codes = ModelCodes(queries.codes, base.codes, queries.codes.select(positions), truth)
    found = metrics.of_codes(codes, TRIGGERED) | {"spread": spread(codes.triggered)}
    caption = (
        f"{_caption(queries, base, cutoff)}\nTarget {name}; {len(queries.codes) - len(positions)} queries of"
        " the target are left out. For the control, score the codes of a clean model with the same target."
    )
    board = table_of("Triggered queries", found, caption)
    assert board is not None
    return board


def _caption(queries: CodeFile, base: CodeFile, cutoff: int | None) -> str:
    where = "the whole database" if cutoff is None else f"the first {cutoff:,}"
    size = min(len(base.codes), cutoff or CONVENTION_CUTOFF)
    return (
        f"{len(queries.codes):,} queries against {len(base.codes):,} items, {queries.codes.bits} bits; bit = code > 0."
        f" AP over {where}; R of zero@R and drop@R is {size:,}. Metrics v{metrics.VERSION}."
    )
