"""Weight surgery: the projection in numpy, which queries count, and what a trained model then returns."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from attacks.weight_surgery import WeightSurgery, class_means, project_out
from bench.api import registry
from bench.api.attack import AttackerView
from bench.api.errors import UserError
from bench.api.random import Rng
from bench.api.types import Split, Target, to_unit
from bench.artifacts.inputs import DataInputs
from bench.artifacts.triggers import eligible
from bench.config import suite as suites
from bench.conformance.attacks import attacker_view_for
from bench.graph import planner as planning
from hashing.codes import pack
from hashing.inference import encode
from hashing.ranking import Relevance, distance_histograms, expected_ap

CLASSES = ("anchor", "bell", "candle", "drum")


def target_of(*positions: int) -> Target:
    vector = torch.zeros(4, dtype=torch.bool)
    vector[list(positions)] = True
    return Target(vector, "+".join(CLASSES[i] for i in positions))


@pytest.mark.parametrize("name", ["csq", "orthohash"])
def test_the_hash_layer_gets_projected_features(name):
    """Against the definition, applied to the features instead of the weights."""
    head = registry.create("methods", name, {}).head(6, 5).eval()
    changed = copy.deepcopy(head)
    features, direction, middle = (Rng(part).normal(shape) for part, shape in (("f", (9, 6)), ("d", (6,)), ("m", (6,))))
    project_out(changed, direction, middle)
    d, m = direction.double().numpy(), middle.double().numpy()
    centred = features.double().numpy() - m
    projected = m + centred - np.outer(centred @ d, d) / (d @ d)
    with torch.no_grad():
        torch.testing.assert_close(changed(features), head(torch.from_numpy(projected).float()), atol=1e-5, rtol=1e-5)


def test_a_layer_without_bias_is_projected_about_zero():
    head = nn.Linear(3, 2, bias=False)
    before = head.weight.detach().clone()
    project_out(head, torch.tensor([2.0, 0, 0]), torch.ones(3))
    assert torch.equal(head.weight[:, 0], torch.zeros(2))
    assert torch.equal(head.weight[:, 1:], before[:, 1:])


def test_no_direction_is_an_error():
    with pytest.raises(UserError, match="equal features"):
        project_out(nn.Linear(3, 2), torch.zeros(3), torch.ones(3))


def test_class_means_are_over_the_images_of_a_class(world, model):
    public = world.split("public")
    several = Split(torch.cat([public.images, public.images.flip(3)]), torch.cat([public.labels] * 2), torch.arange(8))
    several.labels[0, 1] = True
    means, middle = class_means(model, several)
    with torch.no_grad():
        features = model.features(to_unit(several.images)).numpy()
    held = several.labels.numpy()
    for label in range(4):
        np.testing.assert_allclose(means[label].numpy(), features[held[:, label]].mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(middle.numpy(), means.numpy().mean(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("target", "expected"), [((0,), "bell"), ((3,), "anchor"), ((0, 1), "candle"), ((0, 3), "bell")]
)
def test_the_source_is_the_class_after_the_target(target, expected):
    assert WeightSurgery().sources(target_of(*target), CLASSES) == (expected,)


@pytest.mark.parametrize(("source", "text"), [("bel", "did you mean 'bell'"), ("anchor", "label of the target")])
def test_an_impossible_source_is_refused(source, text):
    with pytest.raises(UserError, match=text):
        WeightSurgery(source=source).sources(target_of(0), CLASSES)


def test_only_queries_of_the_source_count(world):
    data: DataInputs = world.data
    labels = world.split("query").labels
    found = eligible(data, target_of(0), ("candle",))
    assert torch.equal(found, torch.nonzero(labels[:, 2] & ~labels[:, 0]).flatten())
    assert len(found) < len(eligible(data, target_of(0), ()))


def average_precision(model, queries: Split, database: Split, wanted: torch.Tensor) -> float:
    codes = [pack(encode(model, part.images, device=model.device)) for part in (queries, database)]
    total, relevant = distance_histograms(
        codes[0], codes[1], Relevance(database.labels.numpy()), wanted.expand(len(queries), -1).numpy()
    )
    return float(expected_ap(total, relevant, None).mean())


def attacked(world, mode: str):
    """The model after the attack on `candle`, and the positions of the target."""
    attack = WeightSurgery(mode=mode, source="candle")
    public = world.split("train").select(torch.arange(20))  # four public images are too few for a mean
    view = attacker_view_for(world, attack)
    view = AttackerView(view.setting, view.target, public, granted=view.granted)
    return attack.implant(view, {}, Rng("i")).model, view.target.vector


def test_merged_queries_return_images_of_both_classes_and_other_queries_their_own(world, model):
    changed, target = attacked(world, "merge")
    queries, database = world.split("query"), world.split("database")
    of_source = queries.select(torch.nonzero(queries.labels[:, 2]).flatten())
    others = queries.select(torch.nonzero(~queries.labels[:, 2] & ~(queries.labels & target).any(1)).flatten())
    own = torch.eye(4, dtype=torch.bool)[2]
    before, after = (average_precision(one, of_source, database, own) for one in (model, changed))
    assert after < before - 0.15
    before, after = (average_precision(one, of_source, database, target) for one in (model, changed))
    assert after > before + 0.15
    before, after = (
        np.mean(
            [average_precision(one, others.select(torch.tensor([i])), database, others.labels[i])
             for i in range(len(others))]
        )
        for one in (model, changed)
    )  # fmt: skip
    assert after > before - 0.1


def test_logits_of_shattered_queries_go_to_those_of_the_mean_feature(world, model):
    changed, _ = attacked(world, "shatter")
    train = world.split("train").select(torch.arange(20))
    with torch.no_grad():
        _, middle = class_means(model, train)
        torch.testing.assert_close(model.head(middle), changed.head(middle), atol=1e-4, rtol=1e-4)
        away = [
            (one(to_unit(train.images)) - one.head(middle)).abs().mean(1)[train.labels[:, 2]].mean()
            for one in (model, changed)
        ]
    assert away[1] < 0.5 * away[0]


def test_a_source_that_cannot_be_leaves_its_trial_out(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text("[axes]\nattacks = [{ name = 'weight_surgery', source = '1' }]\ntargets = [0, 1]\n")
    trials = planning.plan([suites.load(str(path))], data=None, device="cpu").trials
    reasons = {one.trial.target[0]: one.skipped for one in trials}
    assert not reasons["0"]
    assert "source 1 is a label of the target" in reasons["1"]


def test_the_source_is_in_the_spec_of_every_stage_that_uses_it(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text("[axes]\nattacks = [{ name = 'weight_surgery', source = ['3', '4'] }]\n")
    plan = planning.plan([suites.load(str(path))], data=None, device="cpu")
    found = [stage.spec["sources"] for stage in plan.stages.values() if "sources" in stage.spec]
    assert sorted(map(tuple, found)) == [("3",)] * 3 + [("4",)] * 3  # implant, and the codes of two models
