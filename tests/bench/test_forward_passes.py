"""How many images go through models in a run: none whose results are there already."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from torch.nn.modules.module import register_module_forward_pre_hook

from bench.artifacts.inputs import EncodeTriggeredInputs, ScoreTriggeredInputs
from bench.artifacts.outputs.codes import BenignCodes, TriggeredCodes
from bench.artifacts.outputs.defense import BenignScores, TriggeredScores
from bench.engine.scheduler import NoProgress
from bench.engine.store import Store
from bench.engine.worker import StoredArtifacts
from bench.graph.plan import Stage
from hashing.model import HashModel
from tests.bench.conftest import LEARNS, finish

pytestmark = pytest.mark.long

PROBE = 4  # images with which an inference path tries the network, as it is and with folded batch norm


@pytest.fixture
def run(tmp_path: Path, tiny):
    """A plan with and without an attack, an input detector and two targets; its store; images per stage."""
    passed: Counter[str] = Counter()
    running = [""]

    class Watch(NoProgress):
        def start(self, stage: Stage) -> None:
            running[0] = stage.key

    def count(module: object, inputs: tuple[object, ...]) -> None:
        if isinstance(module, HashModel):
            passed[running[0]] += len(inputs[0])

    plan, store = (
        tiny("attacks=none,badnets", "defenses=none,strip", "targets=0,1", *LEARNS),
        Store(tmp_path / "s", create=True),
    )
    handle = register_module_forward_pre_hook(count)
    try:
        finish(plan, store, listen=Watch())
    finally:
        handle.remove()
    return plan, store, passed


def test_images_without_a_trigger_are_encoded_and_scored_once(run) -> None:
    plan, store, passed = run
    seen = set()
    for stage in plan.stages.values():
        if stage.kind not in {"encode_triggered", "score_triggered"}:
            continue
        triggered = stage.spec["attack"]["name"] != "none"
        assert (passed[stage.key] > 0) == triggered
        seen.add((stage.kind, triggered))
        if stage.kind == "encode_triggered" and triggered:
            positions = TriggeredCodes(stage.key, StoredArtifacts(store, {"x": stage.key})).positions
            assert passed[stage.key] == len(positions) + PROBE
    assert len(seen) == 4


def test_their_codes_and_scores_are_those_of_the_benign_queries(run) -> None:
    plan, store, _ = run
    positions = {}
    for stage in plan.stages.values():
        source = StoredArtifacts(store, {**stage.parents, "self": stage.key})
        if stage.kind == "encode_triggered" and stage.spec["attack"]["name"] == "none":
            own = TriggeredCodes(stage.key, source)
            benign = BenignCodes(EncodeTriggeredInputs.of(stage.parents).benign.key, source)
            assert (own.codes == benign.query[:, own.positions]).all()
            assert (own.saturation == benign.saturation[own.positions]).all()
            assert own.codes.unique().numel() > 1, "else the wrong queries would pass too"
            positions[tuple(stage.spec["target"])] = own.positions
    compared = 0
    for stage in plan.stages.values():
        if stage.kind == "score_triggered" and stage.spec["attack"]["name"] == "none":
            source = StoredArtifacts(store, {**stage.parents, "self": stage.key})
            known = BenignScores(ScoreTriggeredInputs.of(stage.parents).benign.key, source)
            scores, mine = TriggeredScores(stage.key, source), positions[tuple(stage.spec["target"])]
            assert all((scores.query(name) == known.query(name)[mine]).all() for name in known.names)
            assert scores.query(known.names[0]).unique().numel() > 1
            compared += 1
    assert (len(positions), compared) == (2, 2)
