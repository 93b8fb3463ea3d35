"""What defenses cost is the difference to the same cells undefended."""

from __future__ import annotations

import pytest

from reports.frame import read
from tests.reports.board_data import leaderboard_of, trial


def test_costs_are_paired_differences_and_only_shown_on_request(stock):
    values = {
        ("none", "none", "0"): (0.9, 0.1, 0.8), ("none", "repair", "0"): (0.8, 0.1, 0.7),
        ("loud", "none", "0"): (0.9, 0.9, 0.1), ("loud", "repair", "0"): (0.85, 0.3, 0.5),
        ("loud", "none", "1"): (0.7, 0.5, 0.2), ("loud", "repair", "1"): (0.7, 0.3, 0.2),
        ("quiet", "repair", "0"): (0.0, 0.0, 0.0),  # its undefended cell is missing: no difference
        ("none", "input_detector", "0"): (0.9, 0.1, 0.8),
    }  # fmt: skip
    values |= {
        ("none", "sieve", "0"): (0.9, 0.1, 0.8), ("loud", "sieve", "0"): (0.8, 0.9, 0.1),
        ("loud", "sieve", "1"): (0.6, 0.3, 0.2), ("loud", "sieve", "2"): (0.0, 0.0, 0.0),  # not every row has target 2
        ("loud", "none", "2"): (0.9, 0.9, 0.9),
    }  # fmt: skip
    trials = [
        trial(
            attack,
            defense,
            target=target,
            metrics={"map": m, "t_map": t, "own_map": o},
            defend=f"{attack}{defense}{target}",
        )
        for (attack, defense, target), (m, t, o) in values.items()
    ]
    results = read(stock(trials))
    (board,) = [board for board in leaderboard_of(results, costs=True) if board.title == "Costs of defenses"]
    assert not [board for board in leaderboard_of(results) if board.title == "Costs of defenses"]
    table = board.table.set_index("defense")
    assert table["models"].to_dict() == {"sieve": 4, "input_detector": 1, "repair": 3}
    found = table.loc["repair", ["mAP lost", "mAP lost attacked", "t-mAP removed", "own-mAP back"]].tolist()
    assert found == pytest.approx([0.1, (0.05 + 0.0) / 2, (0.6 + 0.2) / 2, (0.4 + 0.0) / 2])
    assert table.loc["sieve", "mAP lost attacked"] == pytest.approx((0.1 + 0.1) / 2)
    assert table.loc["sieve", "t-mAP removed"] == pytest.approx((0.0 + 0.2) / 2)
    assert table.loc["input_detector", ["mAP lost", "t-mAP removed"]].isna().all()


def test_a_defense_of_which_no_cell_has_its_undefended_twin_has_blanks(stock):
    trials = [trial("loud", "none", target="1"), trial("loud", "repair", target="0", defend="d")]
    (board,) = [one for one in leaderboard_of(read(stock(trials)), costs=True) if one.title == "Costs of defenses"]
    assert board.table["models"].tolist() == [0]
    assert "mAP lost" not in board.table
