"""Two rounds of adversarial unlearning against the authors' code.

Repository YiZeng623/I-BAU, defense.py at commit 3f4a6e7 (the loops over rounds, loss_inner, loss_outer) and
hypergrad.py at 5ab65bb (fixed_point). Their classifier is the network followed by the logits of the class posterior,
and the share of perturbed images, 1 % in their code, is 1, because which ones are chosen is random. All is in float64,
because Adam's first steps make rounding errors of small gradients large.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from bench.api import registry
from bench.api.hashing import FeatureExtractor
from bench.api.random import Rng
from defenses.i_bau import IBAU, Batch
from hashing.model import HashModel
from tests.fidelity.inputs import fill, numbers, real, whole

STATE = {
    "anchors": torch.where(real(4, 8, seed=930) >= 0, 1.0, -1.0).double(),
    "temperature": torch.tensor(0.3).double(),
    "multi": torch.tensor(0.0),
}
IMAGES = [real(12, 3, 6, 6, seed=931 + part, scale=0.5).double() + 0.5 for part in range(2)]
CLASSES = [torch.from_numpy(whole(12, top=4, seed=941 + part)) for part in range(2)]


def made() -> HashModel:
    convolutions = nn.Sequential(nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5), nn.ReLU())
    body = FeatureExtractor([convolutions, nn.Flatten()], features=80)
    method = registry.create("methods", "csq", {})
    objective = method.objective(bits=8, classes=4, train_size=24, rng=Rng("o"))
    model = HashModel(body, nn.Linear(80, 8), objective, method, 3)
    fill(model, 950, scale=0.4)
    return model.double().eval()


def weights(model: nn.Module) -> np.ndarray:
    return torch.cat([value.detach().flatten() for value in model.parameters()]).numpy()


def test_two_rounds():
    released = numbers("i_bau")
    data = [
        Batch(images, torch.eye(4, dtype=torch.bool)[classes], STATE)
        for images, classes in zip(IMAGES, CLASSES, strict=True)
    ]
    settings = IBAU(rounds=2, steps=4, portion=1.0, batch=12)
    first = settings.perturbation(made(), data)
    np.testing.assert_allclose(first.numpy(), released["perturbation"], atol=1e-6)
    found = weights(settings.unlearned(made(), data, 1e-3, Rng("d")))
    start = weights(made())
    assert np.abs(released["weights"] - start).mean() > 1e-3
    np.testing.assert_allclose(found, released["weights"], atol=1e-7)
    constant = weights(IBAU(rounds=2, steps=4, portion=1.0, iterations=0).unlearned(made(), data, 1e-3, Rng("d")))
    assert np.abs(constant - released["weights"]).max() > 1e-4  # what leaves out the perturbation's gradient differs
