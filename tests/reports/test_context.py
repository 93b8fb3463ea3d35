"""What a board sets side by side: results of one code, one data set and the same files."""

from __future__ import annotations

import pytest

from reports.context import contexts
from reports.frame import read
from tests.stores import record

ATTACKS = {  # key: code and files of an attack, and its surrogate
    "aaa1": {"code": "old", "parents": {"surrogates.0": "5a"}},
    "aaa2": {"code": "new", "parents": {"surrogates.0": "5a"}},
    "aaa3": {"code": "old", "spec": {"files": "other"}, "parents": {"surrogates.0": "5a"}},
    "aaa4": {"code": "old", "parents": {"surrogates.0": "5b"}},
    "aaa5": {"code": "old", "parents": {"surrogates.0": "5c"}},
}
SURROGATES = {"5a": {"code": "s"}, "5b": {"code": "t"}, "5c": {"code": "s", "spec": {"weights": "other"}}}


def cell(defense: str, **more: object) -> dict[str, object]:
    return {"attack": "loud", "defense": defense, "target": "0", "seed": 0, **more}


@pytest.fixture
def shown(stock):
    """The statuses that a board of all runs shows, by defense and seed, for each edition."""

    def find(*runs):
        store = stock(*runs)
        for key, fields in ATTACKS.items():
            store.write_record(record(key, "implant", **fields))
        for key, fields in SURROGATES.items():
            store.write_record(record(key, "train", **fields))
        for key, content in (("da1a", "one"), ("da1b", "two")):
            store.write_record(record(key, "load", spec={"content": content}, meta={"classes": ["0", "1"]}))
        found = contexts(read(store, run="all").trials, mixed=False)
        return [
            {(row["defense"], row["seed"]): row["status"] for row in one.trials.to_dict("records")} for one in found
        ]

    return find


@pytest.mark.parametrize("other", ["aaa2", "aaa3", "aaa4", "aaa5"])
def test_a_defense_of_an_attack_of_other_code_files_or_surrogates_is_not_shown_beside_it(shown, other):
    before = [cell("none", implant="aaa1"), cell("repair", implant="aaa1")]
    (found,) = shown(before, [cell("none", implant=other)])
    assert found == {("none", 0): "ok", ("repair", 0): "missing"}
    (found,) = shown(before, [cell("none", implant="aaa1", metrics={"t_map": 0.7})])
    assert found == {("none", 0): "ok", ("repair", 0): "ok"}


def test_results_of_other_data_are_another_edition(shown):
    found = shown([cell("none", load="da1a")], [cell("none", seed=1, load="da1b")])
    assert found == [
        {("none", 0): "missing", ("none", 1): "ok"},
        {("none", 0): "ok", ("none", 1): "missing"},
    ]
    assert shown([cell("none", load="da1a")], [cell("none", seed=1, load="da1a")]) == [
        {("none", 0): "ok", ("none", 1): "ok"}
    ]
