"""The HTML page around its data: chapters, charts and pictures within the size limit, cards, and the template."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.api import registry
from bench.api.card import Card
from bench.api.errors import UserError
from bench.api.untrusted import strip_controls
from bench.config.trial import AXES
from reports.chart import Chart
from reports.figures import shortened
from reports.frame import Results
from reports.page import strips
from reports.page.chapters import SUMMARY, Chapter
from reports.selection import NONE, with_result
from reports.summary import Summary

if TYPE_CHECKING:
    from jinja2 import Environment

LIMIT = 5_000_000  # bytes of the whole file
SPARE = 20_000  # bytes reserved for the list of charts and pictures that did not fit
FRAME = 700  # bytes of markup around a chart or a picture
SCRIPTS = ("export.js", "table.js", "view.js", "report.js")  # one script in this order
ASSETS = Path(__file__).parents[1] / "assets"


@dataclass
class Room:
    """The bytes that are still free in the file. left_out: titles that did not fit."""

    free: int
    left_out: list[str] = field(default_factory=list)

    def fits(self, title: str, *texts: str) -> bool:
        """Whether there is room for these texts and the markup around them. If so, the room is taken."""
        size = FRAME + sum(len(text.encode()) for text in texts)
        if size > self.free:
            self.left_out.append(title)
            return False
        self.free -= size
        return True


@cache
def templates() -> Environment:
    """The templates of the page and of the site; texts in them are escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(ASSETS), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip


def render(
    chapters: Sequence[Chapter], data: str, results: Results, summary: Summary, *, limit: int = LIMIT, home: str = ""
) -> str:
    """The page as text of at most `limit` bytes; UserError if the tables alone are larger.

    data: what `page.data.packed` returns. home: the front page of the site that the page is part of, or "". Charts and
    pictures that do not fit are named on the page.
    """
    script = "\n".join((ASSETS / name).read_text(encoding="utf-8") for name in SCRIPTS)
    style = (ASSETS / "report.css").read_text(encoding="utf-8")
    page = partial(
        templates().get_template("report.html.j2").render,
        title=f"HashDoor · {', '.join(results.suites)}",
        summary=summary,
        home=home,
        machines=[strip_controls(one) for one in summary.machines],
        command=strip_controls(results.command),
        missing=[one for one in chapters if one.empty and one.hint],
        scope=_scope(results.trials),
        cards=list(_cards(results.trials)),
        script=script,
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=style,
        data=data,
    )
    overview = [chart for one in chapters if one.title == SUMMARY for chart in one.charts]
    chapters = [one for one in chapters if one.title != SUMMARY]
    bare = len(
        page(parts=[_shown(one, Room(0)) for one in chapters], headlines=_headlines(summary, []), left_out=[]).encode()
    )
    room = Room(limit - SPARE - bare)
    if room.free < 0:
        raise UserError(
            f"the tables alone make {bare / 1e6:.1f} MB, more than {limit / 1e6:g}: narrow the report,"
            " for example --where dataset=..., or --suite"
        )
    # the summary's charts of the largest setting and pictures take their room first: the others may be of many settings
    first = summary.headlines[0].setting.name if summary.headlines else ""
    charts = [one for one in overview if one.setting == first and _fits(one, room)]
    order = sorted(chapters, key=lambda one: not one.galleries)
    shown = {one.name: _shown(one, room) for one in order}
    charts += [one for one in overview if one.setting != first and _fits(one, room)]
    text = page(
        parts=[shown[one.name] for one in chapters],
        headlines=_headlines(summary, charts),
        left_out=list(map(shortened, room.left_out)),
    )
    if len(text.encode()) >= limit:
        raise UserError(f"the page would have more than {limit / 1e6:g} MB: narrow the report, for example --suite")
    return text


def _fits(chart: Chart, room: Room) -> bool:
    texts = map(escape, (*3 * [chart.title, chart.setting], chart.caption))
    return room.fits(f"{chart.title} · {chart.setting}", chart.svg, *texts)


def _headlines(summary: Summary, charts: Sequence[Chart]) -> list[dict[str, Any]]:
    """The headlines as the template reads them, each with its charts."""
    return [
        {
            "setting": one.setting.name,
            "cells": one.setting.cells.sentence(intervals=False).removesuffix(" Means over these cells."),
            "results": f"{one.setting.results} of {one.setting.planned}",
            "sentences": list(zip(("Attacks", "Defenses", "Limits"), one.sentences, strict=True)),
            "warnings": one.warnings,
            "charts": [chart for chart in charts if chart.setting == one.setting.name],
        }
        for one in summary.headlines
    ]


def _shown(chapter: Chapter, room: Room) -> dict[str, Any]:
    """A chapter as the template reads it, with the charts and pictures that fit."""
    charts = [one for one in chapter.charts if _fits(one, room)]
    blocks = []
    for block in chapter.galleries if room.free > 0 else ():
        rows = list(strips.of(block))
        texts = [text for one in rows for text in (one.source, FRAME // 2 * " ", escape(block.title))]
        texts += map(escape, block.about)
        if room.fits(f"pictures of {block.title}", *texts):
            blocks.append({"title": block.title, "about": block.about, "strips": rows})
    return {
        "name": chapter.name,
        "title": chapter.title,
        "charts": charts,
        "galleries": blocks,
        "note": strip_controls(chapter.note),
        "empty": chapter.empty,
    }


def _scope(trials: pd.DataFrame) -> list[tuple[str, str]]:
    """The values of every axis of the run, its metric versions and its devices."""
    done = with_result(trials)
    about = [(axis, list(dict.fromkeys(trials[axis].astype(str)))) for axis in AXES]
    about += [("metrics", [f"v{version}" for version in dict.fromkeys(done["metrics_version"])])]
    about += [("device", list(dict.fromkeys(done["device"])))]
    return [(name, strip_controls(", ".join(values))) for name, values in about if values]


def _cards(trials: pd.DataFrame) -> Iterator[dict[str, str]]:
    """The fidelity card of every component of the run."""
    for axis in registry.KIND_OF_AXIS:
        for name in sorted({spec.name for spec in trials[f"{axis}_spec"]} - {NONE}):
            yield card_of(axis, name)


def card_of(axis: str, name: str) -> dict[str, str]:
    """What a component does, its paper, and how the code follows and deviates from the paper."""
    about = {"kind": axis, "name": name, "paper": "", "url": "", "follows": "", "deviates": ""}
    source = registry.catalogue(registry.KIND_OF_AXIS[axis]).get(name)
    if source is None or source.error:
        about["sentence"] = source.error if source is not None else "not installed here"
    else:
        about["sentence"] = registry.sentence(source)
        about |= _paper(registry.card(source))
    return {key: strip_controls(text) for key, text in about.items()}


def _paper(card: Card | None) -> dict[str, str]:
    if card is None:
        return {}
    where = ", ".join(part for part in (card.title, card.venue, str(card.year)) if part)
    url = card.url if card.url.startswith(("https://", "http://")) else ""  # the card of a plugin could name a script
    return {"paper": where, "url": url, "follows": card.follows, "deviates": card.deviates}
