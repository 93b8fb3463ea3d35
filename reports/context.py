"""A board, and the scene it is drawn from: one setting in one edition, with what its captions begin with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.api.kinds import CODE_CHANGING, DefenseKind
from bench.config.trial import Spec
from reports.common_cells import Group
from reports.frame import SETTING, VERSIONS, groups

if TYPE_CHECKING:
    from reports.basis import Basis

HALF = " ±"  # the column "gain ±" holds half the width of the interval of "gain"
FREEDOM = " df"  # and "gain df" its degrees of freedom
# where scenes go across such an axis, these parts of an edition differ by nature
DIFFERENT = {"dataset": ("protocol_digest", "code"), "backbone": ("code",), "method": ("code",)}
REPAIRS = (DefenseKind.NONE, *CODE_CHANGING)  # these have codes of their own
FIXED = {"surrogate": "other_seed", "augment": "victim"}  # not worth a word in a title


@dataclass(frozen=True)
class Board:
    """index: the columns that name a row. metrics: which of METRICS a column shows. heat: columns worth colour.

    best: positions of the rows that nobody is significantly better than. quiet: columns for machines only.
    by_row: which metric the column `value` shows, where it differs by row. components: those of the whole print, of
    which people read short names.
    """

    title: str
    table: pd.DataFrame
    caption: str
    index: tuple[str, ...]
    metrics: Mapping[str, str] = field(default_factory=dict)
    heat: tuple[str, ...] = ()
    best: frozenset[int] = frozenset()
    quiet: tuple[str, ...] = ()
    by_row: tuple[str, ...] = ()
    components: frozenset[Spec] = frozenset()
    basis: Basis | None = None

    def _repr_html_(self) -> str:
        """What a notebook shows; texts are escaped."""
        shown = self.table.drop(columns=list(self.quiet), errors="ignore")
        caption = escape(self.caption).replace("\n", "<br>")
        return f"<b>{escape(self.title)}</b>{shown.to_html(index=False, na_rep='-')}<small>{caption}</small>"


@dataclass(frozen=True)
class BoardContext:
    """One setting in one edition: its trials, and what its captions begin with.

    edition: metric version and protocol, which numbers that are averaged share. whole: measured in one edition alone.
    scope: what intervals are about.
    """

    title: str
    trials: pd.DataFrame
    about: tuple[str, ...]
    versions: tuple[str, ...] = ()
    editions: int = 1
    other_code: int = 0
    settings: tuple[int, int] = (1, 1)
    mixed: bool = False
    scope: str = "of this setting and no other"

    @property
    def done(self) -> pd.DataFrame:
        return self.trials[self.trials["status"] == "ok"]

    def part(self, kinds: Sequence[str]) -> pd.DataFrame:
        return self.trials[self.trials["defense_kind"].isin(kinds)]

    def split(self, rows: pd.DataFrame, by: Sequence[str]) -> dict[Any, Group]:
        return {key if len(key) > 1 else key[0]: Group.of(part) for key, part in groups(rows, by)}


def contexts(trials: pd.DataFrame, mixed: bool, without: str = "") -> Iterator[BoardContext]:
    """Settings, each split by edition; trials without a result count in all editions of their setting.

    without: an axis of the setting that scenes go across.
    """
    setting = [axis for axis in SETTING if axis != without]
    wanted = [] if mixed else [name for name in VERSIONS if name not in DIFFERENT.get(without, ())]
    found = [part for _, part in groups(trials, setting)]
    titles = [_title(part, without) for part in found]
    for part, title in zip(found, titles, strict=True):
        # what is rarely said tells settings apart that are equal otherwise
        name = f"{title} · {part.iloc[0]['changes'] or 'own recipe'}" if titles.count(title) > 1 else title
        done = part[part["status"] == "ok"]
        parts = [done for _, done in groups(done, wanted)] if wanted and not done.empty else [done]
        lost = part[part["status"] != "ok"]
        for i, versions in enumerate(parts):
            # what other editions measured is planned here too, without a result
            elsewhere = pd.concat([other for other in parts if other is not versions]) if len(parts) > 1 else None
            rows = [versions, lost] + ([elsewhere.assign(status="missing")] if elsewhere is not None else [])
            whole = pd.concat(rows).sort_index() if len(rows) > 1 else versions
            whole, other = (whole, 0) if mixed else _of_one_code(whole, without)
            mark = f" · edition {i + 1} of {len(parts)}" if len(parts) > 1 else ""
            held = tuple(listed(versions[name]) for name in ("metrics_version", "protocol_digest"))
            notes = [*about(versions, mixed), *_warnings(len(parts), other)]
            yield BoardContext(name + mark, whole, tuple(notes), held, len(parts), other, mixed=mixed)


def _of_one_code(trials: pd.DataFrame, without: str) -> tuple[pd.DataFrame, int]:
    """Each row of a board with results of one code of its attack and defense, the latest; how many others there were.

    A run has one code, several runs may not. Trials of the latest run come first. Other data sets, networks and methods
    have other code, and are other columns.
    """
    done = trials[trials["status"] == "ok"]
    row = ["attack", "defense", *([without] if without in DIFFERENT else [])]
    latest = done.groupby(row, sort=False)["own_code"].transform("first")
    old = done.index[done["own_code"] != latest]
    if old.empty:
        return trials, 0
    marked = trials.copy()
    marked.loc[old, "status"] = "missing"
    return marked, len(old)


def _title(trials: pd.DataFrame, without: str) -> str:
    first = trials.iloc[0]
    words = [str(first[axis]) for axis in ("dataset", "backbone", "method") if axis != without]
    words += [f"{first['bits']} bits"] if without != "bits" else []
    words += [
        f"{axis} {first[axis]}" for axis, usual in FIXED.items() if axis != without and first[axis] not in {usual, ""}
    ]
    return " · ".join(words)


def about(done: pd.DataFrame, mixed: bool) -> Iterator[str]:
    """The lines that every caption begins with: what the numbers of these trials rest on."""
    if done.empty:
        return
    for _, part in groups(done, ["protocol_digest"]):
        first = part.iloc[0]
        cutoff = "the whole database" if pd.isna(first["cutoff"]) else f"the first {int(first['cutoff']):,}"
        yield (
            f"Data {first['protocol']} v{first['protocol_version']}: {first['sizes']}."
            f" AP over {cutoff}, expected value over the order of equal distances."
        )
    versions, codes, devices = (listed(done[name]) for name in ("metrics_version", "code", "device"))
    training = "; ".join(changes or "the recipe of the method" for changes in dict.fromkeys(done["changes"]))
    yield f"Training: {training}. {_chance(done)}Metrics v{versions}, code {codes}."
    if mixed and any(len(set(done[name])) > 1 for name in VERSIONS):
        yield "Warning: this table mixes code, metric versions or protocols, as asked."
    if len(set(done["device"])) > 1:
        yield f"Warning: measured on different devices ({devices}): numbers differ a little between them."


def _warnings(all_versions: int, other: int) -> Iterator[str]:
    if other:
        yield (
            f"Warning: left out ({other}): results of other code of their attack or defense than the latest of their"
            " row. Run the suite again, or ask for --mixed."
        )
    if all_versions > 1:
        yield (
            f"Warning: the trials of this setting come from {all_versions} editions of code, metrics or protocol; each"
            " has a board of its own. Run the suite again for one edition."
        )


def _chance(done: pd.DataFrame) -> str:
    values = done["chance"].dropna()
    if values.empty:
        return ""
    low, high = f"{values.min():.3f}", f"{values.max():.3f}"
    return f"Chance t-mAP {low}. " if low == high else f"Chance t-mAP {low} to {high} by target. "


def listed(values: Iterable[Any]) -> str:
    names = [str(value) for value in dict.fromkeys(values)]
    return ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:5])} and {len(names) - 5} more"


def components(trials: pd.DataFrame) -> frozenset[Spec]:
    """Components that people read shortened; a setting that all boards share stays whole in their titles."""
    varying = [axis for axis in ("dataset", "backbone", "method") if len(set(trials[axis])) > 1]
    return frozenset(spec for axis in ("attack", "defense", *varying) for spec in trials[f"{axis}_spec"])
