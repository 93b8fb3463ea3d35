"""What boards are made of, from results alone; and the leaderboard of them, as commands show it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from bench.engine.record_cache import RecordCache
from bench.engine.store import Store
from reports.board_registry import BoardData, make_boards
from reports.context import Board
from reports.frame import Results


def data_of(results: Results, *, mixed: bool = False) -> BoardData:
    """Without the store: no built-in board reads records."""
    with tempfile.TemporaryDirectory() as folder:
        return BoardData(results, RecordCache(Store(Path(folder) / "empty", create=True)), mixed)


def leaderboard_of(results: Results, *, mixed: bool = False, **options: Any) -> list[Board]:
    return make_boards("leaderboard", data_of(results, mixed=mixed), options)
