"""What the harness watches while a victim trains."""

from __future__ import annotations

import pytest
import torch

from bench.api import registry
from bench.artifacts import stage_io
from bench.stages.implant import LOOKS, _evenly_spaced, _TriggerAttention


@pytest.mark.parametrize(
    ("epochs", "looks"),
    [(3, [1, 2, 3]), (LOOKS, [*range(1, LOOKS + 1)]), (50, [*range(3, 51, 3), 50]), (39, [*range(2, 39, 2), 39])],
)
def test_the_trigger_is_asked_at_most_twenty_times_over_a_training_and_at_its_end(
    world, model, quick, epochs, looks
) -> None:
    attack = quick("attacks", "badnets")
    target = stage_io.target(world.spec["target"], world.data.load.classes)
    asked = []

    def trigger() -> dict[str, torch.Tensor]:
        asked.append(len(asked))
        return {"patch": torch.full((3, 2, 2), (len(asked) % 2) * 1.0)}  # a trigger that is learned on the way

    watch = _TriggerAttention(attack, target, world.data, world.context, epochs)
    after_epoch = watch.follow(trigger)
    for _ in range(epochs):
        after_epoch(model)
    assert watch.epochs == looks
    assert len(watch.distances) == len(asked) == len(looks) <= LOOKS
    assert watch.distances[0] != watch.distances[1], "the second look is at another trigger"
    assert watch.distances[0] == watch.distances[2]


@pytest.mark.parametrize(("n", "count", "taken"), [(10, 3, [0, 4, 9]), (3, 8, [0, 1, 2]), (1, 8, [0]), (0, 8, [])])
def test_what_is_looked_at_is_spread_over_the_queries(n, count, taken) -> None:
    assert _evenly_spaced(torch.arange(n), count).tolist() == taken


def test_queries_of_every_other_class_are_watched(world) -> None:
    """The pool's queries are in the order of their classes."""
    order = world.split("query").labels.int().argmax(1).argsort(stable=True)
    world.memory.tensors(world.data.split.key)["query"] = world.data.split.positions("query")[order]
    labels = world.split("query").labels
    target = stage_io.target(world.spec["target"], world.data.load.classes)
    watch = _TriggerAttention(registry.create("attacks", "badnets", {}), target, world.data, world.context, 1)
    few = _evenly_spaced(torch.nonzero(~target.shares(labels)).flatten(), 3)
    assert len(labels[few].int().argmax(1).unique()) == 3
    assert len(watch.pairs({"patch": torch.ones(3, 2, 2)})[0]) == 30
