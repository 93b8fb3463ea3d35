"""Neural attention distillation: the teacher, the student, and the rates that are chosen."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.api import registry
from bench.api.errors import UserError
from bench.api.random import Rng
from defenses.helpers.attention import Distillation
from defenses.helpers.fine_tuning import tuned_twice
from defenses.nad import NAD
from tests.defenses.conftest import equal, images_of, state, tuner

SETTINGS = {"steps": 4, "peaks": (0.3,), "max_drop": 1.0}


def test_without_weight_on_attention_the_student_is_fine_tuned_and_no_more(view):
    found = NAD(betas=(0.0, 0.0, 0.0), **SETTINGS).repair(view, Rng("d"))
    expected = tuned_twice(view, view.model, Rng("d").child("student"), **SETTINGS).on_both
    assert equal(state(found), state(expected))
    assert not equal(state(found), state(NAD(**SETTINGS).repair(view, Rng("d"))))


def test_the_teacher_is_what_fine_tuning_gives_and_the_student_starts_as_the_victim(view):
    runs, train_model = [], view.train_model

    def noted(model, split, recipe, rng, *, hook=None):
        runs.append((state(model), hook))
        return train_model(model, split, recipe, rng, hook=hook)

    before = state(view.model)
    defense = NAD(**SETTINGS)
    defense.repair(replace(view, train_model=noted), Rng("d"))
    assert all(equal(start, before) for start, _ in runs)
    assert equal(before, state(view.model))
    on_half, on_both = [hook for _, hook in runs if hook is not None]
    control = registry.create("defenses", "fine_tuning", SETTINGS).repair(view, Rng("d"))
    step = view.model.eval(), images_of(view), view.fit_set.labels[:9], torch.arange(9), 0.0
    wanted = Distillation(control, defense.betas).before_step(*step)[2]
    assert float(wanted.detach()) > 0
    assert torch.equal(on_both.before_step(*step)[2], wanted)
    # the price is measured on images that this teacher has not seen
    cautious = tuned_twice(view, view.model, Rng("d"), **SETTINGS).on_half
    assert torch.equal(on_half.before_step(*step)[2], Distillation(cautious, defense.betas).before_step(*step)[2])
    assert not torch.equal(on_half.before_step(*step)[2], wanted)


def test_the_price_of_teacher_and_student_is_bounded(view):
    seen = []
    tuned = tuner(view, {1.0: 30, 0.5: 0}, seen)
    best = NAD(peaks=(1.0, 0.5)).repair(replace(view, train_model=tuned), Rng("d"))
    assert best.peak == 0.5
    assert [(run.peak, run.hook is None) for run in seen] == [
        (1.0, True), (0.5, True), (0.5, True), (1.0, False), (0.5, False), (0.5, False)
    ]  # fmt: skip
    assert view.notes["teacher's learning rate"] == view.notes["learning rate"] == pytest.approx(0.5 * view.recipe.lr)


def test_without_a_block_to_attend_to_the_user_is_told(view):
    view.model.backbone.frozen = 3  # the fourth leaves one position
    with pytest.raises(UserError, match="nad") as error:
        NAD().repair(view, Rng("d"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("betas", [(), (-1.0, 0.0)])
def test_impossible_betas_are_refused(betas):
    with pytest.raises(UserError, match="'nad': betas"):
        registry.create("defenses", "nad", {"betas": betas})
