"""Which tables a run gives, by name: the command line and notebooks ask here."""

from __future__ import annotations

from dataclasses import replace

from bench.api.errors import UserError, unknown
from bench.engine.store import Store
from reports import boards, code_geometry, conventions, dose_response, equal_strength
from reports.context import Board
from reports.frame import RecordCache, Results

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
            found = conventions.audit(results.trials, mixed=mixed)
        case "doses":
            found = dose_response.doses(results.trials, RecordCache(store), mixed=mixed)
        case "matched":
            found = equal_strength.matched(results, level=equal_strength.LEVEL if gain is None else gain, mixed=mixed)
        case "why":
            found = code_geometry.why(results, mixed=mixed)
        case _:
            raise unknown("kind of table", kind, KINDS)
    labels = boards.components(results.trials)
    return [replace(board, labels=labels) for board in found]
