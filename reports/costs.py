"""What defenses cost and what they buy: seconds, mAP lost, t-mAP removed, own-mAP recovered."""

from __future__ import annotations

import pandas as pd

from reports._lines import table
from reports.frame import groups
from reports.scene import Board, listed, scenes

PLACE = ["attack", "target", "seed"]
NAMES = ("defense", "kind", "cells", "seconds", "mAP lost", "mAP lost attacked", "t-mAP removed", "own-mAP back")


def costs(cells: pd.DataFrame, *, mixed: bool = False) -> list[Board]:
    """One row per defense of a setting, each against the same cells undefended."""
    found = []
    for scene in scenes(cells, mixed):
        done = scene.cells[scene.cells["status"] == "ok"]
        plain = done[done["defense"] == "none"].drop_duplicates(PLACE)
        lines = []
        for (defense, kind), part in groups(done[done["defense"] != "none"], ["defense", "defense_kind"]):
            pairs = part.drop_duplicates(PLACE).merge(plain, on=PLACE, suffixes=("", "_before"))
            clean, attacked = pairs[pairs["attack"] == "none"], pairs[pairs["attack"] != "none"]
            line = {"defense": defense, "kind": kind, "cells": len(pairs)}
            line["seconds"] = part.drop_duplicates("defended")["seconds_defense"].mean()
            if kind in {"repair", "filter"}:
                line["mAP lost"] = (clean["map_before"] - clean["map"]).mean()
                line["mAP lost attacked"] = (attacked["map_before"] - attacked["map"]).mean()
                line["t-mAP removed"] = (attacked["t_map_before"] - attacked["t_map"]).mean()
                line["own-mAP back"] = (attacked["own_map"] - attacked["own_map_before"]).mean()
            lines.append(line)
        if not lines:
            continue
        lines.sort(key=lambda line: (line["kind"], line["defense"]))
        attacks = listed(pd.Series(sorted(set(done["attack"]) - {"none"})))
        note = (
            "Every defense gets the same trusted images (see Data). seconds: mean over models, with other work beside"
            " it; a guard's include scoring all queries. mAP lost: on the clean model; attacked, t-mAP removed and"
            f" own-mAP back: means over the cells of {attacks or 'no attack'}, each against the same cell undefended."
            " Guards and diagnoses leave codes as they are."
        )
        found.append(
            Board(
                title=f"What defenses cost · {scene.title}",
                table=table(lines, NAMES, keep=NAMES[:4]),
                caption="\n".join([*scene.about, note]),
                index=("defense",),
                metrics={"mAP lost": "map_change", "mAP lost attacked": "map_change", "t-mAP removed": "gain",
                         "own-mAP back": "gain"},
            )
        )  # fmt: skip
    return found
