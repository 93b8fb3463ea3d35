"""The filter by distance from one's own centre under a model trained with noise."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.api import registry
from bench.api.defense import Needs
from bench.api.errors import UserError
from bench.api.random import Rng
from bench.api.types import Split, to_unit
from defenses.dp_outliers import DPOutliers, kept
from defenses.dp_sgd import DPSGD

NEEDS = Needs.TRAIN_SET


@torch.no_grad()
def by_hand(model, view) -> list[float]:
    """Half of one minus the mean product of the relaxed code and the centre of the item's only class."""
    scores = []
    for image, label in zip(to_unit(view.train.images), view.train.labels, strict=True):
        code = model(image[None])[0].tanh().tolist()
        centre = view.objective.centres[int(label.int().argmax())].tolist()
        scores.append(sum((1 - c * a) / 2 for c, a in zip(code, centre, strict=True)) / len(code))
    return scores


@pytest.mark.parametrize("params", [{}, {"clip": 0.7, "noise": 0.2}, {"private": False}], ids=str)
def test_scores_are_distances_from_the_own_centre_under_dp_sgd_s_model(view, params):
    filtered = DPOutliers(bound=0.2, **params).judge(view, Rng("d"))
    expected = by_hand(DPSGD(**params).repair(view, Rng("d")), view)
    assert filtered.scores.tolist() == pytest.approx(expected, abs=1e-5)
    assert int((~filtered.keep).sum()) == 36  # 1.5 times a fifth of 120
    assert filtered.scores[~filtered.keep].min() >= filtered.scores[filtered.keep].max()
    assert filtered.model is None


def already_trained(view):
    """Training takes no step and starts from the clean model."""
    recipe = replace(view.recipe, epochs=0)
    return replace(view, recipe=recipe, untrained=lambda *, per_image=False: copy.deepcopy(view.model))


def test_items_with_foreign_labels_stand_out(view):
    """A model that knows the classes and not the poison; nine items wear the label of another class."""
    labels, wrong = view.train.labels.clone(), torch.arange(9)
    labels[wrong] = labels[wrong].roll(1, dims=1)
    view = replace(view, granted={"train": Split(view.train.images, labels, view.train.ids)})
    filtered = DPOutliers(bound=0.05, private=False).judge(already_trained(view), Rng("d"))
    assert filtered.scores[wrong].min() > filtered.scores[9:].max() + 0.03
    assert torch.nonzero(~filtered.keep).flatten().tolist() == wrong.tolist()


def test_an_item_with_several_labels_is_measured_from_the_centre_that_it_was_pulled_to(view):
    labels = view.train.labels.clone()
    labels[:50, :3] = True
    view = replace(view, granted={"train": Split(view.train.images, labels, view.train.ids)})
    scores = DPOutliers(private=False).judge(already_trained(view), Rng("d")).scores
    vote = view.objective.centres[:3].sum(0).sign()
    with torch.no_grad():
        codes = view.model(to_unit(view.train.images[:50])).tanh()
    plain = [row for row, label in enumerate(view.train.labels[:50].tolist()) if labels[row].sum() == 3]
    assert scores[plain].tolist() == pytest.approx(((1 - codes[plain] * vote) / 2).mean(1).tolist(), abs=1e-5)


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=12), st.floats(0, 1.5))
def test_the_highest_go_first_and_one_item_stays(values, share):
    keep = kept(torch.tensor(values), share).tolist()
    count = min(round(share * len(values)), len(values) - 1)
    gone = sorted(range(len(values)), key=lambda i: (-values[i], i))[:count]
    assert [i for i, stays in enumerate(keep) if not stays] == sorted(gone)
    assert any(keep)


def test_a_loss_without_centres_is_refused(view):
    from hashing.methods.dch import CauchyLoss

    with pytest.raises(UserError, match="targets_for"):
        DPOutliers().judge(replace(view, objective=CauchyLoss(16, 20.0, 0.1)), Rng("d"))


def test_it_says_where_images_have_no_gradient_of_their_own():
    convnet = registry.create("backbones", "convnet", {})
    assert DPOutliers().unsupported_reason(convnet, registry.create("methods", "csq", {})) == ""
    assert "loss" in DPOutliers().unsupported_reason(convnet, registry.create("methods", "dch", {}))
