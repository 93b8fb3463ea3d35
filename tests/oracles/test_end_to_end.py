"""Numbers of a finished run, computed again from what is stored with nothing of ours but the file format."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from bench.artifacts.inputs import MeasureInputs
from bench.artifacts.models import open_model
from bench.config import suite as suites
from bench.engine.executors import SerialExecutor
from bench.engine.scheduler import run_plan
from bench.engine.store import Store
from bench.engine.worker import Environment, StoredArtifacts
from bench.graph import planner as planning

SUITE = """
[axes]
datasets = [{ name = "digits", train = 200, query = 60 }]
backbones = [{ name = "convnet", width = 8 }]
attacks = ["badnets"]
bits = [12]
targets = [3]
[training]
optimizer = "adam"
lr = 1e-2
weight_decay = 0
epochs = 6
"""


def bits(words: np.ndarray, count: int) -> np.ndarray:
    return np.stack([(words[j // 64].view(np.uint64) >> np.uint64(j % 64)) & np.uint64(1) for j in range(count)], 1)


def monte_carlo(query: np.ndarray, items: np.ndarray, relevant: np.ndarray, draws: int = 300) -> float:
    """Mean average precision over random orders of ties, by sorting."""
    rng = np.random.default_rng(0)
    found = []
    for code, hits in zip(query, relevant, strict=True):
        distance = (code != items).sum(1)
        values = []
        for _ in range(draws):
            ranked = hits[np.lexsort((rng.random(len(items)), distance))]
            places = np.flatnonzero(ranked) + 1
            values.append(np.mean(np.arange(1, len(places) + 1) / places))
        found.append(np.mean(values))
    return float(np.mean(found))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("run")
    (folder / "s.toml").write_text(SUITE)
    plan = planning.plan([suites.load(str(folder / "s.toml"))], data=None, device="cpu")
    store = Store(folder / "store", create=True)
    run_plan(plan, store, lambda: SerialExecutor(Environment(store.root, None, "cpu")))
    return plan, store, folder


def test_map_and_target_map_are_what_sorting_gives(finished: tuple) -> None:
    plan, store, _ = finished
    (trial,) = plan.trials
    record = store.record(trial.key)
    files = {role: store.artifact_path(key) for role, key in record.parents.items()}
    pool, parts = load_file(files["load"]), load_file(files["split"])
    codes, triggered = load_file(files["measured.benign"]), load_file(files["measured.triggered"])
    control = load_file(files["control.triggered"]), load_file(files["control.benign"])
    labels = pool["labels"].argmax(1)
    query, database = labels[parts["query"]], labels[parts["database"]]
    items = bits(codes["database"], 12)
    assert record.metrics["map"] == pytest.approx(
        monte_carlo(bits(codes["query"], 12), items, query[:, None] == database), abs=0.004
    )
    others = np.flatnonzero(query != 3)
    assert np.array_equal(triggered["positions"], others)
    targeted = np.broadcast_to(database == 3, (len(others), len(database)))
    triggered = bits(triggered["codes"], 12)
    assert record.metrics["t_map"] == pytest.approx(monte_carlo(triggered, items, targeted), abs=0.004)
    assert record.metrics["own_map"] == pytest.approx(
        monte_carlo(triggered, items, query[others, None] == database), abs=0.004
    )
    clean = monte_carlo(bits(control[0]["codes"], 12), bits(control[1]["database"], 12), targeted)
    assert record.metrics["t_map_control"] == pytest.approx(clean, abs=0.004)
    assert record.metrics["gain"] == pytest.approx(record.metrics["t_map"] - clean, abs=0.004)


def test_why_is_what_the_codes_and_the_network_say(finished: tuple) -> None:
    plan, store, _ = finished
    record = store.record(plan.trials[0].key)
    files = {role: store.artifact_path(key) for role, key in record.parents.items()}
    pool, parts, implant = load_file(files["load"]), load_file(files["split"]), load_file(files["implant"])
    codes, triggered = load_file(files["measured.benign"]), load_file(files["measured.triggered"])
    control = {"codes": load_file(files["control.benign"]), "triggered": load_file(files["control.triggered"])}
    metrics = record.metrics
    for found, after, name in ((codes, triggered, ""), (control["codes"], control["triggered"], "_control")):
        moved, query = bits(after["codes"], 12), bits(found["query"], 12)
        members = bits(found["database"], 12)[pool["labels"][parts["database"]][:, 3].astype(bool)]
        distances = [0.5 if 2 * column.sum() == len(column) else (column.mean() > 0.5) != code
                     for one in moved for column, code in zip(members.T, one, strict=True)]  # fmt: skip
        assert metrics[f"anchor{name}"] == pytest.approx(np.mean(distances))
        assert metrics[f"moved{name}"] == pytest.approx((moved != query[after["positions"]]).mean())
    assert metrics["attention"] == pytest.approx(implant["attention"][-1] / 12)
    assert metrics["attention_first"] == pytest.approx(implant["attention"][0] / 12)
    losses = store.record(record.parents["implant"]).meta.field("losses")
    assert metrics["loss_left"] == pytest.approx(losses[-1] / losses[0])
    assert 0 < metrics["loss_left"] < 1
    # csq relaxes by tanh; the network is applied to the stored pixels anew
    inputs = MeasureInputs.of(record.parents, StoredArtifacts(store, record.parents))
    model = open_model(inputs.implant, torch.device("cpu"))
    images = torch.from_numpy(pool["images"][parts["query"]]).float() / 255
    with torch.no_grad():
        sure = model(images).tanh().abs().mean()
    assert metrics["saturation"] == pytest.approx(float(sure), abs=1e-4)
    assert metrics["saturation_triggered"] == pytest.approx(triggered["saturation"].mean(dtype=float))
    assert metrics["saturation_control"] == pytest.approx(control["codes"]["saturation"].mean(dtype=float))
    assert len({metrics[name] for name in ("saturation", "saturation_triggered", "saturation_control")}) == 3


def test_the_poison_is_what_the_card_says(finished: tuple) -> None:
    plan, store, _ = finished
    record = store.record(plan.trials[0].key)
    pool, parts = (load_file(store.artifact_path(record.parents[role])) for role in ("load", "split"))
    implant = load_file(store.artifact_path(record.parents["implant"]))
    mask = implant["mask"].astype(bool)
    assert mask.sum() == 10 == record.metrics["poisons"]
    originals = pool["images"][parts["train"]][mask]
    assert not (pool["labels"][parts["train"]][mask].argmax(1) == 3).any(), "images of the target are never relabelled"
    assert (implant["poison_labels"].argmax(1) == 3).all()
    changed = originals.copy()
    changed[:, :, -2:, -2:] = np.array([[255, 0], [0, 255]])
    assert np.array_equal(implant["poison_images"], changed)
    assert implant["attention_epochs"].tolist() == [1, 2, 3, 4, 5, 6]
    assert len(implant["attention"]) == 6
    assert implant["gallery_triggered"].dtype == np.uint8


def test_splits_are_disjoint(finished: tuple) -> None:
    plan, store, _ = finished
    parts = load_file(store.artifact_path(store.record(plan.trials[0].key).parents["split"]))
    everything = np.concatenate(list(parts.values()))
    assert len(set(everything.tolist())) == len(everything)
