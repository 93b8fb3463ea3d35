"""The list of best known results: what enters it, in which order, and what happens if a line is missing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from bench.api.errors import UserError
from bench.api.kinds import Access, DefenseKind
from bench.config.trial import Spec
from bench.engine.collection import opened
from reports import best_known, frame, noise_floor
from reports.best_known import BestKnown, Budget, Claim, Origin, Result, Setting, append, parsed, read, shipped
from reports.best_results import results_of
from tests.reports.board_data import rows, score, trial

SETTING = Setting(
    dataset=Spec("toy"), backbone=Spec("net"), method=Spec("csq"), bits=32, training={}, surrogate="other_seed",
    augment="victim", protocol_digest="p", metrics_version="1", targets=["0"], seeds=[0],
)  # fmt: skip
ORIGIN = Origin(suite="toy", bundle="b" * 8, run="r", commit="c", added="2026-01-02")
STEP = max(one.p95 for source in noise_floor.CHANCE if (one := noise_floor.floor_of("own_map", "x", "repair", source)))
EMPTY = BestKnown((), Path("list"))


def result(damage: float, attack: str = "x", defense: str = "mend", **changes: Any) -> Result:
    """An attack of a plugin after a repair: own-mAP is .9 on the clean model."""
    values: dict[str, Any] = {
        "setting": SETTING, "attack": Spec(attack), "defense": Spec(defense), "defense_kind": DefenseKind.REPAIR,
        "budget": Budget.of(Access.DIRTY_LABEL, 0.05, 25.0), "poison_rate": 0.05, "psnr": 25.0, "t_map": 0.5,
        "t_map_control": 0.1, "own_map": 0.9 - damage, "own_map_control": 0.9, "map": 0.9, "map_clean": 0.9,
        "attack_kept": True, "defense_kept": True,
    }  # fmt: skip
    return Result(**values | changes)


def added(known: BestKnown, results: Sequence[Result]) -> BestKnown:
    """The list in memory after results were added."""
    return known.extended(known.improved_by(results), ORIGIN)


def attack_of(known: BestKnown, budget: Budget, defense: str = "mend") -> float | None:
    found = known.attack(SETTING, Spec(defense), best_known.OWN_MAP, budget)
    return found and found.damage


def defense_of(known: BestKnown, attack: str) -> float | None:
    found = known.defense(SETTING, Spec(attack), best_known.OWN_MAP)
    return found and found.damage


# Budgets


def test_a_budget_is_the_tightest_that_the_attack_keeps() -> None:
    made = Budget.of(Access.CLEAN_LABEL, 0.05, 20.0)
    assert (made.poison_rate, made.psnr) == (0.05, 20.0)
    above = Budget.of(Access.CLEAN_LABEL, 0.0501, 19.9)
    assert (above.poison_rate, above.psnr) == (0.1, 10.0)
    without = Budget.of(Access.MODEL_ONLY, None, None)
    assert (without.poison_rate, without.psnr) == (0.0, 30.0)
    assert made.within(above)
    assert not above.within(made)
    assert not made.within(above.model_copy(update={"access": Access.DIRTY_LABEL}))


def test_more_poison_does_not_displace_an_attack_with_less_and_both_are_found() -> None:
    little, much = (Budget.of(Access.DIRTY_LABEL, rate, 25.0) for rate in (0.01, 0.1))
    known = added(EMPTY, [result(0.1, "small", budget=little)])
    known = added(known, [result(0.85, "large", budget=much)])
    assert attack_of(known, little) == pytest.approx(0.1)
    assert attack_of(known, much) == pytest.approx(0.85)
    assert [entry.attack.name for entry in known.current(Claim.ATTACK)] == ["small", "large"]


def test_what_less_poison_reaches_is_no_improvement_with_more() -> None:
    little, much = (Budget.of(Access.DIRTY_LABEL, rate, 25.0) for rate in (0.01, 0.1))
    found = EMPTY.improved_by([result(0.8, "large", budget=much), result(0.8, "small", budget=little)])
    hardest = [one.result.attack.name for one in found if Claim.ATTACK in one.improves]
    assert hardest == ["small"]


# What counts as better


@pytest.mark.parametrize(("more", "entries"), [(0.0, 1), (0.99, 1), (1.01, 2)])
def test_an_improvement_is_larger_than_the_noise_floor(more: float, entries: int) -> None:
    known = added(EMPTY, [result(0.1, "first")])
    known = added(known, [result(0.1 + more * STEP, "second")])
    assert len([entry for entry in known.entries if Claim.ATTACK in entry.improves]) == entries


def test_a_mean_over_more_cells_needs_a_smaller_step() -> None:
    many = SETTING.model_copy(update={"targets": ["0", "1"], "seeds": [0, 1]})
    assert result(0.1, setting=many).floor == pytest.approx(STEP / 2)


def test_results_over_other_cells_are_not_compared_and_fewer_cells_do_not_count() -> None:
    many = SETTING.model_copy(update={"targets": ["0", "1"]})
    known = added(EMPTY, [result(0.1, setting=many)])
    assert known.improved_by([result(0.9)]) == []
    other = SETTING.model_copy(update={"targets": ["0", "7"]})
    assert len(known.improved_by([result(0.1, setting=other)])) == 1
    assert known.attack(other, Spec("mend"), best_known.OWN_MAP, result(0).budget) is None


def test_a_defense_that_destroys_the_model_is_never_the_strongest() -> None:
    known = added(EMPTY, [result(0.0, "x", "destroyer", defense_kept=False), result(0.6, "x", "mend")])
    assert defense_of(known, "x") == pytest.approx(0.6)
    assert attack_of(known, result(0).budget, "destroyer") == 0.0  # what is known against it still is


def test_an_attack_that_destroys_the_model_is_never_the_hardest() -> None:
    known = added(EMPTY, [result(0.8, "brute", attack_kept=False), result(0.2, "x")])
    assert attack_of(known, result(0).budget) == pytest.approx(0.2)


def test_repairs_and_input_detectors_are_compared_with_their_own_kind() -> None:
    guard = {"defense_kind": DefenseKind.INPUT_DETECTOR, "auroc": 0.97}
    known = added(EMPTY, [result(0.8, "x", "guard", **guard), result(0.3, "x", "mend")])
    assert defense_of(known, "x") == pytest.approx(0.3)
    found = known.defense(SETTING, Spec("x"), best_known.AUROC)
    assert found is not None
    assert found.defense.name == "guard"
    assert found.damage == pytest.approx(0.03)


# Properties

BUDGETS = [Budget.of(Access.DIRTY_LABEL, rate, psnr) for rate in (0.01, 0.1) for psnr in (15.0, 25.0)]
ANY = st.builds(
    lambda damage, attack, defense, budget: result(damage, f"a{attack}", f"d{defense}", budget=budget),
    st.floats(-0.1, 0.9), st.integers(0, 3), st.integers(0, 1), st.sampled_from(BUDGETS),
)  # fmt: skip
MANY = st.lists(ANY, max_size=8)


def improved(results: Sequence[Result], parts: int) -> list[BestKnown]:
    """The lists after each of so many stores."""
    steps = [EMPTY]
    for part in range(parts):
        steps.append(added(steps[-1], results[part::parts]))
    return steps


@settings(max_examples=80, deadline=None)
@given(MANY, st.randoms(use_true_random=False))
def test_the_order_of_results_in_a_store_plays_no_role(results, random) -> None:
    other = [*results]
    random.shuffle(other)
    assert added(EMPTY, results) == added(EMPTY, other)


@settings(max_examples=80, deadline=None)
@given(MANY, st.integers(1, 4))
def test_later_stores_only_improve_and_nothing_better_by_more_than_noise_is_missed(results, parts) -> None:
    steps = improved(results, parts)
    for before, after in itertools.pairwise(steps):
        assert after.entries[: len(before.entries)] == before.entries
        for budget, defense in itertools.product(BUDGETS, ("d0", "d1")):
            old, new = attack_of(before, budget, defense), attack_of(after, budget, defense)
            assert old is None or (new is not None and new >= old)
        for attack in ("a0", "a1", "a2", "a3"):
            old, new = defense_of(before, attack), defense_of(after, attack)
            assert old is None or (new is not None and new <= old)
    for budget, defense in itertools.product(BUDGETS, ("d0", "d1")):
        allowed = [r.damage for r in results if r.defense.name == defense and r.budget.within(budget)]
        found = attack_of(steps[-1], budget, defense)
        assert (found is None) == (not allowed)
        if found is not None:
            assert max(allowed) - STEP <= found <= max(allowed)
    for attack in ("a0", "a1", "a2", "a3"):
        left = [r.damage for r in results if r.attack.name == attack]
        found = defense_of(steps[-1], attack)
        assert (found is None) == (not left)
        if found is not None:
            assert min(left) <= found <= min(left) + STEP


@settings(max_examples=40, deadline=None)
@given(MANY)
def test_what_is_known_already_is_not_added_again(results) -> None:
    assert added(EMPTY, results).improved_by(results) == []


# The file


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "known.jsonl"
    known = read(path)
    for damage, attack in ((0.1, "a"), (0.6, "b"), (0.4, "c")):
        known = append(known, known.improved_by([result(damage, attack, f"d{attack}")]), ORIGIN)
    assert len(known.entries) == 3
    return path


def test_appending_keeps_every_byte(lines: Path) -> None:
    before = lines.read_bytes()
    known = read(lines)
    append(known, known.improved_by([result(0.2, "z")]), ORIGIN)
    assert lines.read_bytes().startswith(before)
    assert len(lines.read_bytes()) > len(before)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda held: held[1:], "lines before line 1"),
        (lambda held: [held[0], held[2]], "lines before line 2"),
        (lambda held: [held[1], held[0], held[2]], "lines before line 1"),
        (lambda held: [held[0], held[0], held[1], held[2]], "lines before line 2"),
        (lambda held: [held[0], held[1].replace(b'"t_map":0.5', b'"t_map":0.9'), held[2]], "line 2 .* was changed"),
        (lambda held: [*held[:2], held[2].replace(b'"t_map":0.5', b'"t_map":0.9')], "line 3 .* was changed"),
        (lambda held: [b"{}", *held[1:]], "line 1 .* is no entry"),
        (lambda held: [b"no JSON", *held[1:]], "line 1 .* is no entry"),
    ],
)  # fmt: skip
def test_a_changed_list_is_refused_in_one_line(lines: Path, change, words: str) -> None:
    lines.write_bytes(b"\n".join(change(lines.read_bytes().splitlines())) + b"\n")
    with pytest.raises(UserError, match=words) as caught:
        read(lines)
    assert "\n" not in str(caught.value)
    assert caught.value.hint


def test_a_last_line_without_its_end_is_completed(lines: Path) -> None:
    lines.write_bytes(lines.read_bytes().rstrip(b"\n"))
    known = read(lines)
    append(known, known.improved_by([result(0.2, "z")]), ORIGIN)
    assert len(read(lines).entries) == len(known.entries) + 1


def test_a_list_that_changed_since_it_was_read_is_not_written(lines: Path) -> None:
    early = read(lines)
    append(read(lines), read(lines).improved_by([result(0.2, "y")]), ORIGIN)
    held = lines.read_bytes()
    with pytest.raises(UserError, match="has changed since it was read"):
        append(early, early.improved_by([result(0.3, "z")]), ORIGIN)
    assert lines.read_bytes() == held


def test_the_shipped_list_begins_with_the_lines_that_were_ever_shipped() -> None:
    """No later line checks those at the end: whoever adds lines may add their number and checksum here."""
    content = best_known.shipped_path().read_bytes().splitlines(keepends=True)
    for count, head in ((10, "3ffa2ff9ec34acd6"),):
        assert parsed(b"".join(content[:count]), Path("list")).head.startswith(head)


# A run


def test_the_shipped_list_has_the_best_of_the_reference_by_brute_force() -> None:
    """Every pair of attack and defense of `quick`, compared by loops over single trials."""
    found = frame.read(opened(Path("reference")), suite="quick")
    main = {row["key"]: row["auroc"] for row in found.detectors.to_dict("records") if row["headline"]}
    kept, lost, access = {}, {}, {}
    trials = found.trials.to_dict("records")
    clean = {row["target"]: row for row in trials if row["attack"] == row["defense"] == "none"}
    for attack, defense in {(row["attack"], row["defense"]) for row in trials}:
        mine = [row for row in trials if (row["attack"], row["defense"]) == (attack, defense)]
        if attack == "none" or defense not in {"fine_pruning", "strip"}:
            continue
        plain = {r["target"]: r for r in trials if (r["attack"], r["defense"]) == (attack, "none")}
        damage = [
            1 - main[row["key"]] if defense == "strip"
            else plain[row["target"]]["own_map_control"] - row["own_map"] for row in mine
        ]  # fmt: skip
        drop = [clean[row["target"]]["map"] - row["map"] for row in mine]
        assert len(mine) == 3
        lost[attack, defense], kept[attack, defense] = math.fsum(damage) / 3, math.fsum(drop) / 3 < 0.03
        access[attack] = mine[0]["access"]
    known = shipped()
    quick = next(entry.setting for entry in known.entries if entry.suite == "quick")
    metric = {"fine_pruning": best_known.OWN_MAP, "strip": best_known.AUROC}
    assert all(kept.values())
    for (attack, defense), value in lost.items():
        rivals = [v for (a, d), v in lost.items() if d == defense and access[a] == access[attack]]
        specs = next(e for e in known.entries if (e.attack.label, e.defense.label) == (attack, defense))
        strongest = known.defense(quick, specs.attack, metric[defense])
        hardest = known.attack(quick, specs.defense, metric[defense], Budget.of(Access(access[attack]), 1.0, 0.0))
        assert strongest is not None
        assert hardest is not None
        assert strongest.damage <= value + 1e-9
        assert hardest.damage >= max(rivals) - hardest.floor
    own = {(e.attack.label, e.defense.label): e.damage for e in known.entries if e.bundle == "e7395c4c"}
    assert own == pytest.approx(lost)


def test_only_whole_rows_of_strong_attacks_that_keep_their_cells_are_results(stock) -> None:
    hit = {"metrics": {"own_map": 0.3, "map": 0.89, "map_change": -0.01}}
    cells = [
        trial(attack, defense, target, **hit)
        for attack in ("none", "loud", "kept") for defense in ("none", "repair", "doctor") for target in "01"
    ] + [
        trial("quiet", defense, target, metrics={"gain": 0.1, "own_map": 0.8})
        for defense in ("none", "repair") for target in "01"
    ] + [trial("loud", "sieve", "0", **hit), trial("loud", "sieve", "1", status="failed", reason="broke")]  # fmt: skip
    found = results_of(frame.read(stock(cells)))
    assert sorted((one.attack.name, one.defense.name) for one in found) == [("kept", "repair"), ("loud", "repair")]
    assert all(one.damage == pytest.approx(0.6) for one in found)
    assert {(one.budget.poison_rate, one.budget.psnr) for one in found} == {(0.05, 30.0)}
    assert all(one.map_clean == pytest.approx(0.9) and one.defense_kept for one in found)


@pytest.mark.parametrize(("after", "kept"), [(0.871, True), (0.869, False)])
def test_the_map_lost_is_that_of_the_clean_model_minus_that_after_the_defense(stock, after, kept) -> None:
    cells = [trial("none"), trial("loud", metrics={"map": 0.88, "map_change": -0.02}),
             trial("loud", "repair", metrics={"map": after, "map_change": 0.0})]  # fmt: skip
    (one,) = results_of(frame.read(stock(cells)))
    assert one.attack_kept
    assert one.defense_kept is kept


def test_a_purification_pays_for_what_it_costs_the_clean_model(stock) -> None:
    """Its own controls are those of the clean model with purified queries."""
    cells = [
        trial("none"), trial("loud"),
        trial("loud", "rinse", metrics={"own_map": 0.6, "own_map_control": 0.6, "map": 0.6, "map_change": 0.0}),
    ]  # fmt: skip
    (one,) = results_of(frame.read(stock(cells)))
    assert one.damage == pytest.approx(0.3)
    assert not one.defense_kept


def test_an_input_detector_has_the_auroc_of_its_main_score(stock) -> None:
    scores = {"headline": "main", "scores": {"main": score(0.7), "other": score(0.99)}}
    cells = [trial("none"), trial("loud"), trial("loud", "input_detector", metrics={"detectors": scores})]
    (one,) = results_of(frame.read(stock(cells)))
    assert (one.auroc, one.metric) == (0.7, best_known.AUROC)


def test_boards_show_what_is_known_for_their_cells_and_nothing_for_others(stock, monkeypatch) -> None:
    from reports.boards.attacks import attacks
    from reports.boards.defenses import defenses
    from reports.boards.hardest_attack import hardest_attack
    from tests.reports.board_data import data_of

    store = stock([trial(a, d, metrics={"own_map": 0.4}) for a in ("none", "loud") for d in ("none", "repair")])
    data = data_of(frame.read(store))
    (mine,) = results_of(data.results)
    better = mine.model_copy(update={"own_map": 0.85, "defense": Spec("miracle"), "defense_kept": True})
    worse = mine.model_copy(update={"own_map": 0.05, "attack": Spec("cruel"), "attack_kept": True})
    known = added(EMPTY, [better, worse])
    monkeypatch.setattr(best_known, "shipped", lambda: known)
    (board,) = attacks(data)
    assert tuple(rows(board).loc["loud", ["best known", "best known with"]]) == (0.85, "miracle")
    assert "best known" not in board.compact_columns
    assert "python -m bench best" in board.caption
    own = defenses(data)[1]
    assert rows(own).loc["loud", "best known"] == 0.85
    (hardest,) = hardest_attack(data)
    assert tuple(hardest.table[["best known", "best known with"]].iloc[0]) == (pytest.approx(0.85), "cruel")
    other = data_of(frame.read(stock([trial("none", target="7"), trial("loud", target="7")], folder="other")))
    (board,) = attacks(other)
    assert "best known" not in board.table
    assert "bench best" not in board.caption
