"""Input detectors: a row per attack, detector and score."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from reports.boards.input_detectors import input_detectors
from reports.frame import read
from tests.reports.board_data import (
    data_of,
    rows,
    score,
    trial,
)


def test_detectors_have_a_row_per_attack_guard_and_score(stock):
    about = {"detectors": {"headline": "b", "scores": {"a": score(0.6), "b": score(0.9)}}}
    trials = [
        trial("loud", "input_detector", t, s, metrics=about)
        for t in "01" for s in (0, 1)
    ]  # fmt: skip
    results = read(stock([*trials, trial("none", "input_detector", status="timeout", reason="slow")]))
    (board,) = input_detectors(data_of(results))
    assert board.table[["attack", "score", "cells"]].to_numpy().tolist() == [
        ["none", "", "0/1"], ["loud", "a", "4/4"], ["loud", "b *", "4/4"]]  # fmt: skip
    assert list(board.table["AUROC"])[1:] == pytest.approx([0.6, 0.9])
    assert board.basis.too_few == ("none x input_detector",)


def test_the_caption_says_how_far_alarms_may_be_from_their_level(stock):
    """The case of METHODOLOGY.md#calibrated-thresholds: 100 calibration images, 300 queries."""
    about = {"queries": 300, "detectors": {"headline": "a", "scores": {"a": score(0.6)}}}
    results = read(stock([trial("loud", "input_detector", metrics=about)]))
    (without,) = input_detectors(data_of(results))
    assert "calibration images" not in without.caption  # the records do not say how many trusted images there are
    known = replace(results, trials=results.trials.assign(trusted=200))
    (board,) = input_detectors(data_of(known))
    assert "1 % means 0.000 to 0.033" in board.caption
    assert "5 % means 0.017 to 0.097" in board.caption
    few = replace(results, trials=results.trials.assign(trusted=60))  # 30 images set no threshold of 1 %
    (board,) = input_detectors(data_of(few))
    assert "1 % means" not in board.caption
    assert "5 % means" in board.caption


def test_detector_scores_of_another_edition_stay_out(stock):
    about = {"detectors": {"headline": "a", "scores": {"a": score(0.6)}}}
    old = {"detectors": {"headline": "a", "scores": {"a": score(0.1)}}}
    results = read(
        stock(
            [trial("loud", "input_detector", metrics=about), trial("quiet", "input_detector", metrics=old, version=2)]
        )
    )
    first, second = input_detectors(data_of(results))
    assert rows(first).loc["loud", "AUROC"] == 0.6
    assert pd.isna(rows(first).loc["quiet", "AUROC"])
    assert rows(second).loc["quiet", "AUROC"] == 0.1
