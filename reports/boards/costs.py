"""Costs and effects of defenses: seconds, mAP lost, t-mAP removed, own-mAP recovered."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Annotated, Any

import numpy as np
import pandas as pd

from bench.api.kinds import CODE_CHANGING
from reports import strength
from reports.board import Board, Column
from reports.board_registry import BoardData, board
from reports.context import contexts, listed
from reports.rows import table
from reports.selection import NONE, attacked, clean, defended, groups, undefended, with_result

PLACE = ["attack", "target", "seed"]
NAMES = ("defense", "kind", "models", "seconds", "mAP lost", "mAP lost attacked", "t-mAP removed", "own-mAP back")

COLUMNS = {
    "kind": Column("kind of defense", "defenses-on-codes"),
    "models": Column("number of defended models; the seconds are means over these models"),
    "seconds": Column("mean seconds per model; the machine also did other work; of input detectors, with all scores"),
    "mAP lost": Column("mAP of clean models, undefended minus defended; negative: mAP increased"),
    "mAP lost attacked": Column("mAP of attacked models, undefended minus defended"),
    "t-mAP removed": Column("t-mAP, undefended minus defended"),
    "own-mAP back": Column("own-mAP, defended minus undefended", "own-map"),
}


@board("defense-costs", chapter="Leaderboards", part_of="leaderboard",
       help="seconds, mAP lost, t-mAP removed and own-mAP gained, for each defense",
       columns=COLUMNS)  # fmt: skip
def defense_costs(
    data: BoardData, *, costs: Annotated[bool, "Print this board; seconds differ between runs."] = True
) -> list[Board]:
    """One row per defense of a setting, compared with the same trials undefended."""
    found: list[Board] = []
    for context in contexts(data.results.trials, data.mixed) if costs else ():
        weak = data.weak_attacks.of(context)
        done = with_result(context.trials)
        plain = undefended(done).drop_duplicates(PLACE)
        rows = {
            (str(defense), str(kind)): part.drop_duplicates(PLACE).merge(plain, on=PLACE, suffixes=("", "_before"))
            for (defense, kind), part in groups(defended(done), ["defense", "defense_kind"])
        }
        if not rows:
            continue
        changing = [_places(part) for (_, kind), part in rows.items() if kind in CODE_CHANGING]
        shared = {place for place in set.intersection(*changing) if place[0] not in weak} if changing else set()
        order = sorted(rows, key=lambda row: row[::-1])
        lines = [_line(defense, kind, rows[defense, kind], shared) for defense, kind in order]
        compared = [attack for attack, _, _ in shared if attack != NONE]
        names = listed(sorted(set(compared))) if compared else "none"
        note = (
            "Every defense has the same trusted images. Times are means over models; the machine also did other work."
            " Times of input detectors include the scores of all queries. The other columns are differences from the"
            ' same trials without defense. "mAP lost" is measured on clean models; negative: mAP increased. The rest:'
            f" means over the {len(compared)} attacked trials that all repairs and data filters share ({names})"
            " without attacks that are too weak. Input detectors and model detectors do not change codes."
        )
        found.append(
            Board(
                title="Costs of defenses",
                setting=context.setting,
                table=table(lines, NAMES, keep=NAMES[:4]),
                caption="\n".join(filter(None, [*context.about, note, strength.note(weak, set(done["attack"]))])),
                index=("defense",),
                details=context.background,
                metrics={"mAP lost": "map_change", "mAP lost attacked": "map_change", "t-mAP removed": "gain",
                         "own-mAP back": "gain"},
            )
        )  # fmt: skip
    return found


def _places(part: pd.DataFrame) -> set[tuple[str, str, int]]:
    return set(zip(part["attack"], part["target"], part["seed"], strict=True))


def _line(defense: str, kind: str, part: pd.DataFrame, shared: AbstractSet[tuple[str, str, int]]) -> dict[str, Any]:
    line: dict[str, Any] = {"defense": defense, "kind": kind.replace("_", " "), "models": part["defended"].nunique()}
    line["seconds"] = part.drop_duplicates("defended")["seconds_defense"].mean()
    if kind in CODE_CHANGING:
        places = zip(part["attack"], part["target"], part["seed"], strict=True)
        common = part[np.array([place in shared for place in places], dtype=bool)]  # an empty list would select columns
        benign, backdoored = clean(common).drop_duplicates("defended"), attacked(common)
        line["mAP lost"] = (benign["map_before"] - benign["map"]).mean()
        line["mAP lost attacked"] = (backdoored["map_before"] - backdoored["map"]).mean()
        line["t-mAP removed"] = (backdoored["t_map_before"] - backdoored["t_map"]).mean()
        line["own-mAP back"] = (backdoored["own_map"] - backdoored["own_map_before"]).mean()
    return line
