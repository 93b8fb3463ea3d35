"""Several settings of a data set as one: values are averaged over settings inside (target, seed) (review.md, 7)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from bench.metrics import METRICS
from reports.frame import groups
from reports.scene import Scene, listed, scenes

ROW = ["attack", "access", "target", "seed"]
SAME = ("classes", "aimed")


def overall(cells: pd.DataFrame, *, mixed: bool = False) -> Iterator[Scene]:
    """A scene per data set whose cells are means over the settings that all attacks share; none for fewer than two.

    cells: undefended. A setting measured in several editions is none of them, unless mixed.
    """
    for (dataset,), part in groups(cells, ["dataset"]):
        found = list(scenes(part, mixed))
        whole = [scene for scene in found if " · edition " not in scene.title and scene.cells["status"].eq("ok").any()]
        ran = {scene.title: set(scene.cells.loc[scene.cells["status"] == "ok", "attack"]) for scene in whole}
        counts = {attack: sum(attack in names for names in ran.values()) for attack in dict.fromkeys(part["attack"])}
        most = max(counts.values(), default=0)
        attacks = [attack for attack, count in counts.items() if count and 2 * count >= most]
        shared = [scene for scene in whole if set(attacks) <= ran[scene.title]]
        if len(shared) > 1:
            yield _averaged(str(dataset), shared, attacks, len(found), [a for a in counts if a not in attacks])


def _averaged(
    dataset: str, shared: Sequence[Scene], attacks: Sequence[str], planned: int, without: Sequence[str]
) -> Scene:
    kept = [scene.cells[scene.cells["attack"].isin(attacks)].drop_duplicates(ROW) for scene in shared]
    lines = [_line(row, part, len(shared)) for row, part in groups(pd.concat(kept), ROW)]
    names = [scene.title.removeprefix(f"{dataset} · ") for scene in shared]
    about = [
        f"Means over {len(shared)} of {planned} settings, those that all rows share, as they are: {listed(names)}.",
        *([f"In fewer settings, and left out: {listed(without)}."] if without else []),
    ]
    return Scene(f"{dataset} · {len(shared)} settings", pd.DataFrame(lines), tuple(about))


def _line(row: tuple[Any, ...], part: pd.DataFrame, settings: int) -> Mapping[str, Any]:
    """The mean of one (target, seed) cell of an attack; without a result where a setting has none."""
    line: dict[str, Any] = {**dict(zip(ROW, row, strict=True)), "key": "", "reason": "", "status": "ok"}
    line |= {name: part[name].iloc[0] for name in SAME}
    lost = part[part["status"] != "ok"]
    if len(part) < settings or len(lost):
        collapsed = lost[lost["status"] == "collapsed"]
        for cell in (collapsed if len(collapsed) else lost).head(1).itertuples():
            return {**line, "status": cell.status, "reason": cell.reason, "key": cell.key}
        return {**line, "status": "missing"}
    return {**line, **{name: float(part[name].mean(skipna=False)) for name in METRICS if name in part}}
