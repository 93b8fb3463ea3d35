"""Scaled prediction consistency against decisions of the released code, and the standardisation by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from bench.api.random import Rng
from bench.api.types import Split, to_unit
from defenses.scale_up import ScaleUp

ANCHORS = torch.tensor([[1.0, 1, 1, 1], [-1, -1, 1, 1], [1, -1, 1, -1], [-1, 1, -1, 1]])
# The classes of x, 2x, ..., 11x by the loops of torch_model_wrapper.py and test.py in JunfengGo/SCALE-UP (080dacf), run
# on the network and images below, with the likeness to each anchor as the logit of a class.
DECISIONS = [[2] * 7 + [0] * 4, [3] * 11, [2] * 11, [3] * 11, [3] * 2 + [2] * 9, [2] * 2 + [0] * 3 + [3] * 6]
CONSISTENCY = [0.6363636363636364, 1.0, 1.0, 1.0, 0.18181818181818182, 0.18181818181818182]


def grid(n: int, *shape: int) -> torch.Tensor:
    """The same numbers in [0, 1) on every machine."""
    return ((torch.arange(n * torch.Size(shape).numel(), dtype=torch.float64) * 0.6180339887498949) % 1).reshape(
        n, *shape
    )


class Network(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        weight = (grid(4, 12) * 2 - 1).float()
        return images.flatten(1) @ weight.T - 0.3 * weight.sum(1)


IMAGES = (grid(6, 1, 3, 4) ** 2).float()


def state(**values: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"anchors": ANCHORS, "mean": torch.zeros(4), "deviation": torch.ones(4), **values}


@torch.no_grad()
def test_consistency_is_that_of_the_released_code():
    found = ScaleUp().score(IMAGES, Network(), state())
    assert list(found) == ["consistency", "standardised", "bits"]
    assert found["consistency"].tolist() == pytest.approx(CONSISTENCY, abs=1e-6)
    few = ScaleUp(factors=(3, 8, 11)).score(IMAGES, Network(), state())["consistency"]
    wanted = [sum(row[factor - 1] == row[0] for factor in (3, 8, 11)) / 3 for row in DECISIONS]
    assert few.tolist() == pytest.approx(wanted, abs=1e-6)


@torch.no_grad()
def test_standardised_consistency_has_the_mean_and_deviation_of_the_query_s_class():
    mean, deviation = torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([0.5, 0.6, 0.7, 0.8])
    found = ScaleUp().score(IMAGES, Network(), state(mean=mean, deviation=deviation))["standardised"]
    wanted = [
        (share - float(mean[row[0]])) / float(deviation[row[0]])
        for share, row in zip(CONSISTENCY, DECISIONS, strict=True)
    ]
    assert found.tolist() == pytest.approx(wanted, abs=1e-6)


@torch.no_grad()
def test_bits_are_the_share_that_stays_counted_one_by_one():
    model = Network()
    found = ScaleUp(factors=(2, 5)).score(IMAGES, model, state())["bits"]
    for image, share in zip(IMAGES, found.tolist(), strict=True):
        own = (model(image[None])[0] > 0).tolist()
        copies = [(model((factor * image[None]).clamp(0, 1))[0] > 0).tolist() for factor in (2, 5)]
        same = sum(copy[bit] == own[bit] for copy in copies for bit in range(4))
        assert share == pytest.approx(same / 8, abs=1e-6)


def test_fit_measures_clean_images_class_by_class(view):
    """Each trusted image has the class that the network predicts, so that the anchors are majority codes of these."""
    model = Network().eval()
    images = (grid(40, 1, 3, 4) ** 2 * 255).round().to(torch.uint8)
    with torch.no_grad():
        signs = torch.where(model(to_unit(images)) > 0, 1.0, -1.0)
    codes, classes = torch.unique(signs, dim=0, return_inverse=True)
    fit = Split(images, nn.functional.one_hot(classes).bool(), torch.arange(40))
    detector = ScaleUp()
    found = detector.fit(replace(view, model=model, fit_set=fit), Rng("d"))
    assert torch.equal(found["anchors"], codes)
    with torch.no_grad():
        shares = detector.score(to_unit(images), model, found)["consistency"]
        nearest = (model(to_unit(images)).tanh() @ codes.T).argmax(1)
    for c in range(len(codes)):
        own = shares[nearest == c] if bool((nearest == c).any()) else shares
        assert float(found["mean"][c]) == pytest.approx(float(own.mean()), abs=1e-6)
        assert float(found["deviation"][c]) == pytest.approx(max(float(own.std(correction=0)), 1 / 11), abs=1e-6)


@pytest.mark.parametrize("factors", [(), (0,), (-1, 2)])
def test_factors_are_positive(factors):
    with pytest.raises(ValidationError):
        ScaleUp(factors=factors)
