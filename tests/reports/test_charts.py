"""Charts: where points lie, whose codes a map shows, and that nothing of a label becomes markup."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from reports import _charts, _pictures, throughput
from reports.frame import Shelf, read
from tests.reports.test_tables import cell


def test_costs_are_points_at_what_a_defense_removes_and_loses(stock):
    cells = [
        cell("loud", metrics={"gain": 0.8, "map": 0.9}), cell("loud", "repair", metrics={"gain": 0.3, "map": 0.85}),
        cell("quiet", metrics={"gain": 0.5, "map": 0.9}), cell("quiet", "repair", metrics={"gain": 0.6, "map": 0.7}),
        cell("quiet", "guard", metrics={"gain": 0.5, "map": 0.9}),
    ]  # fmt: skip
    (chart,) = _charts.of_costs(read(stock(cells)).cells, str, mixed=False)
    tips = re.findall(r"<title>([^<]*)</title>", chart.svg)
    assert tips == [
        "repair against loud: +0.500 gain removed, +0.050 mAP lost",
        "repair against quiet: -0.100 gain removed, +0.200 mAP lost",
    ]
    assert "Best is top left" in chart.caption


def test_code_lengths_are_lines_over_what_all_have(stock):
    cells = [cell(a, bits=b, metrics={"t_map": b / 100}) for a in ("none", "loud") for b in (16, 32, 64)]
    cells += [cell("quiet", bits=16)]
    found = read(stock(cells)).cells
    (chart,) = _charts.of_bits(found, str, mixed=False)
    assert chart.title == "Code length · toy · net · csq"
    assert "loud" in chart.svg
    assert "quiet" not in chart.svg, "it has one length only"
    assert list(_charts.of_bits(found[found["bits"] == 16], str, mixed=False)) == []


def test_a_chart_takes_the_pages_colours_and_escapes_what_it_shows(stock):
    cells = [cell("loud(x=<b>&\"')", metrics={"gain": g}, defense=d) for d, g in (("none", 0.9), ("repair", 0.1))]
    (chart,) = _charts.of_costs(read(stock(cells)).cells, str, mixed=False)
    assert "<b>" not in chart.svg
    assert "against loud(x=&lt;b&gt;&amp;" in chart.svg
    assert "currentColor" in chart.svg
    assert _charts.INK not in chart.svg
    assert "<metadata>" not in chart.svg
    assert not re.search(r"<svg[^>]* (width|height)=", chart.svg)


@given(st.integers(0, 10_000), st.integers(6, 30), st.integers(3, 24))
def test_the_plane_is_that_of_principal_components(seed, items, bits):
    rng = np.random.default_rng(seed)
    codes, others = (rng.choice(np.array([-1, 1], np.int8), size=(n, bits)) for n in (items, 5))
    sizes = np.linalg.svd(codes - codes.mean(0), compute_uv=False)
    assume(-np.diff(sizes[:3]).max() > 1e-6)  # else axes of equal size may be turned
    found, share = _pictures.flattened(codes, others)
    pca = PCA(2, svd_solver="full").fit(codes)
    for plane, given_ in zip(found, (codes, others), strict=True):
        expected = pca.transform(given_)
        for mine, theirs in zip(plane.T, expected.T, strict=True):
            assert min(np.abs(mine - theirs).max(), np.abs(mine + theirs).max()) < 1e-6
    assert share == pytest.approx(pca.explained_variance_ratio_.sum(), abs=1e-9)


def test_a_map_shows_the_trials_own_codes(store):
    cells = read(store).cells
    row = cells[(cells["attack"] == "badnets(poisons=36)") & (cells["bits"] == 16) & (cells["defense"] == "none")].iloc[
        0
    ]
    shelf = Shelf(store)
    record = shelf.record(row["key"])
    found = _pictures._map(record, "", store, row)
    parents = record["parents"]
    pool, parts = store.tensors(parents["load"]), store.tensors(parents["split"])
    holds = pool["labels"][parts["database"]][:, 3].numpy().astype(bool)
    words = store.tensors(parents["codes"])["database"].numpy().view(np.uint64)
    bits = ((words[0][:, None] >> np.arange(16, dtype=np.uint64)) & np.uint64(1)).astype(int) * 2 - 1
    assert len(found.target) == min(80, holds.sum())
    assert {tuple(code) for code in found.target} <= {tuple(code) for code in bits[holds]}
    assert {tuple(code) for code in found.others} <= {tuple(code) for code in bits[~holds]}
    assert len(found.benign) == len(found.triggered) > 20
    clean = _pictures._map(record, "clean_", store, row)
    assert not np.array_equal(clean.triggered, found.triggered)


def test_attention_is_that_of_the_records(store):
    found = read(store).cells
    (chart, *_) = _charts.of_attention(found[found["bits"] == 16], store, Shelf(store), str)
    assert "badnets(poisons=4)" in chart.svg
    assert "Means over 1 victims" in chart.caption


def raced(section, by, **changes):
    usual = {"operation": "AP", "threads": 2, "bits": 64, "items": 1000, "unit": "query", "seconds": None, "codes": 0,
             "octets": 0, "faster": None, "limit": None, "note": ""}  # fmt: skip
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
    assert "A chip, 2 cores; numpy 2.0." in boards[0].caption
    assert boards[1].table["note"].tolist() == ["not installed"]
    assert "AP: numpy, 1,000 items, 64 bits" in chart.svg
