"""For whom a metric's direction is good: colours of boards show what is good for the owner of the model."""

from __future__ import annotations

from bench.metrics import Metric
from bench.metrics.budget import BUDGET
from bench.metrics.triggered import TRIGGERED

OWNERS = ("own_map", "own_map_control")  # of triggered queries that still find their true classes


def good_for_owner(metric: Metric) -> int:
    """+1 if more is good for the owner of the model, -1 if it is bad, 0 if neither.

    The direction of a metric is the attacker's for stealth and for triggered queries, except for own-mAP.
    """
    attackers = metric.section in {TRIGGERED, BUDGET} and metric.name not in OWNERS
    return -metric.direction if attackers or metric.name == "t_map_stored" else metric.direction
