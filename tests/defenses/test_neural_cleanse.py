"""Neural Cleanse's verdict: the index of planted sizes, the suspect, and what counts as a class's own image."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.access.defender import defender_view
from bench.api.defense import Needs, Rng
from defenses.neural_cleanse import NeuralCleanse
from defenses.neural_cleanse_free import NeuralCleanseFree
from tests.defenses.conftest import planted_search

SIZES = [0.3, 0.2, 0.02, 0.26]  # median .23, deviations .07 .03 .21 .03, their median .05
INDEX = 0.21 / (1.4826 * 0.05)


@pytest.fixture
def view(world):
    return defender_view(world.spec, world.defender_inputs(), world.context, Needs.DATABASE)


def test_verdict_by_hand(view):
    component, asked = planted_search(NeuralCleanse, SIZES)
    verdict = component().inspect(view, Rng("d"))
    assert verdict.score == pytest.approx(INDEX, rel=1e-5)
    assert verdict.suspect == 2
    assert verdict.alarm_at == 2
    assert view.notes == {
        "size of anchor": pytest.approx(0.3), "size of bell": pytest.approx(0.2),
        "size of candle": pytest.approx(0.02), "size of drum": pytest.approx(0.26),
        "median size": pytest.approx(0.23), "median deviation": pytest.approx(0.05),
    }  # fmt: skip
    assert torch.equal(asked["own"], view.fit_set.labels)
    assert torch.equal(asked["images"], view.fit_set.images)


def test_equal_sizes_name_nobody(view):
    component, _ = planted_search(NeuralCleanse, [0.5, 0.5, 0.5, 0.1])
    verdict = component().inspect(view, Rng("d"))
    assert (verdict.score, verdict.suspect) == (0, None)
    assert view.notes["median deviation"] == 0


def test_of_equal_suspects_the_first_is_named(view):
    component, _ = planted_search(NeuralCleanse, [0.9, 0.1, 0.8, 0.1])
    verdict = component().inspect(view, Rng("d"))
    assert verdict.suspect == 1


def test_a_class_without_trusted_images_is_passed_over(view):
    component, asked = planted_search(NeuralCleanse, [0.3, 0.05, 0.28])
    trusted = {}
    for half in ("fit_set", "calibration_set"):
        split = getattr(view, half)
        trusted[half] = split.select(~split.labels[:, 1])
    verdict = component().inspect(replace(view, **trusted), Rng("d"))
    assert verdict.suspect == 2
    assert list(view.notes)[:3] == ["size of anchor", "size of candle", "size of drum"]
    assert torch.equal(asked["own"], trusted["fit_set"].labels[:, [0, 2, 3]])


def test_images_with_any_of_several_labels_are_a_class_s_own(view):
    component, asked = planted_search(NeuralCleanse, SIZES)
    labels = view.fit_set.labels.clone()
    labels[::3, 0] = True
    component().inspect(replace(view, fit_set=replace(view.fit_set, labels=labels)), Rng("d"))
    assert torch.equal(asked["own"], labels)


def test_classes_with_one_anchor_are_one_called_after_the_first(view):
    """Two classes swap half of their images, so that neither vote can tell them apart."""
    component, asked = planted_search(NeuralCleanse, [0.3, 0.01, 0.28])

    class Merging(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.inner = model

        def forward(self, images):
            logits = self.inner(images)
            means = images.mean(1)
            right = means[:, :6, 6:].mean((1, 2)) > means[:, 6:, 6:].mean((1, 2))
            low = means[:, 6:, 6:].mean((1, 2)) > means[:, :6, :6].mean((1, 2))
            return torch.where((right | low)[:, None] & (means[:, 6:, :6].mean((1, 2)) < 0.45)[:, None], 1.0, logits)

    verdict = component().inspect(replace(view, model=Merging(view.model)), Rng("d"))
    if len(asked["codes"]) == 3:
        assert verdict.suspect == 1
        assert torch.equal(asked["own"][:, 1], view.fit_set.labels[:, [1, 3]].any(1))
    else:
        raise AssertionError(f"the planted merge gave {len(asked['codes'])} anchors")


@pytest.mark.parametrize("component", [NeuralCleanse, NeuralCleanseFree])
def test_runs_whole_and_repeats(view, component):
    verdicts = [component(steps=2, updates=2).inspect(view, Rng("d", seed)) for seed in (0, 0, 1)]
    assert verdicts[0] == verdicts[1] != verdicts[2]
    assert len(view.notes) == 6
