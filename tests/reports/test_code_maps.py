"""Maps of codes: the principal plane, and the codes that a map samples."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from bench.api.errors import StoreError
from bench.artifacts.inputs import MeasureInputs
from bench.engine.record_cache import RecordCache
from bench.engine.store import Store
from reports import code_maps
from reports.frame import read
from tests.stores import changed


@given(st.integers(0, 10_000), st.integers(6, 30), st.integers(3, 24))
def test_the_plane_is_that_of_principal_components(seed, items, bits):
    rng = np.random.default_rng(seed)
    codes, others = (rng.choice(np.array([-1, 1], np.int8), size=(n, bits)) for n in (items, 5))
    sizes = np.linalg.svd(codes - codes.mean(0), compute_uv=False)
    assume(-np.diff(sizes[:3]).max() > 1e-6)  # else axes of equal size may be turned
    found, share = code_maps.flattened(codes, others)
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
    found = code_maps.map_of(record_cache, inputs, inputs.measured, record.target, 16)
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
    clean = code_maps.map_of(record_cache, inputs, inputs.control, record.target, 16)
    assert not np.array_equal(clean.triggered, found.triggered)
    words = store.tensors(parents["control.benign"])["database"].numpy().view(np.uint64)[0]
    theirs = ((words[:, None] >> np.arange(16, dtype=np.uint64)) & np.uint64(1)).astype(int) * 2 - 1
    assert {tuple(code) for code in clean.target} <= {tuple(code) for code in theirs[holds]}


@pytest.mark.long
@pytest.mark.parametrize("count", [0, 9, 11, 100_000])
def test_classes_that_are_not_those_of_the_labels_cost_the_map_alone(store, tmp_path, count):
    """The record of the data is a stranger's, as its labels are."""
    shutil.copytree(store.root, tmp_path / "store")
    copied = Store(tmp_path / "store")
    trials = read(copied).trials
    assert list(code_maps.of_codes(trials, RecordCache(copied), str, mixed=False))
    row = trials[(trials["attack"] == "badnets(poisons=36)") & (trials["defense"] == "none")].iloc[0]
    load = copied.record(copied.record(row["key"]).parents["load"])
    copied.write_record(changed(load, meta={**load.meta.as_json(), "classes": [str(i) for i in range(count)]}))
    cache = RecordCache(copied)
    record = cache.record(row["key"])
    inputs = MeasureInputs.of(record.parents)
    with pytest.raises(StoreError, match="verify"):
        code_maps.map_of(cache, inputs, inputs.measured, record.target, 16)
    assert not list(code_maps.of_codes(trials, cache, str, mixed=False))


@pytest.mark.parametrize(("items", "bits"), [(1, 12), (5, 1), (1, 1), (5, 2)])
def test_the_plane_of_codes_with_fewer_directions_has_two_all_the_same(items, bits):
    codes = np.random.default_rng(0).choice(np.array([-1, 1], np.int8), size=(items, bits))
    (plane,), share = code_maps.flattened(codes)
    assert plane.shape == (items, 2)
    assert np.isfinite(plane).all()
    assert 0 <= share <= 1 + 1e-9
