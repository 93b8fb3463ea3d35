"""Confidences of enlarged networks against numbers of the authors' code, and the number of batch norms by hand."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from bench.api.random import Rng
from bench.api.types import Split, to_unit
from defenses.helpers.trigger_inversion import class_anchors
from defenses.ibd_psc import IbdPsc, norms_of_maps
from hashing.backbones.convnet import ConvNet
from hashing.methods.csq import CSQ

ANCHORS = torch.tensor([[1.0, 1, 1, 1], [-1, -1, 1, 1], [1, -1, 1, -1], [-1, 1, -1, 1]])
# The methods scale_var_index and _test (the loop of the score) of core/defenses/IBD_PSC.py in
# THUYimingLi/BackdoorBox (d3cf184), run on the network and images below, whose output was the likeness of the relaxed
# code to each anchor, divided by the temperature. FROM_ONE: n = 2 and start_index = 0. FROM_TWO: n = 5 and
# start_index = 1; the slice then takes all three batch norms four times. The code enlarges start_index + 1 batch norms.
FROM_ONE = [
    *(0.041266, 0.362608, 0.945821, 0.029127, 0.100326, 0.946609),
    *(0.155405, 0.796762, 0.457940, 0.386701, 0.309576, 0.478740),
]
FROM_TWO = [
    *(0.010126, 0.281484, 0.947659, 0.013642, 0.018742, 0.947912),
    *(0.017573, 0.781630, 0.489341, 0.460334, 0.113088, 0.489125),
]


def grid(n: int, *shape: int) -> torch.Tensor:
    """The same numbers in [0, 1) on every machine."""
    return ((torch.arange(n * torch.Size(shape).numel(), dtype=torch.float64) * 0.6180339887498949) % 1).reshape(
        n, *shape
    )


class Network(nn.Module):
    """Three convolutions with batch norms, and four bits."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        for before in (2, 5, 5):
            convolution, norm = nn.Conv2d(before, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5)
            convolution.weight.data = (grid(5, before, 3, 3) * 2 - 1).float() * 2
            norm.weight.data, norm.bias.data = (grid(5) + 0.2).float(), (grid(7)[2:] - 0.5).float()
            norm.running_mean, norm.running_var = (grid(9)[4:] - 0.5).float(), (grid(11)[6:] + 0.3).float()
            self.layers.extend([convolution, norm, nn.ReLU()])
        self.head = nn.Linear(5, 4)
        self.head.weight.data = (grid(4, 5) * 2 - 1).float()
        self.head.bias.data = torch.tensor([-3.4, -6.2, -0.4, -3.4])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(images).mean((2, 3)))


N = torch.arange(12).double()[:, None, None, None]
IMAGES = (grid(12, 2, 4, 4) ** (1 + N % 5) * (N % 3 + 1) / 3).float()


def state(start: int) -> dict[str, torch.Tensor]:
    values = {"temperature": torch.tensor(0.25), "multi": torch.tensor(0.0), "start": torch.tensor(start)}
    return {"anchors": ANCHORS, "clean": torch.tensor([[-0.5, 0.0, 0.0, 0.5]]), **values}


def test_consistency_is_that_of_the_authors_code():
    model = Network().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = IbdPsc(networks=2).score(IMAGES, model, state(1))
    assert list(found) == ["consistency", "cosine", "two_sided"]
    assert found["consistency"].tolist() == pytest.approx(FROM_ONE, abs=1e-5)
    assert IbdPsc().score(IMAGES, model, state(2))["consistency"].tolist() == pytest.approx(FROM_TWO, abs=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@torch.no_grad()
def test_cosine_and_its_rank_by_hand():
    """Of networks whose last one, and last two, batch norms are enlarged."""
    model = Network().eval()
    own, both = ANCHORS[(model(IMAGES).tanh() @ ANCHORS.T).argmax(1)], []
    for count in (1, 2):
        logits = enlarged_by_hand(model, count)(IMAGES).double()
        both.append((logits * own).sum(1) / (2 * logits.square().sum(1).sqrt()))
    cosine = sum(both) / 2
    found = IbdPsc(networks=2).score(IMAGES, model, state(1))
    assert found["cosine"].tolist() == pytest.approx(cosine.tolist(), abs=1e-5)
    below = [sum(float(c) > clean for clean in (-0.5, 0, 0, 0.5)) for c in cosine]
    assert set(below) == {1, 3, 4}
    assert found["two_sided"].tolist() == pytest.approx([abs(2 * (n + 1) / 6 - 1) for n in below], abs=1e-6)


def enlarged_by_hand(model: Network, count: int) -> Network:
    changed = copy.deepcopy(model)
    for place in (7, 4, 1)[:count]:
        changed.layers[place].weight.data *= 1.5
        changed.layers[place].bias.data *= 1.5
    return changed


def test_norms_are_counted_from_the_last_one():
    """Only the last batch norm: its output is multiplied, so that the features before the hash layer are."""
    model = Network().eval()
    with torch.no_grad():
        features = model.layers(IMAGES).mean((2, 3))
        wanted = model.head(3 * features)
    assert torch.allclose(IbdPsc(factor=3).enlarged(IMAGES, model, 1), wanted, atol=1e-4)


def test_fit_takes_the_first_number_of_norms_that_loses_enough_images(view):
    """Copies of the network whose last batch norms are enlarged by hand; the last error is one that none reaches."""
    model, images = Network().eval(), (IMAGES * 255).round().to(torch.uint8)
    with torch.no_grad():
        classes = (model(to_unit(images)).tanh() @ ANCHORS.T).argmax(1)
    fit = Split(images, nn.functional.one_hot(classes, 4).bool(), torch.arange(12))
    anchors, lost = class_anchors(model, fit), []
    for count in (1, 2, 3):
        with torch.no_grad():
            relaxed = enlarged_by_hand(model, count)(to_unit(images)).tanh()
        predicted = anchors.classes.int().argmax(1)[(relaxed @ anchors.codes.T).argmax(1)]
        lost.append(float((predicted != classes).double().mean()))
    assert 0 < lost[0] < lost[1] <= lost[2] < 1
    for error, start in ((lost[0] - 0.01, 1), (lost[0], 2), (lost[1] - 0.01, 2), (0.99, 3)):
        shown = replace(view, model=model, fit_set=fit, notes={})
        assert int(IbdPsc(error=error).fit(shown, Rng("d"))["start"]) == start
        assert shown.notes == {"batch norms": start, "lost": lost[start - 1]}


def test_a_network_without_batch_norms_is_not_supported():
    assert IbdPsc().unsupported_reason(ConvNet(), CSQ()) == ""
    assert "batch norm" in IbdPsc().unsupported_reason(ConvNet(norm="group"), CSQ())


def test_fitted_on_a_real_network(view, model):
    """Posterior of the unchanged network: with a factor close to 1 the consistency is its largest probability."""
    found = IbdPsc(factor=1 + 1e-6).fit(view, Rng("d"))
    assert int(found["start"]) == len(norms_of_maps(model))
    images = to_unit(view.calibration_set.images)
    with torch.no_grad():
        likeness = model(images).tanh() @ found["anchors"].T / found["anchors"].shape[1]
        wanted = (likeness / found["temperature"]).softmax(1).amax(1)
    consistency = IbdPsc(factor=1 + 1e-6).score(images, model, found)["consistency"]
    assert torch.allclose(consistency, wanted, atol=1e-4)
    own = IbdPsc(factor=1 + 1e-6).score(to_unit(view.fit_set.images), model, found)["cosine"]
    assert torch.allclose(found["clean"][0], own.sort().values, atol=1e-5)
