"""Precision and recall against scikit-learn, and from a store against brute force."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics

from bench.api.errors import UserError
from bench.engine.collection import opened
from bench.engine.record_cache import RecordCache
from bench.engine.store import Store
from hashing.codes import pack
from reports import precision_recall
from reports.frame import read


def brute(queries: np.ndarray, database: np.ndarray, relevant: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means within each radius over queries with a relevant item; codes are zeros and ones."""
    distances = (queries[:, None] != database).sum(2)
    precision, recall = [], []
    for radius in range(queries.shape[1] + 1):
        near = distances <= radius
        hits, kept = (near & relevant).sum(1), relevant.any(1)
        precision.append((hits / np.maximum(near.sum(1), 1))[kept].mean())
        recall.append((hits[kept] / relevant.sum(1)[kept]).mean())
    return np.array(precision), np.array(recall)


@pytest.mark.parametrize("seed", range(5))
def test_a_curve_of_one_query_has_the_points_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    query, database = rng.integers(0, 2, (1, 8)), rng.integers(0, 2, (60, 8))
    labels = np.eye(3, dtype=bool)[rng.integers(0, 3, 60)]
    own = np.array([[True, False, False]])
    precision, recall = precision_recall.curve(pack(query), pack(database), labels, own)
    distance = (query != database).sum(1)
    theirs = metrics.precision_recall_curve(labels[:, 0], -distance.astype(float))
    for p, r, threshold in zip(*theirs, strict=False):  # a point of (recall 0, precision 1) follows without threshold
        radius = int(-threshold)
        assert (precision[radius], recall[radius]) == pytest.approx((p, r))
    assert brute(query, database, labels[:, :1].T) == (pytest.approx(precision), pytest.approx(recall))


def test_a_chart_shows_the_codes_of_the_store(store: Store) -> None:
    trials = read(store).trials
    charts = list(precision_recall.of_trials(trials, RecordCache(store), str, mixed=False))
    assert [chart.setting.rpartition(" · ")[2] for chart in charts] == ["16 bits", "12 bits"]
    assert all("n = 1" in chart.caption for chart in charts)
    mine = trials[(trials["attack"] == "badnets(poisons=36)") & (trials["bits"] == 16) & (trials["defense"] == "none")]
    parents = store.record(mine["key"].iloc[0]).parents
    labels, parts = store.tensors(parents["load"])["labels"].numpy().astype(bool), store.tensors(parents["split"])
    held = labels[parts["database"].numpy()]
    (each,) = charts[0].draw.args
    (curves,) = [one for one in each if one.attack == "badnets(poisons=36)"]
    for which, shown in (("measured", curves.attacked), ("control", curves.clean)):
        words = {name: store.tensors(parents[f"{which}.{name}"]) for name in ("benign", "triggered")}

        def bits(tensor):
            return (tensor.numpy().view(np.uint64)[0][:, None] >> np.arange(16, dtype=np.uint64)) & np.uint64(1)

        query, database = bits(words["benign"]["query"]), bits(words["benign"]["database"])
        triggered, positions = bits(words["triggered"]["codes"]), words["triggered"]["positions"].numpy()
        own = labels[parts["query"].numpy()]
        expected = {
            "benign": (query, own @ held.T),
            "target": (triggered, np.tile(held[:, 3], (len(positions), 1))),
            "own": (triggered, own[positions] @ held.T),
        }
        for name, (codes, relevant) in expected.items():
            assert np.stack(brute(codes, database, relevant)) == pytest.approx(shown[name])
    figure = charts[0].figure(2)
    drawn = figure.axes[1].lines
    assert len(drawn) == 2 * len(each)
    assert drawn[[one.attack for one in each].index("badnets(poisons=36)")].get_ydata() == pytest.approx(
        curves.attacked["target"][0]
    )


def test_lost_codes_are_named_and_several_settings_are_several_files(store: Store, tmp_path: Path) -> None:
    held = Store(shutil.copytree(store.root, tmp_path / "store"))
    trials = read(held).trials
    key = trials[trials["attack"] == "badnets(poisons=4)"]["key"].iloc[0]
    held.artifact_path(held.record(key).parents["measured.benign"]).unlink()
    charts = list(precision_recall.of_trials(trials, RecordCache(held), str, mixed=False))
    assert "Left out: badnets(poisons=4) (an artifact is missing" in charts[0].caption
    assert [one.attack for one in charts[0].draw.args[0]] == ["badnets(poisons=12)", "badnets(poisons=36)"]
    with pytest.raises(UserError, match="--where bits=32"):
        precision_recall.draw(charts, tmp_path / "x.png")
    assert precision_recall.draw(charts[1:], tmp_path / "x.png").startswith("Precision and recall · digits")
    assert (tmp_path / "x.png").is_file()
    with pytest.raises(UserError, match="no attack"):
        precision_recall.draw([], tmp_path / "x.png")


def test_a_bundle_with_evidence_has_the_charts_of_its_store() -> None:
    held = opened(Path("reference"))
    charts = list(precision_recall.of_trials(read(held, run="all").trials, RecordCache(held), str, mixed=False))
    assert len(charts) == 2
    assert all("n = 3" in chart.caption for chart in charts)
