"""Why on codes: means over shared cells, and which guard sees an attack."""

from __future__ import annotations

import pandas as pd
import pytest

from reports.frame import read
from reports.why import why
from tests.reports.test_tables import cell


def guarded(attack, guard, auroc, **changes):
    about = {"detectors": {"headline": "main", "scores": {"main": {"auroc": auroc}, "more": {"auroc": 1.0}}}}
    return cell(attack, guard, metrics=about, **changes)


def test_means_over_shared_cells_and_the_guard_that_sees_most(stock):
    cells = [cell("none"), cell("none", target="1")]
    cells += [cell("loud", target=t, metrics={"anchor": a, "attention": None}) for t, a in (("0", 0.1), ("1", 0.3))]
    cells += [cell("quiet", target=t, metrics={"gain": 0.9, "anchor": 0.5}) for t in "01"]
    cells += [guarded("loud", "guard(k=1)", a, target=t) for t, a in (("0", 0.5), ("1", 0.9))]
    cells += [guarded("loud", "guard(k=2)", 0.6, target=t) for t in "01"]
    cells += [guarded("quiet", "guard(k=1)", 1.0)]  # of one target only: no mean over both
    (board,) = why(read(stock(cells)))
    table = board.table.set_index("attack")
    assert list(table.index) == ["none", "quiet", "loud"]
    assert table.loc["loud", "to anchor"] == pytest.approx(0.2)
    assert "attention" not in table
    assert tuple(table.loc["loud", ["AUROC best guard", "best guard"]]) == (pytest.approx(0.7), "guard(k=1)")
    assert pd.isna(table.loc["quiet", "best guard"])
    assert "chosen afterwards" in board.caption


def test_scores_of_another_setting_stay_out(stock):
    cells = [cell("loud"), cell("loud", bits=16), guarded("loud", "guard", 0.9, bits=16)]
    boards = {board.title.rpartition(" · ")[2]: board for board in why(read(stock(cells)))}
    assert boards["16 bits"].table["AUROC best guard"].tolist() == [0.9]
    assert "AUROC best guard" not in boards["32 bits"].table


def test_scores_of_another_edition_stay_out(stock):
    store = stock([cell("loud"), guarded("loud", "guard", 0.99)], [cell("loud", version=2)])
    boards = why(read(store, run="all"))
    newest = next(board for board in boards if "Metrics v2" in board.caption)
    assert "best guard" not in newest.table
    assert "0.99" not in str(newest.table.to_dict())


def test_a_run_of_clean_models_has_none(stock):
    assert why(read(stock([cell("none")]))) == []
