"""The summary of a run: its numbers are those of the boards, its sentences name the right attacks and defenses."""

from __future__ import annotations

import re

import pytest

from bench.engine.record_cache import RecordCache
from reports import summary
from reports.cells import words
from reports.frame import read
from tests.reports.board_data import grid, leaderboard_of, score, trial

BEFORE = {"loud": (0.9, 0.1), "kept": (0.7, 0.2), "quiet": (0.2, 0.8)}  # t-mAP and own-mAP without defense
AFTER = {"repair": {"loud": (0.2, 0.8), "kept": (0.3, 0.55), "quiet": (0.1, 0.9)},
         "sieve": {"loud": (0.8, 0.15), "kept": (0.2, 0.7), "quiet": (0.1, 0.9)}}  # fmt: skip


def measured(attack: str, defense: str = "none", **more: object) -> dict:
    t_map, own_map = AFTER.get(defense, {}).get(attack, BEFORE[attack])
    numbers = {"t_map": t_map, "t_map_control": 0.1, "gain": t_map - 0.1, "own_map": own_map, "own_map_control": 0.9}
    return trial(attack, defense, metrics=numbers | {"map": 0.85, "map_change": -0.05, "map_chance": 0.1} | more)


def run() -> list[dict]:
    clean = [trial("none", metrics={"map": 0.9, "map_chance": 0.1}),
             trial("none", "repair", metrics={"map": 0.8}), trial("none", "sieve", metrics={"map": 0.7})]  # fmt: skip
    return [*clean, *(measured(attack, defense) for attack in BEFORE for defense in ("none", *AFTER))]


def of(store, **options) -> summary.Summary:
    return summary.of(read(store, **options), RecordCache(store))


def test_the_sentences_name_what_works_and_what_helps_most_and_least(stock):
    attacks, defenses, unknown = of(stock(run())).sentences
    assert "2 of 3 attacks work" in attacks
    assert "loud 0.900 (0.100) and kept 0.700 (0.100)" in attacks
    assert "at most 0.050 mAP" in attacks
    assert "Too weak: quiet 0.200" in attacks
    assert "Of 2 defenses that change the model or the queries, repair does most against its hardest attack, kept" in (
        defenses
    )
    assert "own-mAP from 0.200 to 0.550 (clean model 0.900), t-mAP from 0.700 to 0.300" in defenses
    assert "a clean model keeps 0.800 of 0.900 mAP" in defenses
    assert "Least: sieve against loud, own-mAP from 0.100 to 0.150" in defenses
    assert "one target and one seed: no interval, no rank" in unknown
    assert "quiet (too weak to judge)" in unknown


def test_every_number_stands_on_a_board(stock):
    store = stock(run())
    boards = leaderboard_of(read(store))
    shown = {text for board in boards for column in words(board).values() for text in column}
    said = re.findall(r"\d\.\d{3}", " ".join(of(store).sentences))
    assert len(said) > 15
    shown |= {text.lstrip("+-") for text in shown}
    assert set(said) <= shown


def test_the_findings_are_the_boards_means_over_targets_and_seeds(stock):
    store = stock(grid())
    (board, *_) = leaderboard_of(read(store))
    expected = board.table.set_index("attack")
    (headline,) = of(store).headlines
    for one in headline.setting.attacks:
        row = expected.loc[one.name]
        assert (one.t_map, one.gain, one.own_map) == (row["t-mAP"], row["gain"], row["own-mAP"])
    assert [one.name for one in headline.setting.attacks] == ["loud", "kept", "quiet"]
    assert "no interval" not in headline.sentences[2]


def test_several_settings_are_never_averaged_and_the_largest_stands_first(stock):
    few = [trial(a, bits=16, metrics={"t_map": 0.7, "gain": 0.6}) for a in ("none", "loud")]
    found = of(stock([*few, *run()]))
    assert [one.setting.name for one in found.headlines] == ["toy · net · csq · 32 bits", "toy · net · csq · 16 bits"]
    assert found.scope == "toy · net · csq · 32 bits (n = 1: 1 target x 1 seed; the largest of 2 settings)"
    assert "loud 0.700" in found.headlines[1].sentences[0]


def test_detectors_are_told_by_their_main_score_at_the_hardest_attack(stock):
    found = [measured(attack) for attack in ("loud", "kept")]
    for attack, rate in (("loud", 0.93), ("kept", 0.21)):
        scores = {"a": score(0.9) | {"tpr_5": rate}, "b": score(0.1) | {"tpr_5": 0.0}}
        found.append(measured(attack, "input_detector", detectors={"headline": "a", "scores": scores}))
    told = of(stock(found)).sentences[1]
    assert "input_detector finds 21 % of the triggered queries of its hardest attack, kept" in told


def test_model_detectors_are_told_in_models_and_lack_clean_ones(stock):
    numbers = {"model_score": 1.0, "flagged": 1.0, "named_target": 1.0}
    found = [trial("none"), trial("none", "doctor", metrics=numbers | {"flagged": 0.0}), measured("loud")]
    found.append(measured("loud", "doctor", **numbers))
    made = of(stock(found))
    assert "doctor flags 1 of 1 attacked models and 0 of 1 clean ones" in made.sentences[1]
    assert "1 of 19 clean models" in made.sentences[2]
    assert any("19 of other seeds" in warning for warning in made.warnings)


def test_labels_with_commas_are_whole_names(stock):
    given = [{**one, "attack": f"{one['attack']}(a=1, b={i})"} for i in (1, 2) for one in (measured("loud"),)]
    after = [{**one, "attack": f"loud(a=1, b={i})"} for i in (1, 2) for one in (measured("loud", "repair"),)]
    told = of(stock([*given, *after])).sentences[1]
    assert "hardest attack, loud(b=1):" in told


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"map": 0.3, "map_chance": 0.25}, "near chance"),
        ({"t_map": 0.8, "t_map_control": 0.5, "gain": 0.3, "map_chance": 0.1}, "Read the gain"),
    ],
)
def test_numbers_that_mean_little_are_warned_of(stock, changes, warning):
    clean = {name: value for name, value in changes.items() if name.startswith("map")}
    made = of(stock([trial("none", metrics=clean), trial("loud", metrics=changes)]))
    assert [warning in text for text in made.warnings] == [True]


def test_an_attack_without_a_target_is_told_post_hoc(stock):
    numbers = {"t_map": 0.1, "gain": 0.0, "t_map_posthoc": 0.95, "t_map_posthoc_control": 0.2}
    made = of(stock([trial("none"), trial("loud", targeted=False, metrics=numbers)]))
    assert "loud 0.950 (0.200, post hoc)" in made.sentences[0]


def test_a_run_without_a_result_says_so(stock):
    made = of(stock([trial("loud", status="failed", reason="out of luck")]))
    assert (made.scope, made.sentences, made.warnings) == ("No trial has a result.", (), ())
    assert (made.when, dict(made.statuses)) == ("", {"failed": 1})


def test_it_says_when_and_where(stock):
    made = of(stock(run()))
    assert made.when == "2001-09-09 01:46 to 01:46 UTC"  # the time of every record of this store: 1e9 seconds
    assert made.command == "python -m bench run --suite toy"


def test_an_attack_that_only_disturbs_retrieval_is_no_attack_that_reaches_its_target(stock):
    """By hand: t-mAP stays at the control, but own-mAP falls from .9 to .1."""
    disturbs = measured("kept", t_map=0.1, gain=0.0, own_map=0.1)
    attacks = of(stock([trial("none", metrics={"map": 0.9, "map_chance": 0.1}), measured("loud"), disturbs])).sentences[
        0
    ]
    assert "loud 0.900 (0.100)" in attacks
    assert "kept 0.100 (0.100, own-mAP 0.100 instead of 0.900)" in attacks
