"""What the harness watches while a victim trains."""

from __future__ import annotations

import pytest
import torch

from bench.stages import _base
from bench.stages.implant import LOOKS, _Watch


@pytest.mark.parametrize(
    ("epochs", "looks"), [(3, [1, 2, 3]), (LOOKS, [*range(1, LOOKS + 1)]), (50, [*range(3, 51, 3)])]
)
def test_the_trigger_is_asked_at_most_twenty_times_over_a_training(world, model, quick, epochs, looks) -> None:
    attack = quick("attacks", "badnets")
    target = _base.target(world.spec, world.inputs.meta("load")["classes"])
    asked = []

    def trigger() -> dict[str, torch.Tensor]:
        asked.append(len(asked))
        return {"patch": torch.full((3, 2, 2), (len(asked) % 2) * 1.0)}  # a trigger that is learned on the way

    watch = _Watch(attack, target, world.inputs, world.context, epochs)
    after_epoch = watch.follow(trigger)
    for _ in range(epochs):
        after_epoch(model)
    assert watch.epochs == looks
    assert len(watch.distances) == len(asked) == len(looks) <= LOOKS
    assert watch.distances[0] != watch.distances[1], "the second look is at another trigger"
    assert watch.distances[0] == watch.distances[2]
