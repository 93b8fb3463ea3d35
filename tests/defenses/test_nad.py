"""Neural attention distillation: the teacher, the student, and the rates that are chosen."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.api import registry
from bench.api.errors import UserError
from bench.api.random import Rng
from defenses.helpers.attention import Distillation
from defenses.helpers.fine_tuning import fine_tuned
from defenses.nad import NAD
from tests.defenses.conftest import equal, graded, images_of, state


def test_without_weight_on_attention_the_student_is_fine_tuned_and_no_more(view):
    found = NAD(teacher_epochs=1, epochs=2, betas=(0.0, 0.0, 0.0), lr=(1e-2,)).repair(view, Rng("d"))
    expected = fine_tuned(view, view.model, Rng("d").child("student"), epochs=2, rates=(1e-2,))
    assert equal(state(found), state(expected))
    attentive = NAD(teacher_epochs=1, epochs=2, lr=(1e-2,)).repair(view, Rng("d"))
    assert not equal(state(found), state(attentive))


def test_the_teacher_is_what_fine_tuning_gives_and_the_student_starts_as_the_victim(view):
    runs, train_model = [], view.train_model

    def noted(model, split, recipe, rng, *, hook=None):
        runs.append((state(model), hook))
        return train_model(model, split, recipe, rng, hook=hook)

    before = state(view.model)
    defense = NAD(teacher_epochs=2, epochs=1, lr=(1e-2, 1e-3))
    defense.repair(replace(view, train_model=noted), Rng("d"))
    assert all(equal(start, before) for start, _ in runs)
    assert equal(before, state(view.model))
    hooks = [hook for _, hook in runs if hook is not None]
    assert len(hooks) == 2
    control = registry.create("defenses", "fine_tuning", {"epochs": 2, "lr": (1e-2, 1e-3)}).repair(view, Rng("d"))
    step = view.model.eval(), images_of(view), view.fit_set.labels[:9], torch.arange(9), 0.0
    wanted = Distillation(control, defense.betas).before_step(*step)[2]
    assert float(wanted.detach()) > 0
    assert all(torch.equal(hook.before_step(*step)[2], wanted) for hook in hooks)


def test_the_rates_of_teacher_and_student_are_chosen_on_the_calibration_half(view):
    runs = []

    def train_model(model, split, recipe, rng, *, hook=None):
        runs.append((recipe.lr, recipe.epochs, hook is not None, split is view.fit_set))
        tuned = graded(model, view.calibration_set, {0.1: 9, 0.2: 1}[recipe.lr])
        tuned.rate = recipe.lr
        return tuned

    best = NAD(teacher_epochs=3, epochs=4, lr=(0.1, 0.2)).repair(replace(view, train_model=train_model), Rng("d"))
    assert best.rate == 0.2
    assert runs == [(0.1, 3, False, True), (0.2, 3, False, True), (0.1, 4, True, True), (0.2, 4, True, True)]


def test_without_a_block_to_attend_to_the_user_is_told(view):
    view.model.backbone.frozen = 3  # the fourth leaves one position
    with pytest.raises(UserError, match="nad") as error:
        NAD().repair(view, Rng("d"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("betas", [(), (-1.0, 0.0)])
def test_impossible_betas_are_refused(betas):
    with pytest.raises(UserError, match="'nad': betas"):
        registry.create("defenses", "nad", {"betas": betas})
