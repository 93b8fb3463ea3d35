"""`bench explain`: names lead to their declarations."""

from __future__ import annotations

import pytest

from bench.api.errors import UserError
from bench.cli.explain import explain
from bench.metrics import METRICS
from bench.metrics.explained import explanation


@pytest.mark.parametrize("name", ["t-mAP", "T-MAP", "t_map"])
def test_a_metric_is_found_by_both_names(name, capsys):
    explain([name])
    text = " ".join(capsys.readouterr().out.split())
    assert METRICS["t_map"].meaning in text
    assert "0 to 1; more is better" in text
    assert "bench/METHODOLOGY.md#t-map" in text
    assert explanation(METRICS["t_map"]).silent in text


@pytest.mark.parametrize(
    ("name", "words"),
    [("rank", "METHODOLOGY.md#rank-ranges"), ("badnets", "BadNets: Identifying"), ("hardest-attack", "bench report")],
)
def test_columns_components_and_boards(name, words, capsys):
    explain([name])
    assert words in " ".join(capsys.readouterr().out.split())


def test_an_unknown_name_has_a_hint():
    with pytest.raises(UserError) as caught:
        explain(["tmap"])
    assert caught.value.hint == "did you mean 't_map'?"
