"""Dose and response: the fit by hand, and real sweeps of a store."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.api.errors import UserError
from bench.config import suite as suites
from bench.engine.store import Store
from bench.graph import planner as planning
from reports.boards.dose_response import d50, dose_response
from reports.frame import read
from tests.bench.conftest import finish
from tests.reports.board_data import data_of
from tests.reports.conftest import write_metrics
from tests.stores import write_run

SWEPT = """
name = "swept"
[axes]
datasets = [{ name = "digits", train = 200, query = 60 }]
backbones = [{ name = "convnet", width = 4 }]
attacks = ["none", { name = "badnets", poison_rate = [0.01, 0.05, 0.15] }, { name = "badnets", trigger_size = 0.4 }]
targets = [0, 1, 2]
bits = [12]
[training]
optimizer = "adamw"
lr = 1e-2
weight_decay = 1e-4
epochs = 1
"""


@pytest.mark.parametrize(
    ("values", "gains", "plateau", "half"),
    [
        ([1, 2, 4], [0.0, 0.2, 0.8], 0.8, 2 ** (4 / 3)),  # a third of the way from 2 to 4, in the logarithm
        ([1, 2, 4], [0.3, 0.1, 0.8], 0.8, 2 ** (4 / 3)),  # what falls is pooled: .2, .2, .8
        ([0, 1, 2], [0.0, 0.2, 0.8], 0.8, 4 / 3),  # no logarithm of 0
        ([1, 2, 4], [0.7, 0.8, 0.8], 0.8, 1.0),
        ([1, 2, 4], [0.0, 0.01, 0.02], 0.02, None),
    ],
)
def test_half_of_the_plateau_by_hand(values, gains, plateau, half):
    found = d50(np.array(values, dtype=float), np.array(gains))
    assert found[0] == pytest.approx(plateau)
    assert found[1] == (half and pytest.approx(half))


@given(st.lists(st.floats(-0.2, 1), min_size=3, max_size=8), st.floats(0.1, 10))
def test_it_lies_among_the_doses_and_goes_with_their_unit(gains, unit):
    values = np.geomspace(1, 50, len(gains))
    plateau, half = d50(values, np.array(gains))
    assert (half is None) == (plateau < 0.05)
    if half is not None:
        assert 1 - 1e-9 <= half <= 50 + 1e-9
        assert d50(unit * values, np.array(gains))[1] == pytest.approx(unit * half, rel=1e-9)


@pytest.mark.long
def test_a_sweep_is_a_row_with_an_interval_over_targets(tmp_path):
    """A real run's records with given gains: the smallest and largest D50 are those of a target drawn three times."""
    (tmp_path / "s.toml").write_text(SWEPT)
    plan = planning.plan([suites.load(str(tmp_path / "s.toml"))], data=None, device="cpu")
    store = Store(tmp_path / "store", create=True)
    finish(plan, store)
    middle = {0: 0.1, 1: 0.2, 2: 0.3}
    for planned in plan.trials:
        trial = planned.trial
        gains = {0.01: 0.0, 0.05: middle[int(trial.target[0])], 0.15: 0.8}
        write_metrics(store, planned, gain=gains[trial.attack.given.get("poison_rate", 0.05)], collapsed=0.0)
    write_run(store, plan, "swept")
    (board,) = dose_response(data_of(read(store)))
    (row,) = board.table.to_dict("records")
    assert row["attack"].startswith("badnets(trigger_size=0.1")  # what tells it from the attack that is not swept
    assert (row["parameter"], row["n"]) == ("poison_rate", 3)
    assert row["values"] == "0.01 to 0.15 (3)"
    assert row["plateau"] == pytest.approx(0.8)
    halves = [0.05 * 3 ** ((0.4 - gain) / (0.8 - gain)) for gain in (0.3, 0.2, 0.1)]  # on a logarithmic scale
    assert [row[name] for name in ("D50 low", "D50", "D50 high")] == pytest.approx(halves)


def test_nothing_swept_is_said_with_an_example(stock):
    store = stock([{"attack": "loud", "defense": "none", "target": "0", "seed": 0}])
    with pytest.raises(UserError, match=r"poison_rate = \[0.01"):
        dose_response(data_of(read(store)))
