import itertools
import json

import numpy as np
import pandas as pd
import pytest

from reports import cells, render
from reports.boards.attacks import attacks
from reports.boards.data_filters import data_filters
from reports.boards.defenses import defenses
from reports.boards.input_detectors import input_detectors
from reports.boards.model_detectors import model_detectors
from reports.boards.no_result import no_result
from reports.boards.target_afterwards import target_afterwards
from reports.frame import narrow, read
from reports.statistics import crossed_interval
from tests.reports.board_data import data_of, leaderboard_of
from tests.stores import record


def trial(attack="none", defense="none", target="0", seed=0, **changes):
    return {"attack": attack, "defense": defense, "target": target, "seed": seed, **changes}


COST = {"seconds": 1.0, "started": 1.0e9, "host": ""}
RNG = np.random.default_rng(0)
NOISE = {place: RNG.normal() for place in itertools.product(("none", "loud", "quiet", "kept"), "0123", range(3))}
LEVEL = {"none": 0.0, "loud": 0.8, "quiet": 0.3, "kept": 0.5}


def gain(attack, target, seed):
    return LEVEL[attack] + (0.02 * NOISE[attack, target, seed] if attack != "none" else 0)


def grid(attacks=tuple(LEVEL), targets="012", seeds=(0, 1, 2), **changes):
    return [
        trial(a, target=t, seed=s, metrics={"gain": gain(a, t, s), "t_map": gain(a, t, s) + 0.1}, **changes)
        for a in attacks
        for t in targets
        for s in seeds
    ]


def made(stock, *trials, **options):
    return leaderboard_of(read(stock(list(trials))), **options)


def rows(board):
    return board.table.set_index("attack")


def test_attacks_are_ordered_by_gain_inside_each_access_and_none_comes_first(stock):
    (board,) = attacks(data_of(read(stock(grid()))))
    assert list(board.table["attack"]) == ["none", "kept", "loud", "quiet"]
    assert list(board.table["access"]) == ["none", "clean-label", "dirty-label", "dirty-label"]


def test_means_and_intervals_are_those_of_the_cells(stock):
    (board,) = attacks(data_of(read(stock(grid()))))
    matrix = np.array([[gain("loud", t, s) for s in range(3)] for t in "012"])
    expected = crossed_interval(matrix)
    row = rows(board).loc["loud"]
    assert row["gain"] == pytest.approx(matrix.mean())
    assert row["gain ±"] == pytest.approx(expected.half)
    assert row["cells"] == "9/9"
    assert "over new targets and new seeds" in board.caption


def test_intervals_have_their_degrees_of_freedom_in_the_caption_and_in_files(stock):
    (board,) = attacks(data_of(read(stock(grid()))))
    found = [crossed_interval(np.array([[gain(a, t, s) for s in range(3)] for t in "012"])).df
             for a in ("kept", "loud", "quiet")]  # fmt: skip
    assert list(board.table["gain df"].dropna()) == pytest.approx(found)
    assert f"Degrees of freedom of the intervals: {min(found):.1f} to {max(found):.1f}." in board.caption
    assert "gain df" in render.csv([board]).splitlines()[0]
    assert "gain df" not in render.plain(board)


def test_ranks_stay_inside_an_access(stock):
    (board,) = attacks(data_of(read(stock(grid()))))
    assert rows(board)["rank"].dropna().to_dict() == {"loud": "1-1", "quiet": "2-2"}
    assert board.best == {2}


def test_map_kept_is_non_inferiority(stock):
    lossy = grid(("none", "loud"))
    for one in grid(("quiet",)):
        one["metrics"]["map_change"] = -0.05
        lossy.append(one)
    (board,) = attacks(data_of(read(stock(lossy))))
    assert rows(board)["mAP kept"].dropna().to_dict() == {"loud": "yes", "quiet": "no"}


@pytest.mark.parametrize(
    ("targets", "seeds", "words"),
    [
        ("0", (0,), "n = 1: no interval"),
        ("012", (0,), "One seed: no interval"),
        ("0", (0, 1), "One target: no interval"),
    ],
)
def test_too_few_cells_carry_neither_interval_nor_rank(stock, targets, seeds, words):
    (board,) = attacks(data_of(read(stock(grid(targets=targets, seeds=seeds)))))
    assert "gain ±" not in board.table
    assert "rank" not in board.table
    assert words in board.caption


def test_all_classes_as_targets_are_fixed(stock):
    NOISE.update({("loud", str(t), s): RNG.normal() for t in range(10) for s in range(2)})
    trials = [one for t in map(str, range(10)) for one in grid(("loud",), [t], (0, 1))]
    (board,) = attacks(data_of(read(stock(trials))))
    assert "for these targets" in board.caption
    means = np.array([[gain("loud", str(t), s) for s in (0, 1)] for t in range(10)])
    assert board.table["gain ±"].iloc[0] == pytest.approx(crossed_interval(means, fixed_targets=True).half)


def test_averages_are_over_the_cells_that_all_rows_share(stock):
    trials = [one for one in grid() if not (one["attack"] == "loud" and one["target"] == "2")]
    trials += [trial("loud", target="2", seed=s, status="failed", reason="no luck") for s in range(3)]
    (board,) = attacks(data_of(read(stock(trials))))
    table = rows(board)
    assert table["cells"].to_dict() == {"none": "9/9", "kept": "9/9", "loud": "6/9", "quiet": "9/9"}
    assert (table["n"] == 6).all()
    shared = [gain("quiet", t, s) for t in "01" for s in range(3)]
    assert table.loc["quiet", "gain"] == pytest.approx(np.mean(shared))
    assert "9 results that not every row has" in board.caption


def test_a_row_with_far_too_few_results_is_named_and_takes_nothing_from_the_others(stock):
    trials = grid(("none", "loud"))
    trials += grid(("quiet",), "0", (0,))
    trials += [
        trial("quiet", target=t, seed=s, status="missing") for t in "012" for s in range(3) if (t, s) != ("0", 0)
    ]
    (board,) = attacks(data_of(read(stock(trials))))
    table = rows(board)
    assert (table.loc["quiet", "cells"], table.loc["quiet", "n"], table.loc["loud", "n"]) == ("1/9", 0, 9)
    assert pd.isna(table.loc["quiet", "t-mAP"])
    assert "Too few results to average: quiet" in board.caption


def test_an_incomplete_cross_has_no_interval(stock):
    trials = [one for one in grid(("none", "loud")) if (one["target"], one["seed"]) != ("0", 0)]
    (board,) = attacks(data_of(read(stock(trials))))
    assert "not fully crossed" in board.caption
    assert "gain ±" not in board.table


def test_a_cell_without_the_value_leaves_a_blank_not_a_mean_over_fewer(stock):
    trials = grid(("loud",))
    trials[0]["metrics"]["own_map"] = None
    (board,) = attacks(data_of(read(stock(trials))))
    assert pd.isna(board.table["own-mAP"].iloc[0])


def test_settings_are_never_mixed(stock):
    trials = [
        *grid(("loud",)),
        *grid(("loud",), bits=64),
        *grid(("loud",), training={"lr": 1}),
        *grid(("loud",), augment="none"),
    ]
    found = attacks(data_of(read(stock(trials))))
    assert len(found) == 4
    assert [len(board.table) for board in found] == [1] * 4
    assert len({(board.title, board.caption) for board in found}) == 4


@pytest.mark.parametrize("change", [{"code": "new"}, {"version": 2}, {"protocol": {"version": 3}}])
def test_editions_are_split_with_a_warning_unless_asked(stock, change):
    trials = read(stock([*grid(("none", "loud")), *grid(("quiet",), **change)]))
    split = attacks(data_of(trials))
    assert [board.title.rpartition(" · ")[2] for board in split] == ["edition 1 of 2", "edition 2 of 2"]
    assert all("2 editions" in board.caption for board in split)
    assert rows(split[0])["cells"].to_dict() == {"none": "9/9", "loud": "9/9", "quiet": "0/9"}
    (mixed,) = attacks(data_of(trials, mixed=True))
    assert "Warning: this table mixes" in mixed.caption
    assert len(mixed.table) == 3


def test_a_row_of_several_runs_has_results_of_one_code_of_its_attack(stock):
    """The first run's attack had other code than the second's; the clean model and the data had the same."""
    old = [trial("loud", target=t, implant="01d", metrics={"gain": 0.1}) for t in "01"]
    new = [trial("loud", target="0", implant="3e7", metrics={"gain": 0.5}), trial("quiet", target="0")]
    store = stock([*old, trial("quiet", target="0"), trial("quiet", target="1")], new)
    for key in ("01d", "3e7"):
        store.write_record(record(key, "implant", code=f"code of {key}", cost=COST))
    trials = read(store, run="all")
    (board,) = attacks(data_of(trials))
    assert rows(board)["cells"].to_dict() == {"loud": "1/2", "quiet": "2/2"}
    assert rows(board).loc["loud", "gain"] == 0.5
    assert "left out (1): results of other code of their attack" in board.caption
    (asked,) = attacks(data_of(trials, mixed=True))
    assert rows(asked).loc["loud", ["cells", "gain"]].to_list() == ["2/2", pytest.approx(0.3)]


def test_the_matrices_show_each_attack_after_each_repair_and_no_guard(stock):
    trials = [
        trial(a, d, metrics={"t_map": LEVEL[a] / (1 + (d == "repair")), "own_map": 0.5, "map": 0.8})
        for a in ("none", "loud") for d in ("none", "repair", "sieve", "input_detector")
    ]  # fmt: skip
    found = defenses(data_of(read(stock(trials))))
    assert [board.title.split(" ")[0] for board in found] == ["t-mAP", "own-mAP", "mAP"]
    table = rows(found[0])
    assert [name for name in table if name in {"none", "repair", "sieve", "input_detector"}] == [
        "none",
        "repair",
        "sieve",
    ]
    assert (table.loc["loud", "none"], table.loc["loud", "repair"]) == (0.8, 0.4)
    assert table.loc["loud", "control"] == 0.1
    assert all("Input detectors do not change codes" in board.caption for board in found)


def test_a_matrix_leaves_a_blank_where_there_is_nothing(stock):
    trials = [
        trial("loud"),
        trial("none"),
        trial("none", "repair"),
        trial("loud", "repair", status="oom", reason="big"),
    ]
    board = defenses(data_of(read(stock(trials))))[0]
    assert pd.isna(rows(board).loc["loud", "repair"])
    assert rows(board).loc["loud", "cells"] == "1/2"
    assert "Too few results to average: loud x repair" in board.caption


def score(auroc, control=0.5):
    names = ("tpr_1", "tpr_5", "caught_5", "alarms_1", "alarms_5", "alarms_1_control", "alarms_5_control")
    return {"auroc": auroc, "auroc_control": control} | dict.fromkeys(names, 0.05)


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
    assert "Too few results to average: none x input_detector" in board.caption


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


def test_filters_and_diagnoses(stock):
    trials = [trial("loud", "sieve", metrics={"removed": 0.1, "removed_poison": 0.9})]
    trials += [
        trial("loud", "doctor", seed=s, metrics={"model_score": 2.0, "named_target": float(s < 3)}) for s in range(4)
    ]
    results = read(stock([*trials, trial("none", "doctor", metrics={"model_score": 1.0})]))
    (sieve,) = data_filters(data_of(results))
    assert sieve.table["poison removed"].iloc[0] == 0.9
    (doctor,) = model_detectors(data_of(results))
    assert rows(doctor).loc["loud", "named"] == "3/4 [0.194, 0.994]"


def test_every_cell_without_a_result_is_listed_once(stock):
    trials = [trial("loud", target=t, status="failed", reason="it broke") for t in "012"]
    trials += [trial("quiet", status="skipped", reason="no data"), trial("kept", status="missing"), trial("none")]
    (board,) = no_result(data_of(read(stock(trials))))
    assert board.table[["status", "trials"]].to_numpy().tolist() == [["failed", 3], ["missing", 1], ["skipped", 1]]
    assert board.table["which"].iloc[0] == "attack loud"
    assert board.table["reason"].iloc[0] == "it broke"
    assert board.caption.startswith("5 of 6 trials have no result")


def test_no_board_of_failures_without_any(stock):
    assert no_result(data_of(read(stock([trial()])))) == []


def test_a_run_without_any_result_still_has_boards(stock):
    found = made(
        stock, *[trial(a, d, status="missing") for a in ("none", "loud") for d in ("none", "repair", "input_detector")]
    )
    assert found[-1].title == "No result"
    assert found[-1].table["trials"].sum() == 6


@pytest.mark.parametrize(
    ("axis", "titles"), [("target", ["target 0", "target 1"]), ("seed", ["seed 0", "seed 1", "seed 2"])]
)
def test_slices_by_target_or_seed(stock, axis, titles):
    found = made(stock, *grid(("none", "loud"), "01"), by=axis)
    assert [board.title.rpartition(" · ")[2] for board in found] == titles


def test_single_cells_have_their_key(stock):
    trials = grid(("none", "loud"), "0", (0,))
    results = read(stock(trials))
    (board,) = attacks(data_of(results))
    assert list(board.table["key"]) == [key[:8] for key in results.trials["key"]]


def test_slices_by_attack_keep_the_baseline(stock):
    found = made(stock, *grid(("none", "loud", "quiet")), by="attack")
    assert [list(board.table["attack"]) for board in found] == [["none", "loud"], ["none", "quiet"]]


def test_slices_by_what_the_attacker_needs(stock):
    found = made(stock, *grid(), by="access")
    assert [board.title.rpartition(" · ")[2] for board in found] == ["access dirty-label", "access clean-label"]
    assert [list(board.table["attack"]) for board in found] == [["none", "loud", "quiet"], ["none", "kept"]]


def test_slices_by_defense_rank_attacks_after_each(stock):
    trials = [trial(a, d, t) for a in ("none", "loud") for d in ("none", "repair") for t in "01"]
    found = made(stock, *trials, by="defense")
    assert [board.title.split(" · ")[0] for board in found] == ["Attacks", "Attacks after repair"]


def test_gain_against_an_axis_of_the_setting(stock):
    trials = [trial("loud", bits=b, metrics={"gain": b / 100}) for b in (64, 16, 32)]
    found = made(stock, *trials, by="bits")
    assert found[0].title.startswith("Gain by bits")
    (row,) = found[0].table.to_dict("records")
    assert row == {"attack": "loud", "cells": "3/3", "bits 16": 0.16, "bits 32": 0.32, "bits 64": 0.64,
                   "mean": pytest.approx(1.12 / 3)}  # fmt: skip


def test_other_methods_have_other_code_and_are_columns_all_the_same(stock):
    trials = [
        trial("loud", method=m, implant=f"c0{i}", metrics={"gain": 0.5 + i}) for i, m in enumerate(("csq", "dpsh"))
    ]
    store = stock(trials)
    for i in range(2):
        store.write_record(record(f"c0{i}", "implant", code=f"{i}", cost=COST))
    (board, *_) = leaderboard_of(read(store), by="method")
    assert rows(board).loc["loud", ["csq", "dpsh"]].tolist() == [0.5, 1.5]
    assert "left out" not in board.caption


def test_costs_only_on_request(stock):
    trials = read(stock(grid()))
    trials.trials["seconds_attack"] = 2.0
    assert "seconds" not in attacks(data_of(trials))[0].table
    assert attacks(data_of(trials), costs=True)[0].table["seconds"].iloc[1] == 2.0


def test_boards_are_the_same_every_time_and_leave_the_cells_alone(stock):
    results = read(stock(grid()))
    before = results.trials.copy(deep=True)
    first, second = (leaderboard_of(narrow(results, ["target=0,1"])) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        pd.testing.assert_frame_equal(one.table, other.table)
        assert one.caption == other.caption
    pd.testing.assert_frame_equal(results.trials, before)
    assert not any(word in board.caption for board in first for word in ("seconds", "here", "1e9"))


DEAD = {"map": 0.34, "map_clean": 0.81, "map_chance": 0.1, "collapsed": 1.0, "t_map": 0.1, "gain": 0.0}


def planted(stock, **more):
    """A grid in which one victim collapsed."""
    trials = grid(("none", "loud", "quiet"))
    trials[9]["metrics"] = DEAD | more  # loud, target 0, seed 0
    assert (trials[9]["attack"], trials[9]["target"], trials[9]["seed"]) == ("loud", "0", 0)
    return read(stock(trials))


def test_a_collapsed_victim_is_left_out_and_named(stock):
    results = planted(stock)
    (board,) = attacks(data_of(results))
    table = rows(board)
    assert table["cells"].to_dict() == {"none": "9/9", "loud": "8/9", "quiet": "9/9"}
    assert table["collapsed"].to_dict() == {"none": 0, "loud": 1, "quiet": 0}
    shared = [gain("loud", t, s) for t in "012" for s in range(3) if (t, s) != ("0", 0)]
    assert table.loc["loud", "gain"] == pytest.approx(np.mean(shared)), "its gain of 0 is in no mean"
    key = results.trials.loc[results.trials["status"] == "collapsed", "key"].iloc[0][:8]
    assert (
        "1 trial is a failed run, not a weak attack, and left out:"
        f" victim collapsed (mAP 0.34, clean 0.81, chance 0.10) in {key}."
    ) in board.caption
    assert "2 results that not every row has are left out" in board.caption
    assert "collapsed" not in cells.words(board)
    assert json.loads(render.as_json([board]))[0]["rows"][1]["collapsed"] == 1
    assert "collapsed" in render.csv([board]).splitlines()[0].split(",")


def test_a_collapsed_victim_is_among_what_has_no_result(stock):
    results = planted(stock)
    found = leaderboard_of(results)
    (line,) = found[-1].table.to_dict("records")
    assert (line["status"], line["trials"], line["which"]) == ("collapsed", 1, "attack loud; target 0; seed 0")
    assert line["reason"] == "victim collapsed (mAP 0.34, clean 0.81, chance 0.10)"
    assert line["key"] == results.trials.loc[results.trials["status"] == "collapsed", "key"].iloc[0][:8]
    assert "lost at least half" in found[-1].caption, "just half is enough"
    assert "what an attack on a finished model costs is its result" in found[-1].caption
    assert "--retry" not in found[-1].caption, "another try would collapse again"


def test_the_other_boards_leave_it_out_too(stock):
    about = {"detectors": {"headline": "a", "scores": {"a": score(0.6)}}}
    trials = [trial("loud", d, seed=s, implant=f"{d}{s}", metrics=about if d == "input_detector" else {})
             for s in (0, 1)
             for d in ("none", "repair", "input_detector", "sieve", "doctor")]  # fmt: skip
    for one in trials[:5]:
        one["implant"] = "a1"
    trials[0]["metrics"] = DEAD
    results = read(stock(trials))
    found = {board.title.split(" ")[0]: board for board in leaderboard_of(results)}
    assert set(found) == {"Attacks", "t-mAP", "own-mAP", "mAP", "Filters", "Detectors", "Model", "No"}
    for name, board in found.items():
        if name != "No":
            assert board.table["collapsed"].iloc[0] >= 1, name
            assert "left out: victim collapsed" in board.caption, name
    assert found["Detectors"].table["cells"].iloc[0] == "1/2"
    assert found["t-mAP"].table["cells"].iloc[0] == "3/6"


def test_many_collapsed_victims_stay_one_line(stock):
    trials = grid(("none", "loud"))
    for i, one in enumerate(trials):
        one["metrics"] = DEAD | {"map": 0.2 + i / 100}
    (board,) = attacks(data_of(read(stock(trials))))
    (line,) = (line for line in board.caption.split("\n") if "failed runs" in line)
    assert line.startswith("18 trials are failed runs")
    assert line.count("victim collapsed") == 4
    assert line.endswith("; and 14 more.")
    assert board.table["gain"].isna().all()


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
    assert "abstained: how many" in doctor.caption
    assert cells.words(doctor)["abstained"] == ["2", "5"]


def test_one_result_to_spare_is_one(stock):
    trials = grid(("none", "loud"))
    trials[-1]["metrics"] = DEAD
    (board,) = attacks(data_of(read(stock(trials))))
    assert "1 result that not every row has is left out of the averages." in board.caption


def test_attacks_that_fix_no_target_are_shown_by_the_class_they_hit(stock):
    """Every attack stands under that convention then; without such an attack there is no such board."""

    def trials(targeted):
        found = {"none": (0.2, 0.2), "loud": (0.7, 0.2), "kept": (0.9, 0.3)}
        for attack, (posthoc, control) in found.items():
            metrics = {"t_map_posthoc": posthoc, "t_map_posthoc_control": control, "spread": 0.25}
            yield trial(attack, target="0", metrics=metrics, targeted=targeted or attack != "kept")

    assert target_afterwards(data_of(read(stock(list(trials(targeted=True)))))) == []
    (board,) = target_afterwards(data_of(read(stock(list(trials(targeted=False))))))
    assert board.title.startswith("Target chosen afterwards")
    assert list(board.table["attack"]) == ["kept", "loud", "none"]
    assert list(board.table["t-mAP post hoc"]) == [0.9, 0.7, 0.2]
    assert list(board.table["post hoc control"]) == [0.3, 0.2, 0.2]
    assert list(board.table["spread"]) == [0.25] * 3
    assert "kept: no target is fixed beforehand" in board.caption


def test_settings_of_which_nothing_can_run_have_no_board_but_a_reason(stock):
    store = stock([
        trial("none"), trial("loud"), trial("kept", status="skipped", reason="asks for labels"),
        trial("none", dataset="far", status="skipped", reason="far is not here"),
        trial("loud", dataset="far", status="skipped", reason="far is not here"),
    ])  # fmt: skip
    found = leaderboard_of(read(store))
    assert [board.title.split(" · ")[0:2] for board in found[:-1]] == [["Attacks", "toy"]]
    assert list(found[0].table["attack"]) == ["none", "kept", "loud"]
    assert set(found[-1].table["reason"]) == {"asks for labels", "far is not here"}
