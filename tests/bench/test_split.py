"""The stage `split` refuses parts that a protocol must not have."""

from __future__ import annotations

import pytest
import torch

from bench.api.errors import UserError
from bench.api.registry import create
from bench.stages.split import check

PARTS = {"train": [0, 1], "query": [2], "database": [3, 4], "trusted": [5], "public": []}


def checked(**changed: list[int] | None) -> None:
    parts = {name: ids for name, ids in (PARTS | changed).items() if ids is not None}
    check(
        {name: torch.tensor(ids, dtype=torch.int64) for name, ids in parts.items()}, 6, create("datasets", "digits", {})
    )


def test_disjoint_parts_are_accepted() -> None:
    checked()


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"trusted": None}, "trusted"),
        ({"query": []}, "'query'"),
        ({"train": [0, 0]}, "'train'"),
        ({"database": [3, 6]}, "'database'"),
        ({"database": [-1, 3]}, "'database'"),
        ({"trusted": [1]}, "'train' and 'trusted'"),
    ],
)
def test_other_parts_are_refused_with_their_name(changed: dict[str, list[int] | None], named: str) -> None:
    with pytest.raises(UserError, match=named):
        checked(**changed)
