"""Purifications: a row per attack and purification below the undefended attack, and milliseconds on request."""

from __future__ import annotations

import pandas as pd
import pytest

from reports.boards.purifications import purifications
from reports.cells import words
from reports.frame import read
from tests.reports.board_data import COST, LEVEL, data_of, leaderboard_of, trial
from tests.stores import record

DEFENSES = ("none", "rinse", "rinse(strength=2)", "repair", "input_detector")


def trials():
    """Each attack after each defense; a purification leaves half of t-mAP, and takes .1 of mAP."""
    return [
        trial(
            a, d, t, **({"purify": "9e"} if "rinse" in d else {"defend": "9d"}),
            metrics={
                "t_map": (0.1 + LEVEL[a]) / (1 + ("rinse" in d)), "gain": LEVEL[a], "own_map": 0.5,
                "map": 0.8 - 0.1 * ("rinse" in d), "map_clean": 0.9 - 0.1 * ("rinse" in d),
                "t_map_control": 0.1 + 0.05 * ("rinse" in d),
            },
        )
        for a in ("quiet", "none", "loud") for d in DEFENSES for t in "01"
    ]  # fmt: skip


@pytest.fixture
def results(stock):
    store = stock(trials())
    store.write_record(record("9d", "defend", cost=COST))  # of the machine of all others
    store.write_record(record("9e", "purify_benign", metrics={"milliseconds": 2.5}, cost=COST))
    return read(store)


def test_purified_rows_stand_below_the_undefended_attack(results):
    (board,) = purifications(data_of(results))
    assert board.table[["attack", "defense"]].to_numpy().tolist() == [
        [attack, defense] for attack in ("none", "loud", "quiet") for defense in DEFENSES[:3]
    ]
    table = board.table.set_index(["attack", "defense"])
    assert table["cells"].eq("2/2").all()
    assert table.loc[("loud", "none"), ["t-mAP", "control", "mAP", "clean mAP"]].tolist() == pytest.approx(
        [0.9, 0.1, 0.8, 0.9]
    )
    assert table.loc[("loud", "rinse"), ["t-mAP", "control", "mAP", "clean mAP"]].tolist() == pytest.approx(
        [0.45, 0.15, 0.7, 0.8]
    )


def test_milliseconds_are_shown_on_request(results):
    (board,) = purifications(data_of(results))
    shown = board.table.set_index(["attack", "defense"])["ms"]
    assert pd.isna(shown["loud", "none"])
    assert shown["loud", "rinse"] == 2.5
    assert "ms" not in purifications(data_of(results), costs=False)[0].table
    (found,) = [one for one in leaderboard_of(results) if one.title == "Purifications"]
    assert "ms" not in found.table


def test_seconds_of_purifications_are_in_the_costs_of_defenses(results):
    (costs,) = [one for one in leaderboard_of(results, costs=True) if one.title == "Costs of defenses"]
    line = costs.table.set_index("defense").loc["rinse"]
    assert (line["kind"], line["models"], line["seconds"]) == ("purification", 1, 1.0)


def test_numbers_against_a_weak_attack_give_way_to_words(results):
    (board,) = purifications(data_of(results))
    cells = words(board)
    shown = dict(zip(zip(cells["attack"], cells["defense"], strict=True), cells["t-mAP"], strict=True))
    assert shown["quiet", "rinse"] == "too weak"  # gain .3
    assert shown["quiet", "none"] == "0.400"
    assert shown["loud", "rinse"] == "0.450"
    assert "quiet (+0.300)" in board.caption
    assert "too weak" not in cells["mAP"]


def test_a_run_without_purifications_has_no_board(stock):
    assert purifications(data_of(read(stock([trial("loud"), trial("loud", "repair")])))) == []


def test_attacks_that_no_purification_met_are_left_out(stock):
    (board,) = purifications(data_of(read(stock([trial("loud"), trial("loud", "rinse"), trial("quiet")]))))
    assert set(board.table["attack"]) == {"loud"}


def test_results_of_another_version_have_a_board_of_their_own(stock):
    found = purifications(data_of(read(stock([
        trial("loud"), trial("loud", "rinse"), trial("loud", target="1", version=2),
        trial("loud", "rinse", target="1", version=2),
    ]))))  # fmt: skip
    assert [board.table["cells"].tolist() for board in found] == [["1/2", "1/2"], ["1/2", "1/2"]]
