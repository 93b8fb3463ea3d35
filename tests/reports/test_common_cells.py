"""Cells that rows share: which rows count, when targets are all classes, and means over shared cells only."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pandas as pd
import pytest

from reports.common_cells import CommonCells, Group


def group(places: Iterable[tuple[str, int]], *, classes: int = 10, labels: int = 1, lost: int = 0) -> Group:
    """A row with a result in each of these cells, whose gain is the seed; `lost` more cells have none."""
    about = {"status": "ok", "classes": classes, "target_labels": labels, "key": "", "reason": ""}
    done = [about | {"target": target, "seed": seed, "gain": float(seed)} for target, seed in places]
    failed = [dict(done[0]) | {"seed": 100 + i, "status": "failed"} for i in range(lost)]
    return Group.of(pd.DataFrame([*done, *failed]))


def test_keys_stand_beside_their_cells_whatever_the_order() -> None:
    rows = [{"target": target, "seed": 0, "status": "ok", "key": f"key of {target}", "reason": ""} for target in "bac"]
    assert Group.of(pd.DataFrame(rows)).keys == {(target, 0): f"key of {target}" for target in "abc"}


@pytest.mark.parametrize(("names", "labels", "fixed"), [
    ("abc", 1, True),
    (("c", "c++", "a+b"), 1, True),  # a class may have such a name
    (("a+b", "a+c", "b+c"), 2, False),  # three sets of labels of a data set with three classes
    ("ab", 1, False),
])  # fmt: skip
def test_targets_are_fixed_if_they_are_all_classes(names: Iterable[str], labels: int, fixed: bool) -> None:
    cells = CommonCells.of({"x": group([(name, seed) for name in names for seed in (0, 1)], classes=3, labels=labels)})
    assert cells.fixed_targets is fixed


def test_a_row_counts_with_half_of_the_results_of_the_fullest() -> None:
    whole = [("a", seed) for seed in range(4)]
    rows = {"whole": group(whole), "half": group(whole[:2], lost=2), "less": group(whole[:1], lost=3)}
    cells = CommonCells.of(rows)
    assert cells.counted == {"whole", "half"}
    assert cells.places == (("a", 0), ("a", 1))
    assert rows["half"].coverage == "2/4"
    assert cells.mean(rows["whole"], "gain") == 0.5, "seeds 2 and 3 are not shared"


def test_rows_without_a_shared_cell_have_no_mean() -> None:
    rows = {"one": group([("a", 0)]), "other": group([("b", 0)])}
    cells = CommonCells.of(rows)
    assert (cells.places, cells.counted, cells.inference) == ((), frozenset(), False)
    assert math.isnan(cells.mean(rows["one"], "gain"))
