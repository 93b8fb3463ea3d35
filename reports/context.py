"""A board, and the context that it is made from: the trials of one setting, measured with one version of the code."""

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

HALF = " ±"  # the column "gain ±" holds half of the width of the interval of "gain"
FREEDOM = " df"  # the column "gain df" holds the degrees of freedom of that interval
# Contexts that join all values of such an axis always differ in these versions.
DIFFERENT = {"dataset": ("protocol_digest", "code"), "backbone": ("code",), "method": ("code",)}
REPAIRS = (
    DefenseKind.NONE,
    *CODE_CHANGING,
)  # defense kinds that have codes of their own
FIXED = {"surrogate": "other_seed", "augment": "victim"}  # default values, which titles do not name


@dataclass(frozen=True)
class Board:
    """A table with its title and caption.

    index: the columns that name a row. metrics: the metric of METRICS that a column shows. heat: coloured columns.
    best: positions of the rows that no other row is significantly better than. quiet: columns that only csv and json
    hold. by_row: the metric of each row in the column `value`. components: all components of the printed boards; their
    labels are shortened. basis: the facts that the caption states, for boards that average over trials.
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
        """The board as HTML for a notebook; texts are escaped."""
        shown = self.table.drop(columns=list(self.quiet), errors="ignore")
        caption = escape(self.caption).replace("\n", "<br>")
        return f"<b>{escape(self.title)}</b>{shown.to_html(index=False, na_rep='-')}<small>{caption}</small>"


@dataclass(frozen=True)
class BoardContext:
    """The trials of one setting, measured with one version of code, metrics and protocol.

    about: the first lines of captions. versions: metric version and protocol. version_count: the number of versions
    that the setting was measured with. other_code: results that are left out because another result of their row has
    newer code. settings: settings that the trials are means over, and settings that were planned. mixed: whether
    versions may be mixed. scope: the population that intervals are about, as the end of a sentence.
    """

    title: str
    trials: pd.DataFrame
    about: tuple[str, ...]
    versions: tuple[str, ...] = ()
    version_count: int = 1
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
    """The contexts of all settings, one per version; a trial without a result belongs to every version of its setting.

    without: an axis whose values are joined in one context.
    """
    setting = [axis for axis in SETTING if axis != without]
    wanted = [] if mixed else [name for name in VERSIONS if name not in DIFFERENT.get(without, ())]
    found = [part for _, part in groups(trials, setting)]
    titles = [_title(part, without) for part in found]
    for part, title in zip(found, titles, strict=True):
        # the recipe is in the title only if it is the only difference between two settings
        name = f"{title} · {part.iloc[0]['changes'] or 'own recipe'}" if titles.count(title) > 1 else title
        done = part[part["status"] == "ok"]
        parts = [done for _, done in groups(done, wanted)] if wanted and not done.empty else [done]
        lost = part[part["status"] != "ok"]
        for i, versions in enumerate(parts):
            # trials of other versions are planned trials without a result here
            elsewhere = pd.concat([other for other in parts if other is not versions]) if len(parts) > 1 else None
            rows = [versions, lost] + ([elsewhere.assign(status="missing")] if elsewhere is not None else [])
            whole = pd.concat(rows).sort_index() if len(rows) > 1 else versions
            whole, other = (whole, 0) if mixed else _of_one_code(whole, without)
            mark = f" · version {i + 1} of {len(parts)}" if len(parts) > 1 else ""
            held = tuple(listed(versions[name]) for name in ("metrics_version", "protocol_digest"))
            notes = [*about(versions, mixed), *_warnings(len(parts), other)]
            yield BoardContext(name + mark, whole, tuple(notes), held, len(parts), other, mixed=mixed)


def _of_one_code(trials: pd.DataFrame, without: str) -> tuple[pd.DataFrame, int]:
    """The trials without results of older code, and the number of those results.

    A row keeps the results of the latest code of its attack and defense. Runs may have different code; trials of the
    latest run come first. If contexts join data sets, networks or methods, each of them has its own code.
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
    """The first lines of every caption: data, training, chance, versions and devices of these trials."""
    if done.empty:
        return
    for _, part in groups(done, ["protocol_digest"]):
        first = part.iloc[0]
        cutoff = "the whole database" if pd.isna(first["cutoff"]) else f"the first {int(first['cutoff']):,}"
        yield (
            f"Data {first['protocol']} v{first['protocol_version']}: {first['sizes']}."
            f" AP over {cutoff}, expected value over the order of equal distances."
            f"{_excluded(part)}"
        )
    versions, codes, devices = (listed(done[name]) for name in ("metrics_version", "code", "device"))
    training = "; ".join(changes or "the recipe of the method" for changes in dict.fromkeys(done["changes"]))
    yield f"Training: {training}. {_chance(done)}Metrics v{versions}, code {codes}."
    if mixed and any(len(set(done[name])) > 1 for name in VERSIONS):
        yield "Warning: this table mixes versions of code, metrics or protocol (--mixed)."
    if len(set(done["device"])) > 1:
        yield f"Warning: the trials ran on different devices ({devices}), whose numbers differ slightly."


def _excluded(done: pd.DataFrame) -> str:
    """A sentence about benign queries without a relevant item; "" if there are none."""
    counts = done["map_excluded"].dropna()
    if counts.empty or not counts.max():
        return ""
    return (
        f" Means over benign queries leave out {counts.max():,.0f} of {done['queries'].max():,.0f} queries, to which no"
        " item is relevant."
    )


def _warnings(all_versions: int, other: int) -> Iterator[str]:
    if other:
        yield (
            f"Warning: {other} results of older code of their attack or defense are left out."
            " Run the suite again, or use --mixed."
        )
    if all_versions > 1:
        yield (
            f"Warning: {all_versions} versions of code, metrics or protocol measured this setting. Each version has its"
            " own board. Run the suite again to measure all trials with one version."
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
    """The components whose labels are shortened: attacks, defenses, and axes of the setting with several values."""
    varying = [axis for axis in ("dataset", "backbone", "method") if len(set(trials[axis])) > 1]
    return frozenset(spec for axis in ("attack", "defense", *varying) for spec in trials[f"{axis}_spec"])
