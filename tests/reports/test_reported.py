"""Reported beside measured: which cells a claim is set beside, and what is said where there are none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from bench.cli import report as command
from bench.config import suite
from bench.config.reported import MEANINGS, Kind, ReportedNumber
from bench.engine.collection import opened
from reports import frame
from reports.reported import agreement, claims


def claim(value: float, kind: Kind = "absolute", **axes: str) -> ReportedNumber:
    return ReportedNumber("A Paper, Table 1", "t_map", axes, value, "Their victim has other weights.", kind=kind)


def trial(attack: str, **changes):
    return {"attack": attack, "defense": "none", "target": "0", "seed": 0, **changes}


def rows(boards):
    (board,) = boards
    return board.table.to_dict("records")


def test_without_a_run_every_number_is_named_as_not_run():
    boards = claims(None, [claim(0.5, attack="badnets"), claim(0.1, attack="none")])
    assert [(r["attack"], r["reported"], r["measured"], r["remark"]) for r in rows(boards)] == [
        ("badnets", 0.5, None, "not run"), ("none", 0.1, None, "not run"),
    ]  # fmt: skip
    assert claim(0.5).note in boards[0].caption


def test_cells_of_the_setting_are_averaged_and_others_are_not(stock):
    store = stock([
        trial("none"),
        trial("loud", metrics={"t_map": 0.6}),
        trial("loud", target="1", metrics={"t_map": 0.8}),
        trial("loud", defense="repair", metrics={"t_map": 0.2}),
    ])  # fmt: skip
    trials = frame.read(store).trials
    bits = str(trials["bits"].iloc[0])
    found = rows(claims(trials, [claim(0.5, attack="loud", bits=bits), claim(0.5, attack="loud", bits="7")]))
    assert found[0]["measured"] == pytest.approx(0.7)  # undefended cells alone
    assert found[0]["difference"] == pytest.approx(0.2)
    assert found[0]["cells"] == "2/2"
    assert found[1]["remark"] == "not run"


def test_a_cell_that_failed_says_why(stock):
    store = stock([trial("none"), trial("loud", status="failed", reason="it broke")])
    (row,) = rows(claims(frame.read(store).trials, [claim(0.5, attack="loud")]))
    assert row["remark"] == "it broke"
    assert row["measured"] is None


def test_other_values_of_a_sweep_are_other_rows(stock):
    store = stock([
        trial("none"),
        trial("loud(poisons=20)", metrics={"t_map": 0.2}),
        trial("loud(poisons=80)", metrics={"t_map": 0.8}),
        trial("kept", dataset="toy(size=64)", metrics={"t_map": 0.4}),
    ])  # fmt: skip
    trials = frame.read(store).trials
    found = rows(claims(trials, [claim(0.5, attack="loud"), claim(0.5, attack="loud(poisons=80)")]))
    assert [row["remark"] for row in found] == ["not run", ""]
    assert found[1]["measured"] == pytest.approx(0.8)
    for dataset, measured in (("toy", 0.4), ("toy(size=64)", 0.4), ("toy(size=32)", None)):
        (row,) = rows(claims(trials, [claim(0.5, attack="kept", dataset=dataset)]))
        assert row["measured"] == (measured and pytest.approx(measured))
        assert row["remark"] == ("" if measured else "not run")


def test_a_target_without_a_value_leaves_none_and_says_so(stock):
    store = stock([trial("none"), trial("loud"), trial("loud", target="1", metrics={"t_map": None})])
    boards = claims(frame.read(store).trials, [claim(0.5, attack="loud"), claim(0.5, attack="none")])
    (row, clean) = rows(boards)
    assert row["measured"] is None or row["measured"] != row["measured"]
    assert "no query found a hit" in row["remark"]
    assert clean["measured"] == pytest.approx(0.8)


def test_a_bound_is_called_one_and_other_claims_need_no_column():
    (board,) = claims(None, [claim(0.5, attack="badnets")])
    assert "bound" not in board.table
    bound = ReportedNumber("A Paper", "psnr", {"attack": "badnets"}, 30.0, "", "at least", kind="absolute")
    (board,) = claims(None, [bound])
    assert list(board.table["bound"]) == ["at least"]
    assert board.metrics["reported"] == "psnr"  # decibels are not printed as shares


def test_the_command_needs_a_suite_with_claims_and_prints_them(tmp_path, capsys):
    from bench.api.errors import UserError

    with pytest.raises(UserError, match="smoke"):
        command.reported(suites=["smoke"], store=tmp_path / "none")
    file = tmp_path / "s.toml"
    file.write_text(
        '[[reported]]\nsource = "P"\nkind = "order"\nmetric = "map"\nby = ["bits"]\n[reported.values]\n16 = 0.5\n'
    )
    command.reported(suites=[str(file)], store=tmp_path / "none", format_="json")
    (board,) = json.loads(capsys.readouterr().out)
    assert board["rows"][0]["remark"] == "not run"


# Kinds of comparison


@pytest.mark.parametrize("kind", MEANINGS)
def test_the_board_says_what_can_be_compared(kind: Kind) -> None:
    (board,) = claims(None, [replace(claim(0.5, kind, attack="badnets"), statement="It works.", bound="at least")])
    assert f"({kind})" in board.title
    assert MEANINGS[kind] in board.caption
    assert ("threshold" in board.table) == (kind == "behaviour")
    assert ("reported" in board.table) == (kind != "behaviour")


def measured(stock, values: dict[str, float], **changes):
    cells = [trial("none"), *(trial(attack, metrics={"t_map": value}, **changes) for attack, value in values.items())]
    return frame.read(stock(cells)).trials


def test_an_order_is_compared_pair_by_pair(stock) -> None:
    """METHODOLOGY.md#reported-numbers: of six pairs one is turned round and one is equal: tau is (4 - 1) / 6."""
    names = ["loud(n=1)", "loud(n=2)", "loud(n=3)", "loud(n=4)"]
    trials = measured(stock, dict(zip(names, (0.2, 0.5, 0.4, 0.5), strict=True)))
    given = [claim(0.1 * place, "order", attack=name) for place, name in enumerate(names)]
    (board,) = claims(trials, given)
    assert "4 of 6 pairs of rows are in the reported order (Kendall's tau +0.50)" in board.caption
    assert "difference" not in board.table
    (board,) = claims(trials, [replace(one, kind="absolute") for one in given])
    assert "pairs" not in board.caption
    assert board.table["difference"].tolist() == pytest.approx([0.2, 0.4, 0.2, 0.2])


def test_the_agreement_is_scipy_s_tau_without_ties(stock) -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        values = rng.permutation(6) / 10
        lines = [{"a": n, "same": (), "reported": n / 10, "measured": value} for n, value in enumerate(values)]
        same, opposite, pairs = agreement(lines, ["a"])
        assert (same - opposite) / pairs == pytest.approx(stats.kendalltau(range(6), values).statistic)
        assert pairs == 15


def test_only_rows_that_differ_in_one_thing_make_a_pair() -> None:
    def line(attack: str, bits: str, reported: float, measured: float | None, same: str = "x") -> dict[str, object]:
        return {"attack": attack, "bits": bits, "same": (same,), "reported": reported, "measured": measured}

    rows = [line("a", "16", 0.1, 0.1), line("b", "16", 0.2, 0.3), line("a", "32", 0.3, 0.2), line("b", "32", 0.4, 0.0)]
    assert agreement(rows, ["attack", "bits"]) == (2, 2, 4)  # not (a, 16) with (b, 32), nor (b, 16) with (a, 32)
    other = [line("a", "16", 0.1, 0.1), line("b", "16", 0.2, 0.3, "y"), line("c", "16", 0.3, None)]
    assert agreement(other, ["attack", "bits"]) == (0, 0, 0)
    equal = [line("a", "16", 0.1, 0.1), line("b", "16", 0.1, 0.3)]
    assert agreement(equal, ["attack", "bits"]) == (0, 0, 0)


def test_nothing_is_said_of_an_order_that_was_not_measured() -> None:
    (board,) = claims(None, [claim(0.1, "order", attack="a"), claim(0.2, "order", attack="b")])
    assert "pairs" not in board.caption


def test_a_statement_holds_on_its_side_of_the_threshold(stock) -> None:
    trials = measured(stock, {"loud": 0.8, "quiet": 0.3})
    given = [
        replace(claim(value, "behaviour", attack=attack), statement=said, bound=bound)
        for attack, said, bound, value in (
            ("loud", "It works.", "at least", 0.8), ("quiet", "It works too.", "at least", 0.5),
            ("quiet", "It is weak.", "at most", 0.5), ("kept", "It is there.", "at least", 0.1),
        )
    ]  # fmt: skip
    (board,) = claims(trials, given)
    assert board.table[["statement", "holds"]].fillna("-").values.tolist() == [
        ["It works.", "yes"], ["It works too.", "no"], ["It is weak.", "yes"], ["It is there.", "-"],
    ]  # fmt: skip
    assert "2 of 3 statements hold." in board.caption


def test_the_statements_of_quick_hold_in_the_reference() -> None:
    trials = frame.read(opened(Path("reference")), suite="quick").trials
    lines = [row for board in claims(trials, suite.load("quick").reported) for row in board.table.to_dict("records")]
    assert [row["holds"] for row in lines] == ["yes"] * 3
    repaired = trials[(trials["attack"] == "badnets") & (trials["defense"] == "fine_pruning")]
    assert lines[0]["measured"] == pytest.approx(repaired["gain"].mean())
    assert lines[1]["measured"] == pytest.approx((repaired["map"] - repaired["map_clean"]).mean())
