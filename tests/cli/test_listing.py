"""`bench list`."""

from __future__ import annotations

import json

import pytest

from bench.api.errors import UserError
from bench.cli.listing import list_


def documents(text: str) -> dict:
    """The rows of all tables of an output, which is one JSON document after the other, by title."""
    found, decoder = {}, json.JSONDecoder()
    while text := text.lstrip():
        document, end = decoder.raw_decode(text)
        found |= {one["title"]: one["rows"] for one in document}
        text = text[end:]
    return found


def test_a_component_shows_its_card_and_parameters(capsys) -> None:
    list_("attacks", "ciba", [], "json")
    shown = documents(capsys.readouterr().out)
    card = {row[""]: row[" "] for row in shown["attack ciba"]}
    assert "BMVC, 2023" in card["paper"]
    assert card["follows"].startswith("confusing perturbations")
    parameters = {row["parameter"]: row for row in shown["parameters"]}
    assert parameters["lam"] == {
        "parameter": "lam", "type": "float", "range": ">= 0, <= 1", "default": "0.8",
        "meaning": parameters["lam"]["meaning"],
    }  # fmt: skip
    assert "lambda" in parameters["lam"]["meaning"]
    assert (parameters["poisons"]["type"], parameters["poisons"]["default"]) == ("int", "60")
    assert parameters["poison_rate"]["default"] == "-"
    assert parameters["pairs"]["type"] == '"unordered" or "ordered"'
    list_("datasets", "folder", [], "json")
    (path,) = (row for row in documents(capsys.readouterr().out)["parameters"] if row["parameter"] == "path")
    assert path["default"] == "required"


def test_a_name_that_is_not_there_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'ciba'"):
        list_("attacks", "cib", [], "rich")
    with pytest.raises(UserError, match="bench plan --suite quick"):
        list_("suites", "quick", [], "rich")
