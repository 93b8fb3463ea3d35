"""Each kind of defense goes from a suite to a record, with planted answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.artifacts.inputs import EncodeInputs, MeasureInputs
from tests.bench.conftest import LEARNS, REWRITE, load_plugins, run_tiny

KINDS = {
    "corner": '''
"""Finds the corner patch: a filter with a planted answer."""
import torch
from bench.api.defense import *

@defense
class Corner(DataFilter):
    def judge(self, case, rng):
        scores = case.train.images[:, :, -2:, -2:].float().mean((1, 2, 3))
        # a checkerboard of side 2 has mean 127.5 exactly, which scans never do
        scores = -(scores - 127.5).abs()
        return Filtered(scores, scores < -0.6)
''',
    "oracle": '''
"""Names class 3: a model detector with a planted answer."""
from bench.api.defense import *

@defense
class Oracle(ModelDetector):
    def inspect(self, case, rng):
        case.notes["index"] = 2.5
        return Verdict(2.5, suspect=3, alarm_at=2.0)
''',
    "twin": '''
"""A filter that keeps everything and trains a network of its own, whose normalisation looks at single images."""
from dataclasses import replace
import torch
from bench.api.defense import *

@defense
class Twin(DataFilter):
    def unsupported_reason(self, backbone, method):
        return "" if method.pointwise else "pairwise"
    def judge(self, case, rng):
        recipe = replace(case.recipe, epochs=1)
        model = case.train_model(case.untrained(per_image=True), case.train, recipe, rng)
        n = len(case.train)
        return Filtered(torch.zeros(n), torch.ones(n, dtype=torch.bool), model)
''',
    "wipe": '''
"""Blackens the corner that carries the patch: a purification with a planted answer."""
from bench.api.defense import *

@defense
class Wipe(Purification):
    def purify(self, image, rng):
        wiped = image.clone()
        wiped[:, -2:, -2:] = 0
        return wiped[None]
''',
    "fog": '''
"""Makes every query grey."""
import torch
from bench.api.defense import *

@defense
class Fog(Purification):
    def purify(self, image, rng):
        return torch.full_like(image, 0.5)[None]
''',
    "rewrite": REWRITE,
}


@pytest.fixture(autouse=True)
def plugins(tmp_path: Path) -> None:
    load_plugins(tmp_path, KINDS)


STRONG = ('attacks=["none", { name = "badnets", poison_rate = 0.2 }, "rewrite"]', *LEARNS)


def test_a_planted_filter_finds_all_poison_and_only_that(tmp_path: Path) -> None:
    found = run_tiny(tmp_path, *STRONG, "defenses=none,corner")
    found = {(attack.partition("(")[0], defense): record for (attack, defense), record in found.items()}
    caught = found["badnets", "corner"].metrics
    assert caught["filter_auroc"] == caught["filter_auroc_target"] == caught["removed_poison"] == 1
    assert caught["removed"] == pytest.approx(caught["poisoned_share"])
    # retrained without poison the model is as if never attacked
    assert caught["gain"] < found["badnets", "none"].metrics["gain"] - 0.2
    assert caught["own_map"] > found["badnets", "none"].metrics["own_map"] + 0.2
    clean = found["none", "corner"].metrics
    assert clean["removed"] == 0
    assert clean["filter_auroc"] is None
    skipped = found["rewrite", "corner"]
    assert skipped.record is None
    assert "corner" in skipped.planned.skipped


def test_a_filter_may_train_a_network_of_its_own_and_be_left_out_where_it_cannot_work(tmp_path: Path) -> None:
    trial = run_tiny(tmp_path, "attacks=badnets", "defenses=twin")["badnets", "twin"]
    plan, store = trial.plan, trial.store
    key = next(key for key, stage in plan.stages.items() if stage.kind == "defend")
    names = store.tensors(key)
    assert store.record(key).meta.field("model")["backbone"]["params"]["norm"] == "group"
    assert not any("running" in name for name in names)
    measured = MeasureInputs.of(trial.record.parents).measured
    encoded = store.record(measured.benign.key)
    assert encoded is not None
    assert EncodeInputs.of(encoded.parents).model.key == key  # encoded by this network
    skipped = run_tiny(tmp_path, "attacks=badnets", "defenses=twin", "methods=dpsh")["badnets", "twin"]
    assert (skipped.record, skipped.planned.skipped) == (None, "twin: pairwise")


def test_a_diagnosis_is_scored_against_the_target(tmp_path: Path) -> None:
    found = run_tiny(tmp_path, "attacks=none,badnets", "defenses=none,oracle", "targets=3")
    assert found["badnets", "oracle"].metrics["named_target"] == 1
    assert found["badnets", "oracle"].metrics["model_score"] == 2.5
    assert found["badnets", "oracle"].metrics["flagged"] == 1
    judged = found["badnets", "oracle"]
    assert judged.store.record(judged.record.parents["defense"]).meta.notes == {"index": 2.5}
    assert found["badnets", "oracle"].metrics["map"] == found["badnets", "none"].metrics["map"]
    other = run_tiny(tmp_path, "attacks=badnets", "defenses=oracle", "targets=4")
    assert other["badnets", "oracle"].metrics["named_target"] == 0


@pytest.mark.long
def test_a_planted_purification_removes_the_patch_from_every_query(tmp_path: Path) -> None:
    found = run_tiny(tmp_path, *STRONG, "defenses=none,wipe")
    found = {(attack.partition("(")[0], defense): trial for (attack, defense), trial in found.items()}
    plain, wiped, clean = found["badnets", "none"], found["badnets", "wipe"], found["none", "wipe"]
    # nothing is left of the patch
    assert wiped.metrics["moved"] == wiped.metrics["moved_control"] == 0
    assert wiped.metrics["t_map"] < plain.metrics["t_map"] - 0.2
    assert wiped.metrics["own_map"] > plain.metrics["own_map"] + 0.2
    assert wiped.metrics["map"] > plain.metrics["map"] - 0.2  # of strokes in the corner
    assert clean.metrics["map"] == wiped.metrics["map_clean"]
    assert wiped.metrics["own_map_control"] == pytest.approx(clean.metrics["own_map"], abs=1e-12)
    # the control is purified too: the trigger of `rewrite` makes negatives of images, whose corners are white
    assert found["rewrite", "wipe"].metrics["t_map_control"] != found["rewrite", "none"].metrics["t_map_control"]
    measured, undefended = (MeasureInputs.of(trial.record.parents) for trial in (wiped, plain))
    assert measured.measured.benign == undefended.measured.benign  # the database is encoded once
    assert measured.defense is None
    assert not any(stage.kind == "defend" for stage in wiped.plan.stages.values())


@pytest.mark.long
def test_a_purification_that_destroys_queries_is_a_result_and_no_failed_training(tmp_path: Path) -> None:
    found = run_tiny(tmp_path, *STRONG, "defenses=none,fog")
    for (_, defense), trial in found.items():
        assert trial.metrics["collapsed"] == 0
        if defense == "fog":
            assert trial.metrics["map"] < trial.metrics["map_chance"] + 0.1
