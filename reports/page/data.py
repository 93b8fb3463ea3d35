"""The data of the HTML page: boards and trials as JSON, which the script of the page shows as tables."""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any

import pandas as pd

from bench.api.untrusted import strip_controls
from bench.config.trial import AXES, Trial
from bench.engine.record import Record, Status
from bench.engine.record_cache import RecordCache
from bench.metrics import METRICS
from reports import trial_details
from reports.board import TOO_WEAK, Board
from reports.cells import BLANK, caption_lines, number, words
from reports.context import components
from reports.direction import good_for_owner
from reports.frame import Results, detector_metrics, trial_metrics
from reports.labels import Names, label_of
from reports.page.chapters import Chapter
from reports.render import PARAMETERS, for_people
from reports.selection import NONE
from reports.trial_texts import training_of

LOG_LINES = 20
SHOWN = ("gain", "t_map", "own_map", "map")  # metrics in the table of trials


def packed(chapters: Sequence[Chapter], cache: RecordCache, results: Results) -> str:
    """Boards and trials as JSON, compressed with gzip and encoded in base64."""
    data = {"boards": list(_tables(chapters)), "trials": _trials(cache, results), "cards": _cards(results.trials)}
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _cards(trials: pd.DataFrame) -> dict[str, str]:
    """The card of each attack and defense, by the name that boards print."""
    short = Names.of(components(trials)).within
    return {
        short(label_of(spec)): f"card-{axis}-{strip_controls(spec.name)}"
        for axis in ("attack", "defense")
        for spec in dict.fromkeys(trials[f"{axis}_spec"])
        if spec.name != NONE
    }


def _tables(chapters: Sequence[Chapter]) -> Iterator[dict[str, Any]]:
    """Boards as columns: texts to show, and numbers to sort by."""
    whole = [(chapter.name, board) for chapter in chapters for board in chapter.boards]
    for (name, _), board in zip(whole, for_people([board for _, board in whole]), strict=True):
        yield {
            "part": name,
            "title": strip_controls(board.heading),
            "setting": strip_controls(board.setting),
            **_caption(board),
            "columns": list(_columns(board)),
            "best": sorted(board.best),
        }


def _caption(board: Board) -> dict[str, list[str]]:
    """The lines below a board, and those that stand folded: data, training, machine and parameters."""
    short = list(takewhile(lambda line: line != PARAMETERS, caption_lines(board.short_caption)))
    return {"caption": short, "notes": [line for line in caption_lines(board.caption) if line not in short]}


def _columns(board: Board) -> Iterator[dict[str, Any]]:
    """The columns, those of the compact board first. good: +1 if more is good for the owner of the model, -1 if bad."""
    texts = words(board)
    compact = [name for name in board.compact_columns if name in texts]
    for column in dict.fromkeys([*compact, *texts]):
        metric = METRICS.get(board.metrics.get(column, ""))
        yield {
            "name": strip_controls(column),
            "about": strip_controls(board.meaning(column)),
            "shown": texts[column],
            "sort": [
                _real(value) if text != TOO_WEAK else None
                for value, text in zip(board.table[column], texts[column], strict=True)
            ],
            # a column with an explanation of its own is no metric, but for example a difference
            "good": good_for_owner(metric) if metric is not None and column not in board.columns else 0,
            "heat": column in board.heat,
            "index": column in board.index,
            "compact": column in compact,
        }


def _real(value: Any) -> float | None:
    """A number with enough digits to sort and to shade; None for texts and numbers that are not finite."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(f"{value:.6g}")


def _trials(cache: RecordCache, results: Results) -> dict[str, Any]:
    """Every planned trial, column by column, with the facts of `bench show` except its stages."""
    trials = results.trials[results.trials["status"] != Status.SKIPPED.value]
    named = [name for name in trial_metrics() if name in trials and trials[name].notna().any()]
    columns: dict[str, list[Any]] = {axis: trials[axis].astype(str).map(strip_controls).tolist() for axis in AXES}
    for name in ("access", "defense_kind", "key", "status", "reason", "changes"):
        columns[name] = trials[name].astype(str).map(strip_controls).tolist()
    facts, logs = _Distinct(), _Distinct()
    # trials may share a record, so axes and training identify a trial; the latest run with the trial repeats it
    runs = {_identity(planned.trial): (planned.trial, run) for run in cache.store.runs() for planned in run.trials}
    varying = {id(run): trial_details.varying(run) for _, run in runs.values()}
    columns |= {"replay": [], "facts": [], "log": []}
    for row in trials.to_dict("records"):
        key, status, cause = row["key"], row["status"], row["cause"]
        trial, run = runs[(*(str(row[axis]) for axis in AXES), row["training"])]
        record = cache.record(key)
        columns["replay"].append(strip_controls(trial_details.replay(trial, run, varying[id(run)], status)))
        columns["facts"].append(facts.place(_facts(record) if record is not None else []))
        origin = cache.record(cause) if cause else None
        log = origin.log if origin is not None and status != Status.OK else ""
        tail = log.rstrip().splitlines()[-LOG_LINES:]
        columns["log"].append(logs.place([strip_controls(line) for line in tail]))
    short = Names.of(components(trials)).within
    return {
        "axes": list(AXES),
        "short": {label: short(label) for axis in ("attack", "defense") for label in dict.fromkeys(columns[axis])},
        "metrics": [[METRICS[name].title, METRICS[name].unit, METRICS[name].meaning] for name in named],
        "columns": columns,
        "values": [[number(value, name) for value in trials[name]] for name in named],
        "sort": [[_real(value) for value in trials[name]] for name in SHOWN],
        "shown": [
            [METRICS[name].title, good_for_owner(METRICS[name]), [number(value, name) for value in trials[name]]]
            for name in SHOWN
        ],
        "facts": facts.items,
        "logs": logs.items,
        "scores": _scores(results.detectors),
    }


def _identity(trial: Trial) -> tuple[str, ...]:
    return (*(strip_controls(str(value)) for value in trial.axes().values()), training_of(trial.training))


class _Distinct:
    """Values that many trials share, each stored once."""

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
    """Protocol, code, packages and machine of a record, which many trials share."""
    about = trial_details.protocol(record.protocol) | {"code": record.code}
    about |= trial_details.provenance(record.provenance)
    return [[name, strip_controls(str(value))] for name, value in about.items() if value]


def _scores(detectors: pd.DataFrame) -> dict[str, list[list[str]]]:
    """The scores of input detectors with their metrics, by the key of the trial."""
    found: dict[str, list[list[str]]] = {}
    for row in detectors.drop_duplicates(["key", "score"]).to_dict("records"):
        values = [f"{METRICS[name].title} {number(row[name], name)}" for name in detector_metrics()]
        told = ", ".join(text for text in values if not text.endswith(f" {BLANK}"))
        found.setdefault(str(row["key"]), []).append(
            [strip_controls(f"{row['score']}{' *' if row['headline'] else ''}"), told]
        )
    return found
