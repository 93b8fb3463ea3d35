"""`bench report`: all that a run says in one HTML file, which needs no network and opens from disk.

Tables travel as compressed data and are built in the browser, where they sort and filter; what comes from results and
plugins becomes text there and never markup. Charts and pictures are part of the page, as many as fit.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from bench.api import registry
from bench.api.card import Card
from bench.api.errors import UserError
from bench.api.untrusted import strip_controls
from bench.config.trial import AXES, Trial
from bench.engine.record import Record
from bench.engine.record_cache import RecordCache
from bench.engine.store import Store
from bench.metrics import METRICS
from reports import _charts, _html_images, gallery, throughput
from reports import trial_details as pages
from reports._charts import Chart
from reports._image_grid import Block, write
from reports.board_registry import BoardData, all_boards, make_boards
from reports.context import Board, components
from reports.frame import Results, detector_metrics, training_of, trial_metrics
from reports.labels import Names
from reports.render import BLANK, for_people, number, words

LIMIT = 5_000_000  # bytes of the whole file
SPARE = 20_000  # of them for the sentences about what did not fit
FRAME = 700  # of markup around a chart or a picture
LOG_LINES = 20
ASSETS = Path(__file__).parent / "assets"
STRENGTH, GEOMETRY = "Strength", "Code geometry"  # chapters with charts, beside the leaderboards
GENERAL = {"reported", "kernels"}  # chapters whose tables belong to no setting


@dataclass(frozen=True)
class Part:
    """A chapter: boards, charts, galleries. hint: what to do where it is empty; note: what is missing, and why."""

    name: str
    title: str
    boards: Sequence[Board] = ()
    charts: Sequence[Chart] = ()
    galleries: Sequence[Block] = ()
    hint: str = ""
    note: str = ""


@dataclass
class Room:
    """What may still go into the file. left_out: titles that did not fit."""

    free: int
    left_out: list[str] = field(default_factory=list)

    def fits(self, title: str, *texts: str) -> bool:
        """Whether there is room for these texts and the markup around them, which is then taken."""
        size = FRAME + sum(len(text.encode()) for text in texts)
        if size > self.free:
            self.left_out.append(title)
            return False
        self.free -= size
        return True


def draw(
    store: Store,
    path: Path,
    results: Results,
    claims: Sequence[Board] | None = None,
    *,
    kernels: Path | None = None,
    mixed: bool = False,
) -> str:
    """Write the report of these results; returns what is in it. UserError where even the tables are too large.

    claims: boards of what papers report; None where nobody looked for any.
    """
    if path.suffix.lower() not in {".html", ".htm"}:
        raise UserError(f"--out '{path}': the report is a web page; give a name that ends in .html")
    if not path.parent.is_dir():  # said before minutes of drawing
        raise UserError(f"cannot write '{path}': there is no folder '{path.parent}'")
    speed = throughput.read(kernels) if kernels is not None else ([], [])
    record_cache = RecordCache(store)
    parts = list(_parts(store, record_cache, results, claims, speed, mixed))
    text = _page(store, record_cache, results, parts)
    write(path, text.encode())
    tables, charts, pictures = (sum(len(getattr(p, name)) for p in parts) for name in ("boards", "charts", "galleries"))
    return f"{tables} tables, {charts} charts, pictures of {pictures} attacks, {len(text.encode()) / 1e6:.1f} MB"


def charts(
    store: Store, record_cache: RecordCache, trials: pd.DataFrame, short: Callable[[str], str], *, mixed: bool
) -> dict[str, list[Chart]]:
    """Every chart of a run, by the chapter it belongs to."""
    return {
        "Leaderboards": [*_charts.of_costs(trials, short, mixed), *_charts.of_bits(trials, short, mixed)],
        STRENGTH: list(_charts.of_sweeps(trials, short, mixed)),
        GEOMETRY: [
            *_charts.of_attention(trials, store, record_cache, short, mixed),
            *_html_images.of_codes(trials, store, record_cache, short, mixed),
        ],
    }


def shortened(trials: pd.DataFrame) -> Callable[[str], str]:
    """The short names that people read, the same in tables and charts."""
    return Names.of(components(trials)).within


def _parts(
    store: Store,
    record_cache: RecordCache,
    results: Results,
    claims: Sequence[Board] | None,
    speed: tuple[Sequence[Board], Sequence[Chart]],
    mixed: bool,
) -> Iterator[Part]:
    trials = results.trials
    drawn = charts(store, record_cache, trials, shortened(trials), mixed=mixed)
    data = BoardData(results, record_cache, mixed)
    chapters: dict[str, list[Board]] = {chapter: [] for chapter in drawn}
    for kind in all_boards().values():
        if kind.part_of:
            continue
        chapters.setdefault(kind.chapter, []).extend(_or_none(kind.name, data, kind.on_page))
    for chapter, found in chapters.items():
        shown = drawn.get(chapter, ())
        unmapped = chapter == GEOMETRY and found and not any(chart.title.startswith("Codes") for chart in shown)
        yield Part(
            _slug(chapter), chapter, found, shown,
            hint='No number was swept: lists such as { name = "badnets", poisons = [4, 8, 16] } make curves.'
            if chapter == STRENGTH else "",
            note="No map of codes: their artifacts are not in the store." if unmapped else "",
        )  # fmt: skip
    yield Part(
        "reported", "Reported beside measured", claims or (),
        hint="No shipped suite of this run holds numbers that papers report; of a suite of your own give the file:"
        " `python -m bench report --suite my.toml`." if claims is not None else
        "Not looked for here: `python -m bench report` and `python -m bench report reported` do.",
    )  # fmt: skip
    pictures = gallery.of_cells(store, trials)
    yield Part(
        "pictures", "What attacks look like", galleries=pictures.blocks,
        hint="No attack of this run has pictures.",
        note=f"Without a picture: {'; '.join(pictures.without)}." if pictures.without else "",
    )  # fmt: skip
    yield Part(
        "kernels", "Kernel throughput", *speed,
        hint="Not measured: `python -m bench kernels --quick --format json > kernels.json`, then"
        " `python -m bench report --kernels kernels.json`.",
    )  # fmt: skip


def _or_none(name: str, data: BoardData, options: Mapping[str, Any]) -> list[Board]:
    """Boards that not every run has."""
    try:
        return make_boards(name, data, options)
    except UserError:
        return []


def _slug(chapter: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", chapter.lower()).strip("-")


# The page


def _page(store: Store, record_cache: RecordCache, results: Results, parts: Sequence[Part]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script, style = ((ASSETS / name).read_text(encoding="utf-8") for name in ("report.js", "report.css"))
    data = {"boards": list(_tables(parts)), "trials": _trials(store, record_cache, results)}
    given = {
        "title": f"HashDoor · {', '.join(results.suites)}",
        "suites": results.suites,
        "command": strip_controls(results.command),
        "counts": results.trials["status"].value_counts().to_dict(),
        "scope": _scope(results.trials),
        "cards": list(_cards(results.trials)),
        "script": script,
        "digest": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "style": style,
        "data": packed(data),
    }
    page = environment.get_template("report.html.j2")
    bare = page.render(**given, parts=[_shown(part, None) for part in parts], left_out=[])
    room = Room(LIMIT - SPARE - len(bare.encode()))
    if room.free < 0:
        raise UserError(
            f"the tables alone make {len(bare.encode()) / 1e6:.1f} MB, more than {LIMIT / 1e6:g}: narrow the report,"
            " for example --where dataset=..., or --suite"
        )
    # what is not numbers elsewhere comes first: a run has few attacks, but may have many settings to draw
    order = sorted(parts, key=lambda part: not part.galleries)
    chapters = {part.name: _shown(part, room) for part in order}
    text = page.render(**given, parts=[chapters[part.name] for part in parts], left_out=room.left_out)
    assert len(text.encode()) < LIMIT, "FRAME is more than it was taken for"
    return text


def _shown(part: Part, room: Room | None) -> dict[str, Any]:
    """A chapter as the template takes it; without room nothing that is drawn."""
    drawn = [
        one
        for one in (part.charts if room is not None else ())
        if room is not None
        and room.fits(f"{one.title} · {one.setting}", one.svg, *3 * [one.title, one.setting], one.caption)
    ]
    blocks = []
    for block in part.galleries if room is not None else ():
        strips = list(_html_images.strips(block))
        texts = [*(text for one in strips for text in (one.source, FRAME // 2 * " ", block.title)), *block.about]
        if room is not None and room.fits(f"pictures of {block.title}", *texts):
            blocks.append({"title": block.title, "about": block.about, "strips": strips})
    empty = not (part.boards or part.charts or part.galleries)
    return {"name": part.name, "title": part.title, "charts": drawn, "galleries": blocks,
            "note": strip_controls(part.note), "hint": part.hint if empty else "",
            "empty": empty and not part.hint}  # fmt: skip


def packed(data: Any) -> str:
    """Data for the page's script: JSON, compressed, as letters."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _scope(trials: pd.DataFrame) -> list[tuple[str, str]]:
    """What this run is about, axis by axis, and what its numbers rest on."""
    done = trials[trials["status"] == "ok"]
    about = [(axis, list(dict.fromkeys(trials[axis].astype(str)))) for axis in AXES]
    about += [("metrics", [f"v{version}" for version in dict.fromkeys(done["metrics_version"])])]
    about += [("device", list(dict.fromkeys(done["device"])))]
    return [(name, strip_controls(", ".join(values))) for name, values in about if values]


def _cards(trials: pd.DataFrame) -> Iterator[dict[str, str]]:
    """The fidelity card of every component of the run."""
    for axis, kind in registry.KIND_OF_AXIS.items():
        for name in sorted({spec.name for spec in trials[f"{axis}_spec"]}):
            about = {"kind": axis, "name": name, "paper": "", "url": "", "follows": "", "deviates": ""}
            source = registry.catalogue(kind).get(name)
            if source is None or source.error:
                about["sentence"] = source.error if source is not None else "not installed here"
            else:
                about["sentence"] = registry.sentence(source)
                about |= _paper(registry.card(source))
            if name != "none":
                yield {key: strip_controls(text) for key, text in about.items()}


def _paper(card: Card | None) -> dict[str, str]:
    if card is None:
        return {}
    where = ", ".join(part for part in (card.title, card.venue, str(card.year)) if part)
    url = card.url if card.url.startswith(("https://", "http://")) else ""  # a plugin's could be a script
    return {"paper": where, "url": url, "follows": card.follows, "deviates": card.deviates}


# Tables


def _tables(parts: Sequence[Part]) -> Iterator[dict[str, Any]]:
    """Boards as columns of shown texts and of numbers to sort by."""
    whole = [(part.name, board) for part in parts for board in part.boards]
    for (part, _), board in zip(whole, for_people([board for _, board in whole]), strict=True):
        shown = words(board)
        yield {
            "part": part,
            "title": strip_controls(board.title),
            "setting": "" if part in GENERAL else strip_controls(board.title).partition(" · ")[2],
            "caption": [strip_controls(line) for line in board.caption.split("\n") if line],
            "columns": [
                {
                    "name": strip_controls(name),
                    "about": _meaning(board, name),
                    "shown": column,
                    "sort": [_real(value) for value in board.table[name]],
                    "heat": name in board.heat,
                    "index": name in board.index,
                }
                for name, column in shown.items()
            ],
            "best": sorted(board.best),
        }


def _meaning(board: Board, column: str) -> str:
    """What a column's metric means; nothing where a column only looks like its metric, as a difference of it does."""
    metric = METRICS.get(board.metrics.get(column, ""))
    return strip_controls(metric.meaning) if metric is not None and metric.title == column else ""


def _real(value: Any) -> float | None:
    """A number with as many digits as sorting and shading need; None for texts and for what is not finite."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(f"{value:.6g}")


# Trials


def _trials(store: Store, record_cache: RecordCache, results: Results) -> dict[str, Any]:
    """Every trial that was to run here, column by column, with all that `bench show` says of it but its stages."""
    trials = results.trials[results.trials["status"] != "skipped"]
    named = [name for name in trial_metrics() if name in trials and trials[name].notna().any()]
    columns: dict[str, list[Any]] = {axis: trials[axis].astype(str).map(strip_controls).tolist() for axis in AXES}
    for name in ("access", "defense_kind", "key", "status", "reason", "changes"):
        columns[name] = trials[name].astype(str).map(strip_controls).tolist()
    facts, logs = _Distinct(), _Distinct()
    # trials may share a record: a trial is known by its axes and training, and the latest run that has it replays it
    runs = {_identity(planned.trial): (planned.trial, run) for run in store.runs() for planned in run.trials}
    varying = {id(run): pages.varying(run) for _, run in runs.values()}
    columns |= {"replay": [], "facts": [], "log": []}
    for row in trials.to_dict("records"):
        key, status, cause = row["key"], row["status"], row["cause"]
        trial, run = runs[(*(str(row[axis]) for axis in AXES), row["training"])]
        record = record_cache.record(key)
        columns["replay"].append(strip_controls(pages.replay(trial, run, varying[id(run)], status)))
        columns["facts"].append(facts.place(_facts(record) if record is not None else []))
        origin = record_cache.record(cause) if cause else None
        log = origin.log if origin is not None and status != "ok" else ""
        tail = log.rstrip().splitlines()[-LOG_LINES:]
        columns["log"].append(logs.place([strip_controls(line) for line in tail]))
    return {
        "axes": list(AXES),
        "metrics": [[METRICS[name].title, METRICS[name].unit, METRICS[name].meaning] for name in named],
        "columns": columns,
        "values": [[number(value, name) for value in trials[name]] for name in named],
        "sort": [[_real(value) for value in trials[name]] for name in SHOWN],
        "shown": [[METRICS[name].title, [number(value, name) for value in trials[name]]] for name in SHOWN],
        "facts": facts.items,
        "logs": logs.items,
        "scores": _scores(results.detectors),
    }


SHOWN = ("gain", "t_map", "own_map", "map")  # of the table of trials


def _identity(trial: Trial) -> tuple[str, ...]:
    return (*(strip_controls(str(value)) for value in trial.axes().values()), training_of(trial.training))


class _Distinct:
    """Values that many trials share, each once."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self._places: dict[str, int] = {}

    def place(self, item: Any) -> int:
        name = json.dumps(item)
        if name not in self._places:
            self._places[name] = len(self.items)
            self.items.append(item)
        return self._places[name]


def _facts(record: Record) -> list[list[str]]:
    """What trials rest on, as far as several share it: protocol, code, packages, machine."""
    about = {**pages.protocol(record.protocol), "code": record.code, **pages.provenance(record.provenance)}
    return [[name, strip_controls(str(value))] for name, value in about.items() if value]


def _scores(detectors: pd.DataFrame) -> dict[str, list[list[str]]]:
    """Of each guarded trial: its input detector's scores with their metrics."""
    found: dict[str, list[list[str]]] = {}
    for row in detectors.drop_duplicates(["key", "score"]).to_dict("records"):
        values = [f"{METRICS[name].title} {number(row[name], name)}" for name in detector_metrics()]
        told = ", ".join(text for text in values if not text.endswith(f" {BLANK}"))
        found.setdefault(str(row["key"]), []).append(
            [strip_controls(f"{row['score']}{' *' if row['headline'] else ''}"), told]
        )
    return found
