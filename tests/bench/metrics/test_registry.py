"""Every metric says what it is, and a declaration that does not fit is refused."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from bench.metrics import (
    METRICS,
    Metric,
    Number,
    metric,
)
from bench.metrics.geometry import GEOMETRY
from bench.metrics.registry import SECTIONS, Group


def test_every_metric_says_what_it_is() -> None:
    for one in METRICS.values():
        assert one.title
        assert one.meaning
        assert one.direction in {-1, 0, 1}
        assert one.low < one.high


def group(given: object) -> Group:
    return Group(lambda codes: given, (Metric("mine", "mine", "what is given", GEOMETRY),), "ModelCodes")


@pytest.mark.parametrize(
    ("given", "held"),
    [(np.float32(0.25), 0.25), (np.int64(3), 3), (np.array(2.0), 2.0), (math.nan, None), (None, None),
     (math.inf, math.inf)],
)  # fmt: skip
def test_a_metric_gives_plain_numbers(given: object, held: Number) -> None:
    (found,) = group(given).values(None).values()
    assert (found, type(found)) == (held, type(held))


def test_a_metric_that_is_no_number_is_named() -> None:
    with pytest.raises(TypeError, match="metric 'mine' gave 'much'"):
        group("much").values(None)
    with pytest.raises(ValueError, match=r"gives \['other'\], which it does not declare"):
        group({"other": 1}).values(None)


def test_what_a_metric_is_computed_from_is_said() -> None:
    with pytest.raises(TypeError, match="annotated as one of ModelCodes, TrialFacts, DetectorScores"):
        metric("mine", title="mine", section=GEOMETRY, meaning="nothing")(lambda codes: 1)


def test_every_meaning_stands_alone() -> None:
    meanings = [one.meaning for one in METRICS.values()]
    assert len(set(meanings)) == len(meanings)
    for name, one in METRICS.items():
        assert not re.match(r"(the )?same\b|as above", one.meaning), name
        assert name not in METRICS.controls() or "clean model" in one.meaning, name
        assert one.section in SECTIONS
