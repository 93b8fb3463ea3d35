"""Reported beside measured: which cells a claim is set beside, and what is said where there are none."""

from __future__ import annotations

import json

import pytest

from bench.cli import report as command
from bench.config.reported import ReportedNumber
from reports import frame
from reports.reported import claims


def claim(value: float, **axes: str) -> ReportedNumber:
    return ReportedNumber("A Paper, Table 1", "t_map", axes, value, "Their victim has other weights.")


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
    bound = ReportedNumber("A Paper", "psnr", {"attack": "badnets"}, 30.0, "", "at least")
    (board,) = claims(None, [bound])
    assert list(board.table["bound"]) == ["at least"]
    assert board.metrics["reported"] == "psnr"  # decibels are not printed as shares


def test_the_command_needs_a_suite_with_claims_and_prints_them(tmp_path, capsys):
    from bench.api.errors import UserError

    with pytest.raises(UserError, match="quick"):
        command.reported(suites=["quick"], store=tmp_path / "none")
    file = tmp_path / "s.toml"
    file.write_text('[[reported]]\nsource = "P"\nmetric = "map"\nby = ["bits"]\n[reported.values]\n16 = 0.5\n')
    command.reported(suites=[str(file)], store=tmp_path / "none", format_="json")
    (board,) = json.loads(capsys.readouterr().out)
    assert board["rows"][0]["remark"] == "not run"
