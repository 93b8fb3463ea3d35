"""The context of a board: the trials of one setting, measured with one version of the code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.api.kinds import CODE_CHANGING, DefenseKind
from bench.config.trial import Spec
from bench.engine.record import Status
from reports.common_cells import Group
from reports.frame import SETTING, VERSIONS
from reports.selection import groups, repeated, with_result, without_result
from reports.trial_texts import changes, differing

# Contexts that join all values of such an axis always differ in these versions.
DIFFERENT = {"dataset": ("protocol_digest", "code"), "backbone": ("code",), "method": ("code",)}
REPAIRS = (DefenseKind.NONE, *CODE_CHANGING)  # defense kinds that have codes of their own
FIXED = {"surrogate": "other_seed", "augment": "victim"}  # default values, which the names of settings leave out


@dataclass(frozen=True)
class BoardContext:
    """The trials of one setting, measured with one version of code, metrics and protocol.

    parts: the setting in print, part by part: data set, network, method, bits, then what else tells settings apart.
    about: the first lines of captions. versions: metric version and protocol. version_count: the number of versions
    that the setting was measured with. other_code: results that are left out because another result of their row has
    newer code. setting_counts: settings that the trials are means over, and settings that were planned. mixed: whether
    versions may be mixed. scope: the population that intervals are about, as the end of a sentence.
    """

    parts: tuple[str, ...]
    trials: pd.DataFrame
    about: tuple[str, ...]
    versions: tuple[str, ...] = ()
    version_count: int = 1
    other_code: int = 0
    setting_counts: tuple[int, int] = (1, 1)
    mixed: bool = False
    scope: str = "of this setting and no other"

    @property
    def setting(self) -> str:
        """The setting in print."""
        return " · ".join(self.parts)

    @property
    def background(self) -> tuple[str, ...]:
        """The lines of `about` that are no warnings: data, training, versions and machine."""
        return tuple(line for line in self.about if not line.startswith("Warning"))

    @property
    def done(self) -> pd.DataFrame:
        return with_result(self.trials)

    @property
    def place(self) -> tuple[str, ...]:
        """The setting and the version of code, metrics, protocol and machine; no version with `mixed` or no result."""
        done = self.done
        rows, versions = (self.trials, ()) if self.mixed or done.empty else (done, VERSIONS)
        return tuple(str(rows[name].iloc[0]) for name in (*SETTING, *versions))

    def part(self, kinds: Sequence[str]) -> pd.DataFrame:
        return self.trials[self.trials["defense_kind"].isin(kinds)]

    def grouped(self, rows: pd.DataFrame, by: Sequence[str]) -> dict[Any, Group]:
        """The trials of a board's rows, by the values of one column or of several."""
        return {key if len(key) > 1 else key[0]: Group.of(part) for key, part in groups(rows, by)}


def contexts(trials: pd.DataFrame, mixed: bool, without: str = "") -> Iterator[BoardContext]:
    """The contexts of all settings, one per version; a trial without a result belongs to every version of its setting.

    without: an axis whose values are joined in one context.
    """
    setting = [axis for axis in SETTING if axis != without]
    wanted = [] if mixed else [name for name in VERSIONS if name not in DIFFERENT.get(without, ())]
    found = [part for _, part in groups(trials, setting)]
    names = [_parts(part, without) for part in found]
    recipes = [part.iloc[0]["recipe"] for part in found]
    for part, name, changed in zip(found, names, recipes, strict=True):
        # the recipe is named only if it is the only difference between two settings
        alike = [one for one, other in zip(recipes, names, strict=True) if other == name]
        words = changes(differing(changed, alike)) or part.iloc[0]["changes"] or "own recipe"
        recipe = (words,) if len(alike) > 1 and without != "training" else ()
        done = with_result(part)
        parts = [done for _, done in groups(done, wanted)] if wanted and not done.empty else [done]
        lost = without_result(part)
        for i, versions in enumerate(parts):
            # trials of other versions are planned trials without a result here
            elsewhere = pd.concat([other for other in parts if other is not versions]) if len(parts) > 1 else None
            rows = [versions, lost] + ([elsewhere.assign(status=Status.MISSING.value)] if elsewhere is not None else [])
            whole = pd.concat(rows).sort_index() if len(rows) > 1 else versions
            whole, other = (whole, 0) if mixed else _of_one_code(whole, without)
            mark = (f"version {i + 1} of {len(parts)}",) if len(parts) > 1 else ()
            held = tuple(listed(versions[name]) for name in ("metrics_version", "protocol_digest"))
            notes = [*about(versions, mixed), *_warnings(len(parts), other)]
            yield BoardContext((*name, *recipe, *mark), whole, tuple(notes), held, len(parts), other, mixed=mixed)


def _of_one_code(trials: pd.DataFrame, without: str) -> tuple[pd.DataFrame, int]:
    """The trials without results of older code, and the number of those results.

    All rows of an attack keep the results of its latest code, and each of them those of the latest code of its defense.
    Runs may have different code; trials of the latest run come first. If contexts join data sets, networks or methods,
    each of them has its own code.
    """
    done = with_result(trials)
    joined = [without] if without in DIFFERENT else []
    latest = _latest(done, ["attack", *joined], "attack_code")
    latest = _latest(latest, ["attack", "defense", *joined], "own_code")
    old = done.index.difference(latest.index)
    if old.empty:
        return trials, 0
    marked = trials.copy()
    marked.loc[old, "status"] = Status.MISSING.value
    return marked, len(old)


def _latest(done: pd.DataFrame, row: list[str], code: str) -> pd.DataFrame:
    """The trials with the first code of their row."""
    return done[done[code] == done.groupby(row, sort=False)[code].transform("first")]


def _parts(trials: pd.DataFrame, without: str) -> tuple[str, ...]:
    first = trials.iloc[0]
    words = [str(first[axis]) for axis in ("dataset", "backbone", "method") if axis != without]
    words += [f"{first['bits']} bits"] if without != "bits" else []
    words += [
        f"{axis} {first[axis]}" for axis, usual in FIXED.items() if axis != without and first[axis] not in {usual, ""}
    ]
    return tuple(words)


def about(done: pd.DataFrame, mixed: bool) -> Iterator[str]:
    """The first lines of every caption: data, training, chance, versions and devices of these trials."""
    if done.empty:
        return
    for _, part in groups(done, ["protocol_digest"]):
        first = part.iloc[0]
        cutoff = "the whole database" if pd.isna(first["cutoff"]) else f"the first {int(first['cutoff']):,}"
        yield (
            f"Data: protocol {first['protocol']}, version {first['protocol_version']}: {first['sizes']}."
            f" AP uses {cutoff}. Items at equal distance: mean over all orders."
            f"{_excluded(part)}"
        )
    versions, codes = (listed(done[name]) for name in ("metrics_version", "code"))
    training = "; ".join(changes or "the recipe of the method" for changes in dict.fromkeys(done["changes"]))
    yield f"Training: {training}. {_chance(done)}Version of metrics: {versions}. Hash of the source code: {codes}."
    yield f"Computed on {'; '.join(dict.fromkeys(done['computed_on']))}."
    if mixed and any(len(set(done[name])) > 1 for name in VERSIONS):
        yield "Warning: this table mixes versions of code, metrics, protocol or machine (--mixed)."
    if twice := repeated(done):
        yield f"Warning: {twice}"
    if (done["machine_count"] > 1).any():
        yield "Warning: some trials mix stages of different machines, so that a gain may contain their difference."


def _excluded(done: pd.DataFrame) -> str:
    """A sentence about benign queries without a relevant item; "" if there are none."""
    counts = done["map_excluded"].dropna()
    if counts.empty or not counts.max():
        return ""
    return (
        f" Means over benign queries leave out {counts.max():,.0f} of {done['queries'].max():,.0f} queries, because no"
        " database item is relevant to them."
    )


def _warnings(all_versions: int, other: int) -> Iterator[str]:
    if other:
        yield (
            f"Warning: {other} results of older code of their attack or defense are left out."
            " Run the suite again, or use --mixed."
        )
    if all_versions > 1:
        yield (
            f"Warning: {all_versions} versions of code, metrics, protocol or machine measured this setting. Each has"
            " its own board. To measure all trials with one version, run the suite again; after a change of machine,"
            " into a new store."
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
