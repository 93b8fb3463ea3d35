"""What queries retrieve with and without trigger: the first database images of clean, attacked and repaired models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int64

from bench.api.errors import StoreError, UserError
from bench.api.kinds import RANKING_CHANGING
from bench.artifacts.inputs import MeasureInputs
from bench.engine.record import Record, Status
from bench.engine.record_cache import RecordCache
from hashing.codes import topk
from reports.artifact_files import NO_PICTURES, evenly_spaced, fitting, opened
from reports.chart import Chart
from reports.context import BoardContext, contexts
from reports.figures import suffix_of, write
from reports.palette import GREY, OWN, TARGET
from reports.picture_rows import Cell, Row, Section, figure_of
from reports.selection import attacked, groups, undefended
from reports.stored_codes import StoredCodes, StoredData, codes_of, data_of
from reports.svg_charts import Short

FIRST = 8  # database images of a query
WATCHED, PAIRS = 100, 8  # queries that stage `implant` watches, and pairs of pictures of them that it stores
# For (holds a label of the query, holds a label of the target).
SIGNS = {
    (True, False): ("✓", OWN),
    (False, True): ("◎", TARGET),
    (True, True): ("✓◎", TARGET),
    (False, False): ("–", GREY),
}
LEGEND = (("✓ class of the query", OWN), ("◎ target class", TARGET), ("– other class", GREY))
RULE = (
    f"Right of the arrow: the first {FIRST} database images by Hamming distance; at equal distance in the order of the"
    " database, one of the orders that AP is the mean over. The query is chosen before anything is retrieved: the first"
    " of the query split that can carry the trigger{}."
)


@dataclass(frozen=True)
class Most:
    """Queries of a strip, 1 or 2, and repaired models; None: all."""

    queries: int = 2
    repairs: int | None = None


EVERYTHING, ON_PAGE = Most(), Most(queries=1, repairs=6)


@dataclass(frozen=True)
class Strip:
    """What one attack's queries retrieve.

    about: target and seed. more: the number of repaired models that are not shown. sections: one per query.
    """

    attack: str
    setting: str
    about: str
    more: int
    sections: tuple[Section, ...]

    @property
    def chart(self) -> Chart:
        """The strip as a chart."""
        caption = f"{self.about[0].upper()}{self.about[1:]}. {RULE.format(', and the last' * (len(self.sections) > 1))}"
        if self.more:
            caption += f" `python -m bench show --retrieved FILE.png` shows {self.more} more repaired models."
        return Chart(f"Retrieved · {self.attack}", self.setting, caption, partial(figure_of, self.sections, LEGEND))


@dataclass(frozen=True)
class Found:
    """The strips of a run, and what is left out with the reasons."""

    strips: tuple[Strip, ...]
    without: tuple[str, ...]

    def __str__(self) -> str:
        names = ", ".join(dict.fromkeys(strip.attack for strip in self.strips))
        words = f"what queries with and without trigger retrieve: {names}"
        return words + (f". Left out: {'; '.join(self.without)}" if self.without else "")


@dataclass(frozen=True)
class Asked:
    """A query, as its place among the triggered queries, with its pictures."""

    place: int
    clean: np.ndarray
    triggered: np.ndarray


def of_trials(trials: pd.DataFrame, cache: RecordCache, short: Short, mixed: bool, most: Most) -> Found:
    """A strip per attack and setting, of the first target and seed with stored codes."""
    strips, without = [], []
    for context in contexts(attacked(trials), mixed):
        for (attack,), part in groups(undefended(context.trials), ["attack"]):
            why = ""
            for _, row in part.iterrows():
                try:
                    strip, lost = _strip(cache, context, row, short, most)
                except StoreError as error:  # one damaged file must not stop the other pictures
                    why = str(error)
                    continue
                strips.append(strip)
                without += lost
                break
            else:
                without.append(f"{short(str(attack))}: {why}")
    return Found(tuple(strips), tuple(dict.fromkeys(without)))


def draw(found: Found, path: Path) -> str:
    """Write all strips into one file, as wide as two columns of a paper; returns a summary. UserError without any."""
    suffix = suffix_of(path)
    if not found.strips:
        why = f" ({'; '.join(found.without)})" if found.without else ": it has only clean models"
        raise UserError(f"no attack of this run has codes and pictures{why}")
    several = len({strip.setting for strip in found.strips}) > 1
    sections = [
        replace(section, title=" · ".join([strip.attack, *[strip.setting] * several, strip.about, section.title]))
        for strip in found.strips
        for section in strip.sections
    ]
    write(path, Chart("Retrieved", "", "", partial(figure_of, sections, LEGEND)).as_bytes(suffix, 2))
    return str(found)


def _strip(
    cache: RecordCache, context: BoardContext, row: pd.Series, short: Short, most: Most
) -> tuple[Strip, list[str]]:
    """The strip of an undefended trial and of its repairs, and the repairs that are left out with the reasons."""
    record, bits = _record(cache, row), int(row["bits"])
    implant = cache.implant(record)
    if implant is not None and implant.artifact is not None and implant.artifact.published:
        raise StoreError(NO_PICTURES)
    inputs = MeasureInputs.of(record.parents)
    data = data_of(cache, inputs, record.target)
    clean, measured = (codes_of(cache, one, bits, data) for one in (inputs.control, inputs.measured))
    asked = _asked(cache, record, data, measured, most.queries)
    models = [("clean model", True, clean), ("attacked", False, measured), ("attacked", True, measured)]
    without = []
    trials = context.trials
    alike = (trials["attack"] == row["attack"]) & (trials["target"] == row["target"]) & (trials["seed"] == row["seed"])
    defended = trials[alike & trials["defense_kind"].isin(RANKING_CHANGING)]
    for _, other in defended[: most.repairs].iterrows():
        name = short(str(other["defense"]))
        try:
            repaired = _record(cache, other)
            system = MeasureInputs.of(repaired.parents).measured
            models.append((f"after {name}", True, codes_of(cache, system, bits, data)))
        except StoreError as error:
            without.append(f"{short(str(row['attack']))} after {name}: {error}")
    sections = [_section(cache, data, one, models) for one in asked]
    about = f"target {row['target']}, seed {row['seed']}"
    more = len(defended) - len(defended[: most.repairs])
    return Strip(short(str(row["attack"])), short(context.setting), about, more, tuple(sections)), without


def _record(cache: RecordCache, row: pd.Series) -> Record:
    """The record of a trial; StoreError for a trial without a result."""
    record = cache.record(row["key"]) if row["status"] == Status.OK.value else None
    if record is None:
        raise StoreError(str(row["reason"] or row["status"]))
    return record


def _asked(cache: RecordCache, record: Record, data: StoredData, codes: StoredCodes, queries: int) -> Iterator[Asked]:
    """The first and the last query that can carry the trigger; stage `implant` stores pictures of both."""
    implant = cache.implant(record)
    if implant is None:
        raise StoreError("its attack has not been run")
    count = len(codes.positions)
    stored = evenly_spaced(count, WATCHED)[evenly_spaced(min(count, WATCHED), PAIRS)]
    with opened(cache, implant.key) as file:
        pairs = [file.get_tensor(f"gallery_{name}") for name in ("clean", "triggered")]
    with opened(cache, data.load) as file:
        images = file.get_slice("images")
        for i in dict.fromkeys([0, len(stored) - 1][:queries]):
            place = int(stored[i])
            at = int(data.query[codes.positions[place]])
            if not np.array_equal(pairs[0][i], images[at : at + 1][0]):
                raise StoreError("the stored pictures are not those of its queries")
            yield Asked(place, pairs[0][i], pairs[1][i])


def _section(
    cache: RecordCache, data: StoredData, asked: Asked, models: Sequence[tuple[str, bool, StoredCodes]]
) -> Section:
    """The rows of one query. models: name, whether the query carries the trigger, and codes."""
    position = int(models[0][2].positions[asked.place])
    own = data.query_labels[position]
    rows = []
    for name, triggered, codes in models:
        asking, place = (codes.triggered, asked.place) if triggered else (codes.query, position)
        (found,), _ = topk(asking.select(np.array([place])), codes.database, FIRST)
        lead = Cell(asked.triggered if triggered else asked.clean, _names(data, own))
        label = f"{name}, {'trigger' if triggered else 'no trigger'}"
        rows.append(Row(label, list(_cells(cache, data, own, found)), lead))
    return Section(f"query of class {_names(data, own)}, target class {_names(data, data.target)}", rows)


def _cells(cache: RecordCache, data: StoredData, own: np.ndarray, found: Int64[np.ndarray, " k"]) -> Iterator[Cell]:
    with opened(cache, data.load) as file, fitting(data.load):
        images: Any = file.get_slice("images")
        for item in found.tolist():
            held = data.database_labels[item]
            sign, colour = SIGNS[bool((held & own).any()), bool((held & data.target).any())]
            at = int(data.database[item])
            yield Cell(images[at : at + 1][0], f"{sign} {_names(data, held)}", colour)


def _names(data: StoredData, labels: np.ndarray) -> str:
    """The names of the classes of an image."""
    return "+".join(np.array(data.classes)[labels].tolist())
