"""The cells of a board as text: numbers with their digits, intervals, and texts without control characters."""

from __future__ import annotations

import math
from typing import Any

from bench.api.untrusted import strip_controls
from bench.metrics import METRICS
from reports.board import HALF, TOO_WEAK, Board

BLANK = "-"


def words(board: Board) -> dict[str, list[str]]:
    """The cells of each column as text; half of the width of an interval stands behind its number."""
    found: dict[str, list[str]] = {}
    for name in board.table.columns:
        if name.endswith(HALF) or name in board.quiet:
            continue
        if name == "value" and board.by_row:
            column = [number(value, metric) for value, metric in zip(board.table[name], board.by_row, strict=True)]
        else:
            column = [number(value, board.metrics.get(name)) for value in board.table[name]]
        if name + HALF in board.table:
            halves = [number(value, "ssim") for value in board.table[name + HALF]]
            column = [
                f"{value} ± {half}" if half != BLANK else value + " " * (8 if set(halves) != {BLANK} else 0)
                for value, half in zip(column, halves, strict=True)
            ]
        if name in board.judged and TOO_WEAK in board.table:
            pairs = zip(column, board.table[TOO_WEAK], strict=True)
            column = [TOO_WEAK if weak and value != BLANK else value for value, weak in pairs]
        found[str(name)] = column
    return found


def number(value: Any, metric: str | None) -> str:
    """A value as text: shares with three decimals, differences with a sign, counts as integers, decibels with one."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "inf" if isinstance(value, float) and math.isinf(value) else BLANK
    if isinstance(value, str):
        return strip_controls(value)
    if isinstance(value, int) or (metric is None and float(value).is_integer()):
        return f"{int(value)}"
    if metric is None or METRICS[metric].unit == "dB":
        return f"{value:.3g}" if metric is None and abs(value) < 1 else f"{value:.1f}"
    if METRICS[metric].unit and math.isinf(METRICS[metric].high):
        return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"
    sign = "+" if METRICS[metric].low == -1 and metric != "ssim" else ""
    text = f"{value:{sign}.3f}"
    return text.replace("-0.000", "+0.000" if sign else "0.000")


def caption_lines(caption: str) -> list[str]:
    """The lines of a caption that are not empty."""
    return [strip_controls(line) for line in caption.split("\n") if line]


def holds_text(board: Board, name: str) -> bool:
    """Whether a column holds texts and not numbers."""
    if name in board.metrics or name in {"cells", "rank"}:
        return False
    return name in board.index or name == "key" or any(isinstance(value, str) for value in board.table[name])
