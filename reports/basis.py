"""The facts behind a caption: the cells that a board averages over, and the results that it leaves out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reports.common_cells import CommonCells, Group
from reports.context import BoardContext, listed

NAMED = 6  # rows, and NAMED_RUNS failed runs, that a caption names
NAMED_RUNS = 4


@dataclass(frozen=True)
class Basis:
    """The setting of a board, its rows, and the (target, seed) cells that the counted rows share."""

    context: BoardContext
    rows: Mapping[Any, Group]
    cells: CommonCells

    @classmethod
    def of(cls, context: BoardContext, rows: Mapping[Any, Group]) -> Basis:
        """The basis of these rows, averaged over the cells that they share."""
        return cls(context, rows, CommonCells.of(rows))

    @property
    def too_few(self) -> tuple[str, ...]:
        """The rows that are not averaged because they have less than half of the results of the fullest row."""
        return tuple(
            " x ".join(str(part) for part in key if part) if isinstance(key, tuple) else str(key)
            for key in self.rows
            if key not in self.cells.counted
        )

    @property
    def surplus(self) -> int:
        """The number of results of averaged rows that lie outside the shared cells."""
        places = (len(group.places) for key, group in self.rows.items() if key in self.cells.counted)
        return sum(count - len(self.cells.places) for count in places)

    @property
    def collapsed(self) -> Mapping[str, str]:
        """The trials whose training failed, by key, each with the reason."""
        return {key: reason for group in self.rows.values() for key, reason in group.collapsed.items()}

    def caption(self, *lines: str, intervals: bool = True) -> str:
        """The lines about the setting and the cells, then `lines` without empty ones."""
        sentence = self.cells.sentence(intervals=intervals, scope=self.context.scope)
        return "\n".join([*self.context.about, sentence, *(line for line in lines if line)])

    def left_out(self) -> str:
        """Lines that name the rows without averages, count the surplus and name failed runs; "" without any."""
        words = []
        if names := self.too_few:
            more = f" and {len(names) - NAMED} more" if names[NAMED:] else ""
            words.append(f"Too few results to average: {', '.join(names[:NAMED])}{more}.")
        if self.surplus:
            some = "1 result that not every row has is" if self.surplus == 1 else (
                f"{self.surplus} results that not every row has are"
            )  # fmt: skip
            words.append(f"{some} left out of the averages.")
        return "\n".join(filter(None, [" ".join(words), failed_runs(self.collapsed)]))


def failed_runs(collapsed: Mapping[str, str]) -> str:
    """A line that names the trials whose training failed; trials of one model stand together."""
    if not collapsed:
        return ""
    keys: dict[str, list[str]] = {}
    for key, reason in collapsed.items():
        keys.setdefault(reason, []).append(key[:8])
    found = [f"{reason} in {listed(mine)}" for reason, mine in keys.items()]
    more = f"; and {len(found) - NAMED_RUNS} more" if found[NAMED_RUNS:] else ""
    trials = f"{len(collapsed)} trials are failed runs, not weak attacks,"
    trials = "1 trial is a failed run, not a weak attack," if len(collapsed) == 1 else trials
    return f"{trials} and left out: {'; '.join(found[:NAMED_RUNS])}{more}."
