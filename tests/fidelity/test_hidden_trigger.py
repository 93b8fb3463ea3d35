"""Hidden trigger's pairing and gradient against the authors' loop.

Repository UMBCvision/Hidden-Trigger-Backdoor-Attacks, commit 8180607: generate_poison.py (the loop over `num_iter` in
`train`), for 12 images and sources, on a small network in place of AlexNet.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from attacks.helpers.pairing import pairs
from attacks.hidden_trigger import HiddenTrigger
from bench.api.types import to_unit
from tests.fidelity.inputs import Normalised, image, network, numbers

SOURCES, IMAGES = (to_unit(image(12, 3, 10, 10, seed=seed)) for seed in (100, 200))
FEATURES = Normalised(network(300, 12, seed=5).requires_grad_(requires_grad=False))


def test_the_released_pairing():
    distance = torch.cdist(FEATURES(IMAGES), FEATURES(SOURCES))
    released = numbers("hidden_trigger")["aims"]
    assert pairs(distance, one_to_one=False).tolist() == released[0].tolist()
    assert len(set(released[0].tolist())) == 8, "12 images share 8 sources, the deviation that the card states"
    assert sorted(pairs(distance).tolist()) == list(range(12))


def test_lost_sources_stay_lost():
    """The released loop stores the matched features in the list of sources."""
    goals = FEATURES(SOURCES)
    for expected in numbers("hidden_trigger")["aims"][:1]:
        goals = goals[pairs(torch.cdist(FEATURES(IMAGES), goals), one_to_one=False)]
        torch.testing.assert_close(goals, FEATURES(SOURCES)[torch.from_numpy(expected).long()])
    assert len(goals.unique(dim=0)) == 8


def test_a_step_is_along_the_released_gradient(model, monkeypatch):
    """Ours divides the gradient of each image by its largest component, as the card says."""
    monkeypatch.setattr(model, "features", FEATURES.forward)
    attack = HiddenTrigger(pairing="released", iterations=1, eps=1.0, lr=0.01)
    moved = attack.collide(IMAGES, SOURCES, model)
    gradient = torch.from_numpy(numbers("hidden_trigger")["gradient"])
    step = gradient / gradient.flatten(1).abs().amax(1)[:, None, None, None]
    expected = (IMAGES - 0.01 * step).clamp(0, 1)
    torch.testing.assert_close(moved, expected, atol=1e-6, rtol=0)
    apart = HiddenTrigger(iterations=1, eps=1.0, lr=0.01).collide(IMAGES, SOURCES, model)
    assert (apart - expected).abs().max() > 1e-3, "one to one is another gradient"


def test_the_loss_of_each_image():
    goals = FEATURES(SOURCES)[torch.from_numpy(numbers("hidden_trigger")["aims"][0]).long()]
    loss = (FEATURES(IMAGES) - goals).square().sum(1)
    assert loss.numpy() == pytest.approx(numbers("hidden_trigger")["losses"][0], rel=1e-4)
    assert np.isfinite(loss.numpy()).all()
