"""Measured kernels, as boards and a chart; files of another shape are refused."""

from __future__ import annotations

import json

import pytest

from bench.api.errors import UserError
from reports import throughput


def raced(section, by, **changes):
    usual = {"operation": "AP", "threads": 2, "bits": 64, "items": 1000, "unit": "query", "seconds": None, "codes": 0,
             "nbytes": 0, "faster": None, "limit": None, "note": ""}  # fmt: skip
    return {"section": section, "by": by, **usual, **changes}


KERNELS = {
    "machine": {"processor": "A chip", "cores": 2, "packages": {"numpy": "2.0", "faiss-cpu": None}},
    "rows": [
        raced("ranking", "numba", seconds=[1e-6, 2e-6, 3e-6], limit=0.5),
        raced("ranking", "numpy", seconds=[1e-5, 2e-5, 3e-5], faster=[8.0, 10.0, 12.0]),
        raced("search", "faiss", bits=0, items=0, note="not installed"),
    ],
}


def test_kernels_are_read_as_they_are_printed(tmp_path):
    (tmp_path / "k.json").write_text(json.dumps(KERNELS))
    boards, (chart,) = throughput.read(tmp_path / "k.json")
    assert [board.title for board in boards] == ["Kernels · ranking", "Kernels · search"]
    table = boards[0].table.set_index("by")
    assert table.loc["numba", ["microseconds", "of the limit"]].tolist() == [2.0, 0.5]
    assert table.loc["numpy", ["times ours", "low", "high"]].tolist() == [10.0, 8.0, 12.0]
    assert all(word in boards[0].caption for word in ("A chip", "numpy 2.0"))
    assert boards[1].table["note"].tolist() == ["not installed"]
    assert "mathdefault" not in chart.svg, "numbers on a logarithmic axis are numbers"
    assert "AP: numpy, 1,000 items, 64 bits" in chart.svg


@pytest.mark.parametrize(
    "change",
    [
        {"machine": {"processor": "x", "cores": 1, "packages": []}}, {"rows": []}, {"rows": [1]}, {"rows": "x"},
        {"rows": [raced("a", "b", seconds=[0, 0, 0])]}, {"rows": [raced("a", "b", seconds=[1])]},
        {"rows": [raced("a", "b", faster=[1, 2, 3, 4])]}, {"rows": [raced("a", "b", faster=[None, None, None])]},
        {"rows": [raced("a", "b", faster=["a", "b", "c"])]}, {"rows": [raced("a", "b", faster=[1, float("nan"), 2])]},
        {"rows": [raced("a", "b", note=[1])]}, {"rows": [raced("a", ["b"])]}, {"rows": [raced("a", "b", limit=[])]},
        {"rows": [raced("a", "b")] * 1001},
    ],
)  # fmt: skip
def test_a_file_of_another_shape_is_named(tmp_path, change):
    (tmp_path / "k.json").write_text(json.dumps({**KERNELS, **change}))
    with pytest.raises(UserError, match=r"k\.json") as caught:
        throughput.read(tmp_path / "k.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[[[[" * 5000, "", "3", "\ud83d"])
def test_a_file_that_is_no_json_is_named(tmp_path, text):
    (tmp_path / "k.json").write_text(text, errors="surrogatepass")
    with pytest.raises(UserError, match=r"k\.json"):
        throughput.read(tmp_path / "k.json")


def test_an_operation_may_be_called_like_a_formula(tmp_path):
    rows = [raced("a", r"$\\frac$", seconds=[1, 1, 1], faster=[1, 2, 3])]
    (tmp_path / "k.json").write_text(json.dumps({**KERNELS, "rows": rows}))
    _, (chart,) = throughput.read(tmp_path / "k.json")
    assert "frac$" in chart.svg
