"""Data filters: what they find in the training set."""

from __future__ import annotations

from reports.boards.data_filters import data_filters
from reports.frame import read
from tests.reports.board_data import data_of, trial


def test_what_a_filter_found_is_a_row(stock):
    trials = [trial("loud", "sieve", metrics={"removed": 0.1, "removed_poison": 0.9})]
    (sieve,) = data_filters(data_of(read(stock(trials))))
    assert sieve.table["poison removed"].iloc[0] == 0.9
