"""The chapters of the HTML page: boards, charts and pictures, and texts for chapters that are empty."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.api.errors import UserError
from reports import code_maps, findings, gallery, overview_charts, precision_recall, retrieved, svg_charts
from reports.board import Board
from reports.board_registry import BoardData, BoardKind, all_boards, make_boards
from reports.chart import Chart
from reports.context import components
from reports.findings import Setting
from reports.image_grid import Block
from reports.labels import Names
from reports.retrieved import Found, Most

SUMMARY = "Summary"  # the first chapter: charts beside the sentences of `reports.summary`
STRENGTH, GEOMETRY = "Strength", "Code geometry"  # chapters with charts, beside the leaderboards


@dataclass(frozen=True)
class Chapter:
    """A chapter: boards, charts, pictures. hint: what to do if it is empty. note: what is missing, and why."""

    name: str
    title: str
    boards: Sequence[Board] = ()
    charts: Sequence[Chart] = ()
    galleries: Sequence[Block] = ()
    hint: str = ""
    note: str = ""

    @property
    def empty(self) -> bool:
        """Whether the chapter has no content."""
        return not (self.boards or self.charts or self.galleries)


def charts_of(data: BoardData, settings: Sequence[Setting] | None = None) -> dict[str, list[Chart]]:
    """Every chart of a run, by the chapter it belongs to. settings: the findings of `data`, if they are known."""
    trials, cache, mixed = data.results.trials, data.record_cache, data.mixed
    short = Names.of(components(trials)).within  # the names on boards
    return {
        SUMMARY: list(overview_charts.of(findings.of(data) if settings is None else settings)),
        "Leaderboards": [
            *svg_charts.of_costs(trials, short, mixed),
            *svg_charts.of_bits(trials, short, mixed),
            *precision_of(data),
        ],
        STRENGTH: [
            *svg_charts.of_frontiers(trials, short, mixed),
            *svg_charts.of_sweeps(trials, short, mixed),
        ],
        GEOMETRY: [
            *svg_charts.of_attention(trials, cache, short, mixed),
            *code_maps.of_codes(trials, cache, short, mixed),
        ],
    }


def precision_of(data: BoardData) -> list[Chart]:
    """Precision and recall of each setting, with the names on boards."""
    trials = data.results.trials
    short = Names.of(components(trials)).within
    return list(precision_recall.of_trials(trials, data.record_cache, short, data.mixed))


def strips_of(data: BoardData, most: Most) -> Found:
    """What queries of each attack retrieve, with the names on boards."""
    trials = data.results.trials
    return retrieved.of_trials(trials, data.record_cache, Names.of(components(trials)).within, data.mixed, most)


def chapters_of(
    data: BoardData,
    settings: Sequence[Setting],
    claims: Sequence[Board] | None,
    speed: tuple[Sequence[Board], Sequence[Chart]],
) -> Iterator[Chapter]:
    """Every chapter in its order.

    settings: the findings of `data`. claims: boards of reported numbers. speed: boards and charts of the kernels.
    """
    charts = charts_of(data, settings)
    boards: dict[str, list[Board]] = {title: [] for title in charts}
    for kind in all_boards().values():
        if not kind.part_of:
            boards.setdefault(kind.chapter, []).extend(boards_of(kind, data))
    for title, found in boards.items():
        shown = charts.get(title, ())
        unmapped = title == GEOMETRY and found and not any(chart.title.startswith("Codes") for chart in shown)
        yield Chapter(
            _slug(title), title, found, shown,
            hint="This run has no sweep. Give a parameter a list of at least 3 values, for example"
            ' { name = "badnets", poisons = [4, 8, 16] }.'
            if title == STRENGTH else "",
            note="No map of codes: their artifacts are not in the store." if unmapped else "",
        )  # fmt: skip
    yield Chapter(
        "reported", "Reported beside measured", claims or (),
        hint="No shipped suite of this run holds reported numbers. Name the file of a suite of your own:"
        " `python -m bench report --suite my.toml`." if claims is not None else
        "Not looked up here: use `python -m bench report` or `python -m bench report reported`.",
    )  # fmt: skip
    pictures, strips = gallery.of_trials(data.record_cache, data.results.trials), strips_of(data, retrieved.ON_PAGE)
    lost = [f"Without a picture: {'; '.join(pictures.without)}."] if pictures.without else []
    lost += [f"Without retrieved images: {'; '.join(strips.without)}."] if strips.without else []
    yield Chapter(
        "pictures", "Images of attacks", charts=[strip.chart for strip in strips.strips], galleries=pictures.blocks,
        hint="No attack of this run has pictures.", note=" ".join(lost),
    )  # fmt: skip
    yield Chapter(
        "kernels", "Kernel throughput", *speed,
        hint="Not measured: `python -m bench kernels --quick --format json > kernels.json`, then"
        " `python -m bench report --kernels kernels.json`.",
    )  # fmt: skip


def boards_of(kind: BoardKind, data: BoardData) -> list[Board]:
    """The boards of a kind; none if this run has no data for it."""
    try:
        return make_boards(kind.name, data, kind.on_page)
    except UserError:
        return []


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
