"""What retrieval loses if float embeddings become codes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from bench.api.errors import UserError
from bench.metrics.context import mean_of
from bench.metrics.triggered import PRECISION_AT
from hashing import ranking
from hashing.codes import PackedCodes
from hashing.embeddings import IterativeQuantisation, SimilarityRanking, sign_codes
from reports.board import Board, Column
from reports.code_files import EMBEDDINGS, CodeFile
from reports.score import read_both, together

Quantiser = Literal["sign", "itq"]
DEFAULT_BITS = 64  # of itq
COLUMNS = {
    "codes": Column("what the items are stored as"),
    "ranked by": Column("what orders the items of a query"),
    "bytes": Column("bytes of an item"),
    "mAP": Column("mean average precision, expected over the orders of ties", "ties"),
    f"P@{PRECISION_AT}": Column(f"expected precision among the first {PRECISION_AT} results"),
}


def quantised(
    query: Path, database: Path, how: Quantiser, *, bits: int | None = None, cutoff: int | None = None
) -> tuple[Board, str]:
    """The mAP of float embeddings and of the codes that a quantiser makes of them, and the difference in a sentence.

    The quantiser is fitted to the database, without labels. bits: of itq.
    """
    queries, base = read_both(query, database, cutoff, EMBEDDINGS, "dimensions")
    for side in (queries, base):
        if side.codes.dtype.kind != "f" or not np.isfinite(side.codes).all():
            raise UserError(f"'{side.path}': --quantise needs embeddings, which are finite float numbers")
    query_labels, base_labels, _ = together(queries, base)
    floats = SimilarityRanking(queries.codes, base.codes, query_labels, base_labels)
    codes = _codes(queries, base, how, bits)
    counts = ranking.distance_histograms(*codes, ranking.Relevance(base_labels), query_labels)
    answerable = counts[1].any(1)
    if not answerable.any():
        raise UserError(f"no query of '{query}' shares a label with an item of '{database}'")
    depth, width, size = min(PRECISION_AT, len(base.codes)), codes[1].bits, base.codes[0].nbytes
    before = [mean_of(one[answerable]) for one in floats.ap_and_precision(cutoff, depth)]
    after = [
        mean_of(one[answerable]) for one in (ranking.expected_ap(*counts, cutoff), ranking.precision_at(*counts, depth))
    ]
    name = f"{how}, {width} bits"
    rows = [
        (f"{base.codes.dtype}, {base.codes.shape[1]} dimensions", "cosine", float(size), *before),
        (name, "Hamming", width / 8, *after),
    ]
    board = Board(
        title="Quantisation",
        table=pd.DataFrame(rows, columns=list(COLUMNS)),
        caption=_caption(queries, base, how, cutoff, int((~answerable).sum())),
        index=("codes",),
        columns=COLUMNS,
    )
    return board, _sentence(name, before[0] or 0.0, after[0] or 0.0, size / (width / 8))


def _codes(queries: CodeFile, base: CodeFile, how: Quantiser, bits: int | None) -> tuple[PackedCodes, PackedCodes]:
    """The codes of queries and database."""
    if how == "sign":
        if bits is not None:
            raise UserError(f"--bits {bits}: sign makes one bit of each dimension", "leave it out, or --quantise itq")
        return sign_codes(queries.codes), sign_codes(base.codes)
    try:
        wanted = min(DEFAULT_BITS, base.codes.shape[1]) if bits is None else bits
        fitted = IterativeQuantisation.fit(base.codes, wanted, np.random.default_rng(0))
    except ValueError as error:
        raise UserError(f"'{base.path}': {error}", "give fewer --bits") from None
    return fitted.codes(queries.codes), fitted.codes(base.codes)


def _caption(queries: CodeFile, base: CodeFile, how: Quantiser, cutoff: int | None, left_out: int) -> str:
    where = "the whole database" if cutoff is None else f"the first {cutoff:,}"
    first = (
        f"{len(queries.codes):,} queries against {len(base.codes):,} items. AP over {where}. No label was used."
        f"{' ITQ was fitted to the embeddings of the database.' if how == 'itq' else ''}"
    )
    lines = [first, *filter(None, dict.fromkeys((queries.note, base.note)))]
    if left_out:
        lines.append(f"Left out: {left_out:,} queries that share no label with an item.")
    return "\n".join(lines)


def _sentence(name: str, before: float, after: float, times: float) -> str:
    change = "loses" if after <= before else "gains"
    return f"{name}: {change} {abs(before - after):.3f} of mAP {before:.3f}, and an item is {times:.3g} times smaller."
