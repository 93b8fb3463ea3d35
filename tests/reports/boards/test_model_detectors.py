"""Model detectors are judged over models: clean ones count once, thresholds come from other seeds."""

from __future__ import annotations

import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from reports import cells
from reports.boards.model_detectors import model_detectors
from reports.frame import read
from tests.reports.board_data import data_of, rows, trial


def judged(attack: str, seed: int, score: float, **more) -> dict:
    metrics = {"model_score": score, "named_target": None, "flagged": float(score > 2)} | more.pop("metrics", {})
    return trial(attack, "doctor", seed=seed, metrics=metrics, **more)


def test_a_clean_model_beside_many_targets_is_one_model(stock):
    clean = [judged("none", s, [1.0, 3.0][s], target=t, defend=f"c{s}") for s in range(2) for t in "012"]
    bad = [judged("loud", s, 2.5 + s, target=t, defend=f"b{s}{t}") for s in range(2) for t in "012"]
    (board,) = model_detectors(data_of(read(stock([*clean, *bad]))))
    table = rows(board)
    assert table["models"].to_dict() == {"none": 2, "loud": 6}
    assert table.loc["none", "model score"] == 2.0
    assert table.loc["loud", "AUROC"] == pytest.approx(roc_auc_score([0, 0, *[1] * 6], [1, 3, *[2.5] * 3, *[3.5] * 3]))
    assert table.loc["none", "flagged"].startswith("1/2 [")
    assert table.loc["loud", "flagged"].startswith("6/6 [0.541")
    assert "flagged@5%" not in table, "2 clean models are too few for a threshold"


def test_calibrated_verdicts_compare_with_clean_models_of_other_seeds(stock):
    """20 clean scores 0..19: 19 others calibrate, and the largest of them is the threshold."""
    clean = [judged("none", s, float(s), defend=f"c{s}") for s in range(20)]
    bad = [judged("loud", s, 18.5, defend=f"b{s}") for s in range(20)]
    (board,) = model_detectors(data_of(read(stock([*clean, *bad]))))
    table = rows(board)
    # only seed 19, whose own clean model does not count, is above 18; of clean models the first is always the one
    assert pd.isna(table.loc["none", "flagged@5%"])
    assert table.loc["loud", "flagged@5%"].startswith("1/20 [")
    assert board.basis.rows["loud", "doctor"].places == {("0", seed) for seed in range(20)}


def test_a_diagnosis_without_a_threshold_gives_no_verdict(stock):
    (board,) = model_detectors(data_of(read(stock([judged("loud", 0, 1.0, metrics={"flagged": None})]))))
    assert "flagged" not in board.table
    assert "AUROC" not in board.table  # nothing clean to compare with


def test_abstentions_of_a_diagnosis_are_counted(stock):
    named = [1.0, 1.0, None, 0.0, None]
    trials = [
        trial("loud", "doctor", seed=s, metrics={"model_score": 2.0, "named_target": value})
        for s, value in enumerate(named)
    ]
    silent = [trial("quiet", "doctor", seed=s, metrics={"model_score": 1.0, "named_target": None}) for s in range(5)]
    (doctor,) = model_detectors(data_of(read(stock([*trials, *silent]))))
    table = rows(doctor)
    assert table.loc["loud", "named"].startswith("2/3 [")
    assert table["abstained"].to_dict() == {"loud": 2, "quiet": 5}
    assert cells.words(doctor)["abstained"] == ["2", "5"]


def test_named_targets_have_an_exact_interval(stock):
    named = [float(s < 3) for s in range(4)]
    trials = [trial("loud", "doctor", seed=s, metrics={"model_score": 2.0, "named_target": named[s]}) for s in range(4)]
    (doctor,) = model_detectors(data_of(read(stock([*trials, trial("none", "doctor", metrics={"model_score": 1.0})]))))
    assert rows(doctor).loc["loud", "named"] == "3/4 [0.194, 0.994]"
