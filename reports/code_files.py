"""Code files: which of their arrays are codes and labels, whether these are of the right form, and the packed bits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Num

from bench.api.errors import UserError
from hashing.codes import MAX_BITS, PackedCodes, pack
from reports.code_formats import ALONE, HOW, load

Side = Literal["query", "database"]
CODES = ("codes", "code", "hashcodes", "hashcode", "binarycodes", "binarycode", "binary", "hash", "outputs", "output",
         "logits", "b", "h")  # fmt: skip
EMBEDDINGS = ("embeddings", "embedding", "features", "vectors", *CODES)  # names in files of floats
LABELS = ("labels", "label", "targets", "target", "gnd", "l", "y")
SIDES = {
    "query": ("query", "queries", "q", "test", "tst", "te"),
    "database": ("database", "db", "base", "gallery", "retrieval", "re", "r", "train", "trn", "tr"),
}
_IN_FILE_NAMES = re.compile(r"(hash|binary)?[_-]?codes?|binary|hash|outputs?|logits", re.IGNORECASE)


@dataclass(frozen=True)
class CodeFile:
    """Codes of n items, and their labels: [n] class ids or names, or [n, k] multi-hot.

    note: a sentence about the names of the arrays where these are not codes and labels.
    """

    path: Path
    codes: Num[np.ndarray, "n b"] | Bool[np.ndarray, "n b"]
    labels: np.ndarray
    note: str = ""


def read(path: Path, side: Side = "query", words: Sequence[str] = CODES) -> CodeFile:
    """Read a code file; UserError with one line for a file of another form.

    side: a file may hold the arrays of both sides under names such as qB and rB. words: names of the array of codes.
    """
    chosen: list[str] = []

    def choose(names: Sequence[str]) -> list[str]:
        chosen[:] = (
            [ALONE] if list(names) == [ALONE] else [_named(path, names, known, side) for known in (words, LABELS)]
        )
        return chosen

    arrays = load(path, choose)
    if chosen == [ALONE]:
        beside = _labels_beside(path)
        codes, labels, note = arrays[ALONE], load(beside, _only)[ALONE], f"Labels of '{path}': '{beside.name}'."
    else:
        codes, labels = (arrays[name] for name in chosen)
        note = "" if chosen == [words[0], "labels"] else f"Arrays of '{path}': {' and '.join(map(repr, chosen))}."
    _check_codes(path, codes)
    labels = _labels(path, labels, len(codes))
    if len(labels) != len(codes):
        raise UserError(f"'{path}': {len(codes)} codes but {len(labels)} labels; both have one row per item")
    return CodeFile(path, codes, labels, note)


def packed(queries: CodeFile, base: CodeFile) -> tuple[PackedCodes, PackedCodes, list[str]]:
    """The codes of both files as bits, and sentences about what is odd. The bit is x > 0.

    If all numbers of both files lie from 0 to 1 and some between, as behind a sigmoid, the bit is x > 0.5, and a
    sentence says so. UserError if no number has the other sign, so that all bits would be equal.
    """
    sides = (queries, base)
    low, high = min(float(side.codes.min()) for side in sides), max(float(side.codes.max()) for side in sides)
    notes, cut = ["Bit = code > 0."], 0.0
    if not all(_are_bits(side.codes) for side in sides):
        if low >= 0 and high <= 1:
            cut = 0.5
            notes = ["Bit = code > 0.5, because all numbers lie from 0 to 1, as behind a sigmoid."]
        elif low > 0 or high <= 0:
            raise UserError(
                f"'{queries.path}' and '{base.path}' hold numbers from {low:g} to {high:g}: with bit = code > 0 all"
                " codes would be equal; subtract the threshold of the bits first"
            )
    found = [pack(side.codes > cut) for side in sides]
    for side, codes in zip(sides, found, strict=True):
        if len(codes) > 1 and bool((codes.words == codes.words[:, :1]).all()):
            notes.append(f"All {len(codes):,} codes of '{side.path}' are equal.")
    return found[0], found[1], notes


def _are_bits(codes: np.ndarray) -> bool:
    return codes.dtype.kind != "f" or bool(((codes == 0) | (np.abs(codes) == 1)).all())


def _named(path: Path, names: Sequence[str], words: Sequence[str], side: Side) -> str:
    """The array that one of the words names; UserError if none or several do."""
    if words[0] in names:
        return words[0]
    own = {found for word in words for end in SIDES[side] for found in (end + word, word + end)}
    for wanted in (own, set(words)):
        found = [name for name in names if re.sub(r"[^a-z]", "", name.lower()) in wanted]
        if len(found) > 1:
            raise UserError(f"'{path}' holds both {' and '.join(map(repr, found[:2]))}", f"keep one, or {HOW}")
        if found:
            return found[0]
    held = ", ".join(names[:20]) or "nothing"
    raise UserError(f"'{path}' has no array '{words[0]}'; it has: {held}; {HOW}")


def _only(names: Sequence[str]) -> list[str]:
    if list(names) != [ALONE]:
        raise UserError(f"a file of codes alone needs a file of labels alone, not one with {', '.join(names[:20])}")
    return [ALONE]


def _labels_beside(path: Path) -> Path:
    """The file of the labels, for a file of codes alone: tst_label.npy beside tst_binary.npy."""
    names = [_IN_FILE_NAMES.sub(word, path.stem, count=1) for word in ("label", "labels", "targets")]
    places = [path.with_name(f"{name}{path.suffix}") for name in names if name != path.stem]
    found = [place for place in places if place.exists()]
    if len(found) != 1:
        other = f"put its labels into '{places[0].name}' beside it, or " if places and not found else ""
        raise UserError(f"'{path}' holds a single array, codes without labels: {other}{HOW}")
    return found[0]


def _check_codes(path: Path, codes: np.ndarray) -> None:
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


def _labels(path: Path, labels: np.ndarray, items: int) -> np.ndarray:
    where = f"'{path}': labels"
    if labels.dtype.kind not in "biufU":
        raise UserError(f"{where} are {labels.dtype}; expected class ids [items] or multi-hot [items, labels]")
    if labels.dtype.kind != "b" and labels.shape in {(items, 1), (1, items)}:
        labels = labels.reshape(-1)  # MATLAB has no other vectors
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
