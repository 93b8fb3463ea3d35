"""A board from a file outside the tree is found in every place in which built-in ones are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import reports
from bench.api import registry
from bench.api.errors import UserError
from bench.cli import listing
from bench.cli import report as command
from reports import html_report
from reports.frame import read
from tests.reports.test_boards import trial
from tests.reports.test_html_report import unpacked

OUTSIDE = '''
"""Attacks by what they cost."""
import pandas as pd
from reports.board_registry import BoardData, board
from reports.context import Board

@board("costliest", chapter="Costs of attacks", help="attacks that cost at least so much mAP")
def costliest(data: BoardData, *, floor: float = 0.0) -> list[Board]:
    means = data.results.trials.groupby("attack")["map"].mean()
    table = pd.DataFrame({"attack": means.index, "mAP": means.to_numpy()})
    kept = table[table["mAP"] <= 1 - floor].reset_index(drop=True)
    return [Board("Costliest", kept, "Mean mAP.", index=("attack",), metrics={"mAP": "map"})]
'''


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    path = tmp_path / "costs_of_attacks.py"
    path.write_text(OUTSIDE)
    return path


def test_it_is_listed_printed_in_notebooks_and_on_the_page(
    stock: Any, outside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = stock([trial("none", metrics={"map": 0.9}), trial("loud", metrics={"map": 0.5})])
    listing.list_("boards", plugin=[outside], format_="json")
    (listed,) = json.loads(capsys.readouterr().out).values()
    assert {row["name"]: row["options"] for row in listed}["costliest"] == "floor=0.0"
    command.print_board("costliest", store=store.root, format_="json", floor=0.2)
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown["rows"] == [{"attack": "loud", "mAP": 0.5}]
    (board,) = reports.tables(store.root, "costliest")
    assert list(board.table["attack"]) == ["loud", "none"]
    html_report.draw(store, tmp_path / "page.html", read(store))
    text = (tmp_path / "page.html").read_text()
    assert {"part": "costs-of-attacks", "title": "Costliest"}.items() <= unpacked(text)["boards"][-1].items()
    assert 'id="costs-of-attacks"' in text


def test_without_its_plugin_it_is_unknown(stock: Any, outside: Path) -> None:
    store = stock([trial("none")])
    with registry.plugins_restored():
        registry.load_plugin(outside)
    with pytest.raises(UserError, match="unknown kind of board 'costliest'"):
        reports.tables(store.root, "costliest")


def test_two_of_one_name_are_a_mistake(stock: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OUTSIDE.replace("costliest", "conventions"))
    registry.load_plugin(tmp_path / "mine.py")
    with pytest.raises(UserError, match="two boards are called 'conventions': built in and plugin"):
        reports.tables(stock([trial("none")]).root)
