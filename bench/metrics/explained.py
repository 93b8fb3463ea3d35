"""Formula, example and limits of metrics, for people. No stage imports this module.

A module that declares metrics, also a plugin, has a dict `EXPLAINED`: name of a metric -> `formula`, `example` and
`silent` (what the metric does not say). It is no part of the fingerprint: a changed text computes nothing again.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import NamedTuple

from bench.metrics.registry import Metric, all_groups


class Explanation(NamedTuple):
    """What `bench explain` says of a metric beside its declaration. silent: what the metric does not say."""

    formula: str = ""
    example: str = ""
    silent: str = ""


def explanation(metric: Metric) -> Explanation:
    """The explanation of a metric; that of the metric itself for its control; empty without one."""
    for group in all_groups():
        texts: Mapping[str, Mapping[str, str]] = getattr(sys.modules[group.function.__module__], "EXPLAINED", {})
        for one in group.metrics:
            if metric.name == one.name or (one.control is not None and metric.name == one.control.name):
                return Explanation(**texts.get(metric.name, texts.get(one.name, {})))
    return Explanation()
