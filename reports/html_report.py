"""`bench report`: all results of a run in one HTML file, which needs no network and opens from disk.

Tables are compressed data that the script of the page shows and sorts. Texts of results and plugins become text nodes
and never markup. Charts and pictures are part of the file, as many as its size limit allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.api.errors import UserError
from bench.engine.record_cache import RecordCache
from bench.engine.store import Store
from reports import summary, throughput
from reports.board import Board
from reports.board_registry import BoardData
from reports.figures import write
from reports.frame import Results
from reports.page.chapters import chapters_of
from reports.page.data import packed
from reports.page.layout import LIMIT, render


def draw(
    store: Store,
    path: Path,
    results: Results,
    claims: Sequence[Board] | None = None,
    *,
    kernels: Path | None = None,
    mixed: bool = False,
    limit: int = LIMIT,
) -> str:
    """Write the report of these results; returns a summary. UserError if the tables alone exceed `limit` bytes.

    claims: boards of reported numbers; None if nobody looked for any. kernels: what `bench kernels` printed as JSON.
    """
    if path.suffix.lower() not in {".html", ".htm"}:
        raise UserError(f"--out '{path}': the report is a web page", "give a name that ends in .html")
    if not path.parent.is_dir():  # checked here because drawing takes minutes
        raise UserError(f"cannot write '{path}': there is no folder '{path.parent}'")
    text, said = text_of(store, results, claims, kernels=kernels, mixed=mixed, limit=limit)
    write(path, text.encode())
    return said


def text_of(
    store: Store,
    results: Results,
    claims: Sequence[Board] | None = None,
    *,
    kernels: Path | None = None,
    mixed: bool = False,
    limit: int = LIMIT,
    home: str = "",
) -> tuple[str, str]:
    """The report as HTML, and a summary of it; see `draw`. home: where its first link leads, on a site."""
    cache = RecordCache(store)
    speed = throughput.read(kernels) if kernels is not None else ([], [])
    data = BoardData(results, cache, mixed)
    short = summary.of_data(data)
    chapters = list(chapters_of(data, [one.setting for one in short.headlines], claims, speed))
    text = render(chapters, packed(chapters, cache, results), results, short, limit=limit, home=home)
    tables, charts, pictures = (
        sum(len(getattr(one, name)) for one in chapters) for name in ("boards", "charts", "galleries")
    )
    return text, f"{tables} tables, {charts} charts, pictures of {pictures} attacks, {len(text.encode()) / 1e6:.1f} MB"
