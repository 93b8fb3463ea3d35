"""Trials, results and boards that several tests share; the gains of attacks differ by a little noise."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.engine.record_cache import RecordCache
from bench.engine.store import Store
from reports.board import Board
from reports.board_registry import BoardData, make_boards
from reports.frame import Results, read

Given = dict[str, Any]
Stock = Callable[..., Store]
COST = {"seconds": 1.0, "started": 1.0e9, "host": ""}
LEVEL = {"none": 0.0, "loud": 0.8, "quiet": 0.3, "kept": 0.5}
_RNG = np.random.default_rng(0)
NOISE = {place: _RNG.normal() for place in itertools.product(LEVEL, "0123456789", range(3))}
# A victim whose training failed.
DEAD = {"map": 0.34, "map_clean": 0.81, "map_chance": 0.1, "collapsed": 1.0, "t_map": 0.1, "gain": 0.0}


def data_of(results: Results, *, mixed: bool = False) -> BoardData:
    """Without the store: no built-in board reads records."""
    with tempfile.TemporaryDirectory() as folder:
        return BoardData(results, RecordCache(Store(Path(folder) / "empty", create=True)), mixed)


def leaderboard_of(results: Results, *, mixed: bool = False, **options: Any) -> list[Board]:
    return make_boards("leaderboard", data_of(results, mixed=mixed), options)


def made(stock: Stock, *trials: Given, **options: Any) -> list[Board]:
    """The leaderboard of one run."""
    return leaderboard_of(read(stock(list(trials))), **options)


def trial(attack: str = "none", defense: str = "none", target: str = "0", seed: int = 0, **changes: Any) -> Given:
    """A trial as the fixture `stock` takes it."""
    return {"attack": attack, "defense": defense, "target": target, "seed": seed, **changes}


def gain(attack: str, target: str, seed: int) -> float:
    """The gain of a trial of `grid`."""
    return LEVEL[attack] + (0.02 * NOISE[attack, target, seed] if attack != "none" else 0)


def grid(
    attacks: Sequence[str] = tuple(LEVEL),
    targets: Sequence[str] = "012",
    seeds: Sequence[int] = (0, 1, 2),
    **changes: Any,
) -> list[Given]:
    """Every attack for every target and seed, undefended."""
    return [
        trial(a, target=t, seed=s, metrics={"gain": gain(a, t, s), "t_map": gain(a, t, s) + 0.1}, **changes)
        for a in attacks
        for t in targets
        for s in seeds
    ]


def planted(stock: Stock, **more: float) -> Results:
    """A grid in which the victim of attack loud, target 0, seed 0 collapsed."""
    trials = grid(("none", "loud", "quiet"))
    trials[9]["metrics"] = DEAD | more
    return read(stock(trials))


def rows(board: Board) -> pd.DataFrame:
    """The table of a board by attack."""
    return board.table.set_index("attack")


def score(auroc: float, control: float = 0.5) -> dict[str, float]:
    """The metrics of one score of an input detector."""
    names = ("tpr_1", "tpr_5", "caught_5", "alarms_1", "alarms_5", "alarms_1_control", "alarms_5_control")
    return {"auroc": auroc, "auroc_control": control} | dict.fromkeys(names, 0.05)
