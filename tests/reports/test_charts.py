"""Charts: where points lie, whose codes a map shows, and that nothing of a label becomes markup."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from bench.api.errors import UserError
from bench.artifacts.inputs import MeasureInputs
from bench.engine.record_cache import RecordCache
from reports import _charts, _html_images, throughput
from reports.frame import read
from tests.reports.test_boards import trial
from tests.stores import record


def test_costs_are_points_at_what_a_defense_removes_and_loses(stock):
    trials = [
        trial("loud", metrics={"gain": 0.8, "map": 0.9}), trial("loud", "repair", metrics={"gain": 0.3, "map": 0.85}),
        trial("quiet", metrics={"gain": 0.5, "map": 0.9}), trial("quiet", "repair", metrics={"gain": 0.6, "map": 0.7}),
        trial("quiet", "input_detector", metrics={"gain": 0.5, "map": 0.9}),
    ]  # fmt: skip
    (chart,) = _charts.of_costs(read(stock(trials)).trials, str, mixed=False)
    tips = re.findall(r"<title>([^<]*)</title>", chart.svg)
    assert tips == [
        "repair against loud: +0.500 gain removed, +0.050 mAP lost",
        "repair against quiet: -0.100 gain removed, +0.200 mAP lost",
    ]
    assert "Best is top left" in chart.caption


def test_code_lengths_are_lines_over_what_all_have(stock):
    trials = [trial(a, bits=b, metrics={"t_map": b / 100}) for a in ("none", "loud") for b in (16, 32, 64)]
    trials += [trial("quiet", bits=16)]
    found = read(stock(trials)).trials
    (chart,) = _charts.of_bits(found, str, mixed=False)
    assert (chart.title, chart.setting) == ("Code length", "")
    assert "toy · net · csq" in chart.caption
    assert "loud" in chart.svg
    assert "quiet" not in chart.svg, "it has one length only"
    assert list(_charts.of_bits(found[found["bits"] == 16], str, mixed=False)) == []


def test_a_chart_takes_the_pages_colours_and_escapes_what_it_shows(stock):
    trials = [trial("loud(x=<b>&\"')", metrics={"gain": g}, defense=d) for d, g in (("none", 0.9), ("repair", 0.1))]
    (chart,) = _charts.of_costs(read(stock(trials)).trials, str, mixed=False)
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
    found, share = _html_images.flattened(codes, others)
    pca = PCA(2, svd_solver="full").fit(codes)
    for plane, given_ in zip(found, (codes, others), strict=True):
        expected = pca.transform(given_)
        for mine, theirs in zip(plane.T, expected.T, strict=True):
            assert min(np.abs(mine - theirs).max(), np.abs(mine + theirs).max()) < 1e-6
    assert share == pytest.approx(pca.explained_variance_ratio_.sum(), abs=1e-9)


def test_a_map_shows_the_trials_own_codes(store):
    trials = read(store).trials
    row = trials[
        (trials["attack"] == "badnets(poisons=36)") & (trials["bits"] == 16) & (trials["defense"] == "none")
    ].iloc[0]
    record_cache = RecordCache(store)
    record = record_cache.record(row["key"])
    parents, inputs = record.parents, MeasureInputs.of(record.parents)
    found = _html_images._map(inputs, inputs.measured, store, record.target, 16)
    pool, parts = store.tensors(parents["load"]), store.tensors(parents["split"])
    holds = pool["labels"][parts["database"]][:, 3].numpy().astype(bool)
    words = store.tensors(parents["measured.benign"])["database"].numpy().view(np.uint64)
    bits = ((words[0][:, None] >> np.arange(16, dtype=np.uint64)) & np.uint64(1)).astype(int) * 2 - 1
    assert len(found.target) == min(80, holds.sum())
    assert {tuple(code) for code in found.target} <= {tuple(code) for code in bits[holds]}
    assert {tuple(code) for code in found.others} <= {tuple(code) for code in bits[~holds]}
    assert len(found.benign) == len(found.triggered) > 20
    # benign are the codes of the very queries that carry the trigger
    words = store.tensors(parents["measured.benign"])["query"].numpy().view(np.uint64)[0]
    queries = ((words[:, None] >> np.arange(16, dtype=np.uint64)) & np.uint64(1)).astype(int) * 2 - 1
    positions = store.tensors(parents["measured.triggered"])["positions"].numpy()
    assert np.array_equal(found.benign, queries[positions])
    clean = _html_images._map(inputs, inputs.control, store, record.target, 16)
    assert not np.array_equal(clean.triggered, found.triggered)
    words = store.tensors(parents["control.benign"])["database"].numpy().view(np.uint64)[0]
    theirs = ((words[:, None] >> np.arange(16, dtype=np.uint64)) & np.uint64(1)).astype(int) * 2 - 1
    assert {tuple(code) for code in clean.target} <= {tuple(code) for code in theirs[holds]}


def test_code_lengths_are_drawn_at_their_means():
    lines = {"map": {"a": [0.5, 0.7]}, "t_map": {"a": [0.1, 0.2]}}
    figure = _charts._of_lengths(lines, [16, 32])
    drawn = [axes.lines[0].get_ydata().tolist() for axes in figure.axes]
    assert drawn == [[0.5, 0.7], [0.1, 0.2]]
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["mAP", "t-mAP"]


def test_dollars_in_a_label_are_no_formula(stock):
    trials = [trial(f"loud(x={x})", bits=b) for x in (r"$\\frac$", "$a$") for b in (16, 32)]
    (chart,) = _charts.of_bits(read(stock(trials)).trials, str, mixed=False)
    assert r"loud(x=$\frac$)" in chart.svg or r"loud(x=$\\frac$)" in chart.svg


def test_a_sweep_is_of_one_edition_and_of_cells_that_all_values_have(stock):
    def swept(doses, **changes):
        return [trial(f"loud(poisons={n})", target=t, implant=f"{n}a", metrics={"t_map": n / 100}, **changes)
                for n in doses for t in "01"]  # fmt: skip

    store = stock(swept((2, 8)), swept((32,), version=2))
    for n in (2, 8, 32):
        store.write_record(record(f"{n}a", "implant"))
    trials = read(store, run="all").trials
    assert list(_charts.of_sweeps(trials, str, mixed=False)) == []
    assert len(list(_charts.of_sweeps(trials, str, mixed=True))) == 1


def test_attention_is_that_of_the_records(store):
    found = read(store).trials
    (chart, *_) = _charts.of_attention(found[found["bits"] == 16], store, RecordCache(store), str, mixed=False)
    assert "badnets(poisons=4)" in chart.svg
    assert "n = 1 victims per attack" in chart.caption
    row = found[(found["attack"] == "badnets(poisons=4)") & (found["bits"] == 16)].iloc[0]
    series = _charts._attention(store, RecordCache(store), row["key"])
    held = store.tensors(store.record(row["key"]).parents["implant"])
    assert series.index.tolist() == held["attention_epochs"].tolist()
    assert series.tolist() == pytest.approx(held["attention"].tolist())
    drawn = _charts._of_series({"x": series / 16})
    assert drawn.axes[0].lines[0].get_ydata() == pytest.approx(held["attention"].numpy() / 16)


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
    assert "A chip, 2 cores; numpy 2.0." in boards[0].caption
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
    with pytest.raises(UserError, match="is not what `bench kernels --format json` prints") as caught:
        throughput.read(tmp_path / "k.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[[[[" * 5000, "", "3", "\ud83d"])
def test_a_file_that_is_no_json_is_named(tmp_path, text):
    (tmp_path / "k.json").write_text(text, errors="surrogatepass")
    with pytest.raises(UserError, match="is not what"):
        throughput.read(tmp_path / "k.json")


def test_an_operation_may_be_called_like_a_formula(tmp_path):
    rows = [raced("a", r"$\\frac$", seconds=[1, 1, 1], faster=[1, 2, 3])]
    (tmp_path / "k.json").write_text(json.dumps({**KERNELS, "rows": rows}))
    _, (chart,) = throughput.read(tmp_path / "k.json")
    assert "frac$" in chart.svg
