"""`bench explain`: every declared text belongs to a metric, and names lead to their declarations."""

from __future__ import annotations

import sys

import pytest

from bench.api.errors import UserError
from bench.cli.explain import explain
from bench.graph.fingerprint import normalised
from bench.metrics import METRICS
from bench.metrics.explained import explanation
from bench.metrics.registry import all_groups
from reports.boards import attacks, input_detectors


def test_every_text_explains_a_metric_of_its_module():
    for group in all_groups():
        module = sys.modules[group.function.__module__]
        known = {metric.name for one in all_groups() if one.function.__module__ == module.__name__
                 for pair in one.metrics for metric in (pair, pair.control) if metric is not None}  # fmt: skip
        assert set(getattr(module, "EXPLAINED", {})) <= known


@pytest.mark.parametrize("name", [*attacks.SHORT, *attacks.BUDGET, *input_detectors.SHORT])
def test_the_main_columns_have_formula_example_and_limits(name):
    assert all(explanation(METRICS[name]))


@pytest.mark.parametrize("name", ["t-mAP", "T-MAP", "t_map"])
def test_a_metric_is_found_by_both_names(name, capsys):
    explain(name)
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
    explain(name)
    assert words in " ".join(capsys.readouterr().out.split())


def test_an_unknown_name_has_a_hint():
    with pytest.raises(UserError) as caught:
        explain("tmap")
    assert caught.value.hint == "did you mean 't_map'?"


def test_an_explanation_changes_no_fingerprint():
    code = "def gain(x):\n    return x\n"
    assert normalised(code) == normalised(f"{code}EXPLAINED = {{'gain': {{'formula': 'x'}}}}\n")
    assert normalised(code) != normalised(f"{code}OTHER = {{}}\n")
