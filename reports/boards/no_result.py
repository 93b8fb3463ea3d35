"""Trials without a result: failed, collapsed, left out or not run, with their reasons."""

from __future__ import annotations

from bench.config.trial import AXES
from bench.engine.record import LASTING_FAILURES, Status
from reports.board import Board, Column
from reports.board_registry import BoardData, board
from reports.context import listed
from reports.rows import table
from reports.selection import groups, without_result

ORDER = (Status.FAILED, Status.TIMEOUT, Status.OOM, Status.COLLAPSED, Status.KILLED, Status.MISSING, Status.SKIPPED)

COLUMNS = {
    "status": Column("how the trial ended"),
    "trials": Column("number of trials with this status and reason"),
    "which": Column("values of the axes that these trials share"),
    "reason": Column("message of the stage that failed, or why the trial was left out"),
    "key": Column("key of a failed stage or collapsed trial, for `python -m bench show KEY`"),
}


@board(
    "no-result",
    chapter="Leaderboards",
    part_of="leaderboard",
    help="trials without a result, with their reasons; empty if every trial has a result",
    columns=COLUMNS,
)
def no_result(data: BoardData) -> list[Board]:
    """A row per status and reason; no board if every trial has a result."""
    trials = data.results.trials
    lost = without_result(trials)
    if lost.empty:
        return []
    varying = [axis for axis in AXES if len(set(trials[axis])) > 1]
    lines = []
    for (status, reason), part in groups(lost, ["status", "reason"]):
        which = "; ".join(
            f"{axis} {listed(part[axis])}" for axis in varying if part[axis].nunique() < trials[axis].nunique()
        )
        stages = part["key" if status == Status.COLLAPSED else "cause"].dropna()
        key = next((key for key in stages if key), "") if status != Status.SKIPPED else ""
        lines.append(
            {"status": status, "trials": len(part), "which": which or "all", "reason": reason, "key": key[:8] or None}
        )
    lines.sort(key=lambda line: (ORDER.index(line["status"]), -line["trials"], line["reason"]))
    caption = f"{len(lost)} of {len(trials)} trials have no result. Averages on other boards leave them out."
    if any(line["status"] == Status.COLLAPSED for line in lines):
        caption += (
            "\nCollapsed: training failed, because the clean model has almost no mAP above chance, or the undefended"
            " victim lost at least half of it. Defended trials of such a victim count as collapsed too. For attacks on"
            " a trained model, lost mAP is a result and not a failure."
        )
    if any(line["key"] and line["status"] not in {Status.COLLAPSED, Status.MISSING} for line in lines):
        caption += "\n`python -m bench show KEY` prints the log of a failed stage."
    if again := [status for status in ORDER if status in {line["status"] for line in lines} & LASTING_FAILURES]:
        caption += f" `run --retry {','.join(again)}` runs it again."
    lost_table = table(lines, list(lines[0]), keep=list(lines[0])[:4])
    return [Board("No result", lost_table, caption, index=("status", "trials"))]
