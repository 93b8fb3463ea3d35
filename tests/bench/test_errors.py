"""Errors of users: a problem and a hint, which stay apart on their way through processes."""

from __future__ import annotations

import pickle

import pytest

from bench.api.errors import StoreError, UserError, unknown


@pytest.mark.parametrize("error", [UserError("no bits", "give some"), StoreError("no store"), StoreError("x: y", "z")])
def test_an_error_of_a_worker_keeps_its_parts(error):
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.problem, again.hint, str(again)) == (type(error), error.problem, error.hint, str(error))


def test_logs_hold_both_parts_in_one_line():
    assert str(UserError("no bits", "give some")) == "no bits: give some"
    assert str(UserError("no bits")) == "no bits"


def test_an_unknown_name_names_the_nearest_first():
    error = unknown("attack", "badnet", ["ciba", "badnets"], "see `list`")
    assert (error.problem, error.hint) == (
        "unknown attack 'badnet'", "did you mean 'badnets'? Known: badnets, ciba (see `list`)",
    )  # fmt: skip
    assert unknown("attack", "zzz", ["ciba"]).hint == "known: ciba"
    assert unknown("attack", "zzz", []).hint == "known: none"
