"""The texts for `bench explain`: each belongs to a metric, the main columns have all, and no result depends on them."""

from __future__ import annotations

import sys

import pytest

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


@pytest.mark.parametrize("name", [*attacks.SHORT, *input_detectors.SHORT, "poisons", "linf", "ssim"])
def test_the_main_columns_have_formula_example_and_limits(name):
    assert all(explanation(METRICS[name]))


def test_an_explanation_changes_no_fingerprint():
    code = "def gain(x):\n    return x\n"
    assert normalised(code) == normalised(f"{code}EXPLAINED = {{'gain': {{'formula': 'x'}}}}\n")
    assert normalised(code) != normalised(f"{code}OTHER = {{}}\n")
