"""DECREE's verdict: the size of the smallest trigger, from images alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.access.defender import defender_view
from bench.api.defense import Needs, Rng
from bench.api.types import to_unit
from bench.artifacts.training import train_victim
from defenses.decree import Decree
from tests.defenses.test_second_opinion import corner


@pytest.mark.parametrize(("size", "alarm"), [(0.0999, True), (0.1001, False), (1.0, False)])
def test_the_score_is_minus_the_size_and_small_triggers_are_an_alarm(view, size, alarm):
    class Found(Decree):
        def invert(self, model, images, rng):
            assert torch.equal(images, view.fit_set.images)
            return torch.zeros(1, 12, 12), torch.zeros(3, 12, 12), size

    verdict = Found().inspect(view, Rng("d"))
    assert (verdict.score, verdict.suspect, view.notes) == (-size, None, {"trigger size": size})
    assert (verdict.score > verdict.alarm_at) == alarm


def test_labels_play_no_part(view):
    fit, how = view.fit_set, Decree(steps=4)
    shuffled = replace(view, fit_set=replace(fit, labels=fit.labels[torch.randperm(len(fit))]))
    assert how.inspect(view, Rng("d")) == how.inspect(shuffled, Rng("d"))


@pytest.mark.long
def test_a_backdoored_model_has_a_smaller_trigger_than_a_clean_one(world):
    spec = {**world.spec, "recipe": {**world.spec["recipe"], "epochs": 15}}
    found = {}
    for name in ("clean", "backdoored"):
        train = world.split("train")
        if name == "backdoored":
            chosen = torch.arange(0, 120, 3)
            bell = torch.eye(4, dtype=torch.bool)[1].expand(len(chosen), 4)
            train = train.replace(chosen, images=to_unit(corner(train.images[chosen])), labels=bell)
        world.suspect = world.stored(name, train_victim(spec, train, world.context))
        view = defender_view(world.spec, world.defender_inputs(), world.context, Needs.NONE)
        found[name] = -Decree(steps=40, batch=30).inspect(view, Rng("d")).score
    assert found["backdoored"] < 0.7 * found["clean"]
