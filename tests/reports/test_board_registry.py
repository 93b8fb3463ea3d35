"""A board from a file outside the tree is found in every place in which built-in ones are."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import reports
from bench.api import registry
from bench.api.errors import EXIT_USER, UserError
from bench.cli import listing
from bench.cli.app import main
from reports import html_report
from reports.frame import read
from tests.reports.board_data import trial
from tests.reports.test_html_report import unpacked

OUTSIDE = '''
"""Attacks by what they cost."""
import pandas as pd
from reports.board_registry import Board, BoardData, Column, board

@board("costliest", chapter="Costs of attacks", help="attacks that cost at least so much mAP",
       columns={"place": Column("position by mAP")})
def costliest(data: BoardData, *, floor: float = 0.0) -> list[Board]:
    means = data.results.trials.groupby("attack")["map"].mean()
    table = pd.DataFrame({"attack": means.index, "mAP": means.to_numpy()})
    kept = table[table["mAP"] <= 1 - floor].reset_index(drop=True)
    kept["place"] = range(1, len(kept) + 1)
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
    (listed,) = json.loads(capsys.readouterr().out)
    assert {row["name"]: row["options"] for row in listed["rows"]}["costliest"] == "floor=0.0"
    with pytest.raises(SystemExit):
        main(["report", "costliest", "--store", str(store.root), "--floor", "0.2", "--format", "json"])
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown["rows"] == [{"attack": "loud", "mAP": 0.5, "place": 1}]
    (board,) = reports.tables(store.root, "costliest")
    assert list(board.table["attack"]) == ["loud", "none"]
    html_report.draw(store, tmp_path / "page.html", read(store))
    text = (tmp_path / "page.html").read_text()
    drawn = unpacked(text)["boards"][-1]
    assert {"part": "costs-of-attacks", "title": "Costliest"}.items() <= drawn.items()
    assert {column["name"]: column["about"] for column in drawn["columns"]}["place"] == "position by mAP"
    assert 'id="costs-of-attacks"' in text


PART = """
import pandas as pd
from bench.metrics import DetectorScores, ModelCodes, TrialFacts, metric
from reports.board_registry import Board, BoardData, board

@metric("shift", title="shift", section="Input detection", meaning="a detector's mean score of triggered queries")
def shift(scores: DetectorScores): ...

@metric("rank_first", title="first rank", section="Triggered queries", unit="ranks", high=float("inf"), control=True,
        meaning="mean rank of the first item of the target")
def rank_first(codes: ModelCodes): ...

@metric("doubt", title="doubt", section="Model detection", meaning="p value of the score of a model detector")
def doubt(trial: TrialFacts): ...

@metric("skew", title="skew", section="Code geometry", meaning="share of bits that are 1")
def skew(codes: ModelCodes): ...

@board("counts", chapter="Leaderboards", part_of="leaderboard", help="number of trials per attack")
def counts(data: BoardData) -> list[Board]:
    counted = data.results.trials["attack"].value_counts().rename("trials").reset_index()
    return [Board("Counts", counted, "", index=("attack",))]
"""


def test_parts_of_the_leaderboard_and_metrics_of_a_section_join_those_that_are_there(
    stock: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "parts.py").write_text(PART)
    registry.load_plugin(tmp_path / "parts.py")
    scores = {"headline": "a", "scores": {"a": {"auroc": 0.9, "shift": 2.0}}}
    trials = [
        trial("none"),
        trial("loud", metrics={"skew": 0.25, "rank_first": 7.5, "rank_first_control": 40.0}),
        trial("loud", "doctor", metrics={"model_score": 1.0, "doubt": 0.125}),
        trial("loud", "input_detector", metrics={"detectors": scores}),
    ]
    store = stock(trials)
    found = {board.title: board.table for board in reports.tables(store.root)}
    assert [name for name in found if name in {"Attacks", "Input detectors", "Counts"}] == [
        "Attacks",
        "Input detectors",
        "Counts",
    ]
    assert found["Input detectors"]["shift"].tolist() == [2.0]
    assert found["Counts"].to_numpy().tolist() == [["loud", 3], ["none", 1]]
    attacks = found["Attacks"].set_index("attack").loc["loud"]
    assert (attacks["first rank"], attacks["first rank control"]) == (7.5, 40.0)
    assert found["Model detectors"].set_index("attack").loc["loud", "doubt"] == 0.125
    main_ = ["leaderboard", "--store", str(store.root), "--plugin", str(tmp_path / "parts.py"), "--format"]
    for format_ in ("csv", "markdown"):
        with suppress(SystemExit):
            main([*main_, format_])
        assert "first rank" in capsys.readouterr().out
    (geometry,) = reports.tables(store.root, "code-geometry")
    assert geometry.table.set_index("attack").loc["loud", "skew"] == 0.25
    html_report.draw(store, tmp_path / "page.html", read(store))
    titles = [board["title"] for board in unpacked((tmp_path / "page.html").read_text())["boards"]]
    assert titles.count("Counts") == 1, "on the page as a part of the leaderboard, and not once more"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("floor: float = 0.0", "floor: float", "option 'floor' of board 'costliest' has no default"),
        ("floor", "store", "'costliest' declares the option 'store'"),
    ],
)
def test_options_that_cannot_be_given_are_refused(
    stock: Any, outside: Path, old: str, new: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    outside.write_text(OUTSIDE.replace(old, new))
    with pytest.raises(SystemExit) as stop:
        main(["report", "costliest", "--store", str(stock([trial("none")]).root), "--plugin", str(outside)])
    assert stop.value.code == EXIT_USER
    assert message in capsys.readouterr().err


def test_without_its_plugin_it_is_unknown(stock: Any, outside: Path) -> None:
    store = stock([trial("none")])
    with registry.plugins_restored():
        registry.load_plugin(outside)
    with pytest.raises(UserError, match="costliest"):
        reports.tables(store.root, "costliest")


def test_two_of_one_name_are_a_mistake(stock: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OUTSIDE.replace("costliest", "conventions"))
    registry.load_plugin(tmp_path / "mine.py")
    with pytest.raises(UserError, match="'conventions': built in and plugin"):
        reports.tables(stock([trial("none")]).root)
