"""`bench list`."""

from __future__ import annotations

import json

import pytest

from bench.api.errors import UserError
from bench.cli.component import new
from bench.cli.listing import list_
from bench.config import suite as suites


def documents(text: str) -> dict:
    """The rows of all tables of an output by title."""
    return {one["title"]: one["rows"] for one in json.loads(text)}


def test_a_component_shows_its_card_and_parameters(capsys) -> None:
    list_("attacks", "ciba", [], "json")
    shown = documents(capsys.readouterr().out)
    card = {row["about"]: row["text"] for row in shown["attack ciba"]}
    assert "2023" in card["paper"]
    assert card["follows"].startswith("confusing perturbations")
    parameters = {row["parameter"]: row for row in shown["parameters"]}
    assert parameters["lam"] == {
        "parameter": "lam", "type": "float", "range": ">= 0, <= 1", "default": "0.8",
        "meaning": parameters["lam"]["meaning"],
    }  # fmt: skip
    assert "lambda" in parameters["lam"]["meaning"]
    assert (parameters["poisons"]["type"], parameters["poisons"]["default"]) == ("int", "60")
    assert parameters["poison_rate"]["default"] == "-"
    assert parameters["pairs"]["type"] == '"unordered" or "ordered" or "released"'
    list_("datasets", "folder", [], "json")
    (path,) = (row for row in documents(capsys.readouterr().out)["parameters"] if row["parameter"] == "path")
    assert path["default"] == "required"


def test_a_name_that_is_not_there_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="'ciba'"):
        list_("attacks", "cib", [], "rich")
    with pytest.raises(UserError, match="'quick'"):
        list_("suites", "quik", [], "rich")
    with pytest.raises(UserError, match="list suites quick --format toml"):
        list_("suites", "quick", [], "csv")
    with pytest.raises(UserError, match="list suites NAME"):
        list_("attacks", None, [], "toml")


@pytest.mark.parametrize(
    "arguments",
    [(None, None), ("attacks", None), ("metrics", None), ("boards", None), ("suites", None), ("attacks", "ciba"),
     ("defenses", "strip"), ("datasets", "digits")],
    ids=str,
)  # fmt: skip
def test_80_columns_hold_every_line(arguments, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    list_(*arguments, [], "rich")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if line != line.rstrip()]


def test_each_parameter_stands_beside_its_default_and_range(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    list_("attacks", "ciba", [], "rich")
    printed = capsys.readouterr().out
    (row,) = [line for line in printed.splitlines() if line.startswith("poisons ")]
    assert row.split()[1] == "60"
    assert "(int >= 1)" in row
    assert "--set ciba.poisons=60" in printed
    assert len(printed.splitlines()) < 60


def test_without_a_kind_every_name_is_listed(capsys) -> None:
    list_(None, None, [], "rich")
    printed = capsys.readouterr().out
    assert {"ciba,", "strip,", "csq,", "digits,", "quick,"} <= {*printed.split()}


@pytest.mark.parametrize("source", [*suites.names()])
def test_a_copy_of_a_suite_has_its_trials(source, tmp_path, capsys) -> None:
    new("suite", "my", tmp_path, source)
    copied, shipped = suites.load(str(tmp_path / "my.toml")), suites.load(source)
    assert copied.name == "my"
    assert (copied.blocks, copied.resources, copied.reported) == (shipped.blocks, shipped.resources, shipped.reported)
    capsys.readouterr()
    list_("suites", source, [], "toml")
    assert capsys.readouterr().out == shipped.text
    for name, message in (("my", "there already"), ("quick", "there already"), ("a/b", "letters")):
        with pytest.raises(UserError, match=message):
            new("suite", name, tmp_path)
