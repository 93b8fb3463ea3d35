"""Which tables a run gives, by name: the command line and notebooks ask here."""

from __future__ import annotations

from dataclasses import replace

from bench.api.errors import UserError, unknown
from bench.store import Store
from reports import audit, boards, doses, matched, why
from reports.frame import Results, Shelf
from reports.scene import Board

KINDS = ("leaderboard", "audit", "doses", "matched", "why")


def tables(
    kind: str, store: Store, results: Results, *, by: str | None = None, gain: float | None = None, mixed: bool = False
) -> list[Board]:
    """Boards of one of KINDS. by: of `leaderboard`, an axis. gain: of `matched`, where attacks are compared."""
    if by is not None and kind != "leaderboard":
        raise UserError(f"by='{by}' slices the leaderboard, not {kind}: leave it out")
    match kind:
        case "leaderboard":
            found = boards.everything(results, by=by, mixed=mixed)
        case "audit":
            found = audit.audit(results.cells, mixed=mixed)
        case "doses":
            found = doses.doses(results.cells, Shelf(store), mixed=mixed)
        case "matched":
            found = matched.matched(results, level=matched.LEVEL if gain is None else gain, mixed=mixed)
        case "why":
            found = why.why(results, mixed=mixed)
        case _:
            raise unknown("kind of table", kind, KINDS)
    labels = boards.components(results.cells)
    return [replace(board, labels=labels) for board in found]
