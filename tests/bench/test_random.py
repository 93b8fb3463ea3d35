"""Streams of random numbers: the same name gives the same numbers, and no stream tells its name."""

from __future__ import annotations

import copy
import hashlib
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.api.random import Rng

AXES = st.lists(st.text() | st.integers(), min_size=1, max_size=4)


@given(AXES, AXES)
def test_a_child_is_the_stream_of_the_longer_name(first, rest):
    whole, child = Rng(*first, *rest), Rng(*first).child(*rest)
    assert whole.seed == child.seed
    assert torch.equal(whole.uniform((3,)), child.uniform((3,)))


@given(AXES)
def test_the_seed_is_the_hash_of_the_name(path):
    digest = hashlib.sha256(json.dumps(path).encode()).digest()
    assert Rng(*path).seed == int.from_bytes(digest[:8], "big") // 2


def test_draws_do_not_change_other_streams():
    one, other = Rng("a"), Rng("a")
    one.normal((100,))
    assert torch.equal(one.child("b").permutation(9), other.child("b").permutation(9))


def test_a_copy_goes_on_where_its_stream_is():
    one = Rng("a", 1)
    one.uniform((3,))
    two = copy.deepcopy(one)
    assert torch.equal(one.uniform((3,)), two.uniform((3,)))
    assert one.child("b").seed == two.child("b").seed


def test_a_stream_without_a_name_is_refused():
    with pytest.raises(ValueError, match="name"):
        Rng()


def test_a_stream_does_not_tell_its_name():
    assert not any("secret" in str(value) for value in vars(Rng("secret").child("secret")).values())
