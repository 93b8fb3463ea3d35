"""Code geometry: means over shared cells, and which input detector sees an attack."""

from __future__ import annotations

import pandas as pd
import pytest

from reports.boards.code_geometry import code_geometry
from reports.frame import read
from tests.reports.board_data import data_of, trial


def guarded(attack, detector, auroc, **changes):
    about = {"detectors": {"headline": "main", "scores": {"main": {"auroc": auroc}, "more": {"auroc": 1.0}}}}
    return trial(attack, detector, metrics=about, **changes)


def test_means_over_shared_cells_and_the_guard_that_sees_most(stock):
    trials = [trial("none"), trial("none", target="1")]
    trials += [trial("loud", target=t, metrics={"anchor": a, "attention": None}) for t, a in (("0", 0.1), ("1", 0.3))]
    trials += [trial("quiet", target=t, metrics={"gain": 0.9, "anchor": 0.5}) for t in "01"]
    trials += [guarded("loud", "input_detector(k=1)", a, target=t) for t, a in (("0", 0.5), ("1", 0.9))]
    trials += [guarded("loud", "input_detector(k=2)", 0.6, target=t) for t in "01"]
    trials += [guarded("quiet", "input_detector(k=1)", 1.0)]  # of one target only: no mean over both
    (board,) = code_geometry(data_of(read(stock(trials))))
    table = board.table.set_index("attack")
    assert list(table.index) == ["none", "quiet", "loud"]
    assert table.loc["loud", "to anchor"] == pytest.approx(0.2)
    assert "attention" not in table
    assert tuple(table.loc["loud", ["AUROC best detector", "best detector"]]) == (
        pytest.approx(0.7),
        "input_detector(k=1)",
    )
    assert pd.isna(table.loc["quiet", "best detector"])


def test_scores_of_another_setting_stay_out(stock):
    trials = [trial("loud"), trial("loud", bits=16), guarded("loud", "input_detector", 0.9, bits=16)]
    boards = {board.setting.rpartition(" · ")[2]: board for board in code_geometry(data_of(read(stock(trials))))}
    assert boards["16 bits"].table["AUROC best detector"].tolist() == [0.9]
    assert "AUROC best detector" not in boards["32 bits"].table


def test_scores_of_another_edition_stay_out(stock):
    store = stock([trial("loud"), guarded("loud", "input_detector", 0.99)], [trial("loud", version=2)])
    boards = code_geometry(data_of(read(store, run="all")))
    newest = next(board for board in boards if board.basis.context.versions[0] == "2")
    assert "best detector" not in newest.table
    assert "0.99" not in str(newest.table.to_dict())


def test_a_run_of_clean_models_has_none(stock):
    assert code_geometry(data_of(read(stock([trial("none")])))) == []
