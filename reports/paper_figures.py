"""All charts and pictures of a run as files for a paper."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from bench.api.errors import UserError
from reports import gallery, retrieved, throughput
from reports.board_registry import BoardData
from reports.chart import Chart
from reports.context import components
from reports.figures import FORMATS, write
from reports.image_grid import Block
from reports.labels import Names
from reports.page.chapters import charts_of, strips_of
from reports.picture_rows import Cell, Row, Section, figure_of

CAPTIONS = "captions.txt"
LONGEST = 100  # characters of a file name


def write_all(data: BoardData, folder: Path, columns: int, *, kernels: Path | None = None) -> str:
    """Write every chart in every format, and the captions; returns a summary. UserError if a run has no chart."""
    charts, without = charts_and_pictures(data)
    charts += throughput.read(kernels)[1] if kernels is not None else []
    if not charts:
        raise UserError("this run has no chart: it has no attack with a result")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write into '{folder}' ({error.strerror})", "name another folder") from None
    names = list(_names(charts))
    for name, chart in zip(names, charts, strict=True):
        for suffix in FORMATS:
            write(folder / f"{name}.{suffix}", chart.as_bytes(suffix, columns))
    texts = [f"{name}\n{chart.heading}\n{chart.caption}\n" for name, chart in zip(names, charts, strict=True)]
    write(folder / CAPTIONS, "\n".join(texts).encode())
    words = f"{len(charts)} charts as {', '.join(FORMATS)}, and {CAPTIONS}"
    return words + (f". Without a picture: {_by_reason(without)}" if without else "")


def _by_reason(without: Sequence[str]) -> str:
    """Texts `name: reason` as one text, in which equal reasons stand once."""
    names: dict[str, list[str]] = {}
    for text in without:
        name, _, reason = text.partition(": ")
        names.setdefault(reason, []).append(name)
    return "; ".join(f"{', '.join(dict.fromkeys(mine))}: {reason}" for reason, mine in names.items())


def charts_and_pictures(data: BoardData) -> tuple[list[Chart], list[str]]:
    """The charts of the page, what queries retrieve, the galleries of attacks; and what is left out."""
    strips = strips_of(data, retrieved.EVERYTHING)
    pictures = gallery.of_trials(data.record_cache, data.results.trials)
    charts = [chart for part in charts_of(data).values() for chart in part]
    charts += [strip.chart for strip in strips.strips]
    charts += [gallery_chart(block) for block in pictures.blocks]
    names = Names.of(components(data.results.trials))
    return charts, list(dict.fromkeys([*strips.without, *map(names.within, pictures.without)]))


def gallery_chart(block: Block) -> Chart:
    """The pictures of one attack: before, after, and their differences."""
    rows = [
        Row(" ".join(name.split()), [Cell(picture) for picture in pictures])
        for pair in block.pairs
        for name, pictures in pair.rows()
    ]
    draw = partial(figure_of, [Section("", rows)], ())
    return Chart(f"Images · {block.title}", "", "\n".join(block.about), draw)


def _names(charts: Sequence[Chart]) -> Iterator[str]:
    """File names: titles, with the setting if there are several settings; equal ones are numbered."""
    settings = {chart.setting for chart in charts if chart.setting}
    used: dict[str, int] = {}
    for chart in charts:
        text = f"{chart.title} {chart.setting}" if len(settings) > 1 else chart.title
        name = re.sub(r"[^a-z0-9.=]+", "-", text.lower()).strip("-.")[:LONGEST] or "chart"
        used[name] = used.get(name, 0) + 1
        yield name if used[name] == 1 else f"{name}-{used[name]}"
