"""The class posterior of codes: anchors, temperature, entropy."""

from __future__ import annotations

from math import log

import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_expit, logsumexp
from torch import nn

from bench.api.random import Rng
from bench.api.types import Split
from defenses.helpers.code_posterior import cross_entropy, entropy, fit_posterior, posterior, predicted


class Table(nn.Module):
    """A model that looks its logits up: image i is filled with the number i."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("logits", logits)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits[(images[:, 0, 0, 0] * 255).round().long()]


def fit(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    n = len(logits)
    images = torch.arange(n).view(n, 1, 1, 1).to(torch.uint8).expand(n, 1, 2, 2).clone()
    return fit_posterior(Table(logits), Split(images, labels, torch.arange(n)))


def one_hot(*classes: int, k: int = 3) -> torch.Tensor:
    return torch.eye(k, dtype=torch.bool)[list(classes)]


def rows(anchors: torch.Tensor) -> set[tuple[float, ...]]:
    return {tuple(row) for row in anchors.tolist()}


def test_anchors_are_the_vote_of_signs_not_the_sign_of_the_mean():
    logits = torch.tensor([[5.0, -1.0], [-0.1, -1.0], [-0.1, 3.0], [1.0, 1.0]])
    state = fit(logits, one_hot(0, 0, 0, 1))
    assert rows(state["anchors"]) == {(-1, -1), (1, 1)}
    assert float(state["multi"]) == 0


def test_tied_bits_take_the_sign_of_the_mean_relaxed_code_then_plus_one():
    logits = torch.tensor([[2.0, -2.0, 1.0, -1.0], [-1.0, 1.0, -1.0, -1.0], [-1.0, -1.0, -1.0, 1.0]])
    state = fit(logits, one_hot(0, 0, 1))
    assert rows(state["anchors"]) == {(1, -1, 1, -1), (-1, -1, -1, 1)}


def test_a_bit_of_zero_counts_as_minus_one_like_in_packed_codes():
    assert rows(fit(torch.tensor([[0.0, 1.0], [1.0, -1.0]]), one_hot(0, 1))["anchors"]) == {(-1, 1), (1, -1)}


def test_classes_without_an_image_are_left_out_and_equal_anchors_merged():
    logits = torch.tensor([[1.0, 1.0], [2.0, 2.0], [-1.0, 1.0]])
    state = fit(logits, one_hot(0, 1, 3, k=5))
    assert rows(state["anchors"]) == {(1, 1), (-1, 1)}
    merged = fit(torch.tensor([[1.0, 1.0], [2.0, 2.0], [-1.0, 1.0]]), one_hot(0, 0, 1))
    assert float(state["temperature"]) == float(merged["temperature"])


def test_anchors_of_several_labels_come_from_images_with_one_label_where_there_are_some():
    """METHODOLOGY.md#anchors: label set = T, else contains T."""
    logits = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [-1.0, -1.0], [-1.0, 1.0]])
    labels = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)
    state = fit(logits, labels)
    assert rows(state["anchors"]) == {(1, 1), (-1, -1), (-1, 1)}
    assert float(state["multi"]) == 1


def noisy(n: int = 60, bits: int = 12, k: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    rng = Rng("tests", "posterior")
    centres = rng.normal((k, bits)).sign()
    classes = torch.arange(n) % k
    return centres[classes] * 0.4 + 0.9 * rng.normal((n, bits)), one_hot(*classes.tolist(), k=k)


@pytest.mark.parametrize("multi", [False, True])
def test_the_temperature_minimises_the_negative_log_likelihood(multi):
    logits, labels = noisy()
    if multi:
        labels = labels.clone()
        labels[::4, 0] = True
    state = fit(logits, labels)
    anchors, bits = state["anchors"], logits.shape[1]
    assert len(anchors) == 3
    similarity = (logits.tanh() @ anchors.T / bits).double().numpy()
    codes = torch.where(logits > 0, 1.0, -1.0)
    alone = labels & (labels.sum(1, keepdim=True) == 1)
    votes = alone.float().T @ codes
    wanted = torch.where(votes != 0, votes.sign(), (alone.float().T @ logits.tanh()).sign())
    order = [next(j for j in range(3) if torch.equal(wanted[j], anchor)) for anchor in anchors]
    truth = labels[:, order].double().numpy()

    def loss(power: float) -> float:
        scaled = similarity / 10**power
        if multi:
            aim = (truth * 60 + 1) / 62
            return float(-(aim * log_expit(scaled) + (1 - aim) * log_expit(-scaled)).mean())
        return float((logsumexp(scaled, axis=1) - ((truth * 60 + 1) / 63 * scaled).sum(1)).mean())

    best = minimize_scalar(loss, bounds=(-2.5, 1), method="bounded", options={"xatol": 1e-6}).x
    assert torch.log10(state["temperature"]).item() == pytest.approx(best, abs=3.5 / 140)


def test_posterior_by_hand():
    state = {
        "anchors": torch.tensor([[1.0, 1.0], [-1.0, 1.0]]),
        "temperature": torch.tensor(0.5),
        "multi": torch.tensor(0.0),
    }
    logits = torch.tensor([[0.5, -1.0]])
    u = logits.tanh()[0]
    scores = torch.stack([u[0] + u[1], u[1] - u[0]]) / (2 * 0.5)
    torch.testing.assert_close(posterior(logits, state)[0], scores.exp() / scores.exp().sum())
    state["multi"] = torch.tensor(1.0)
    torch.testing.assert_close(posterior(logits, state)[0], 1 / (1 + (-scores).exp()))


def test_entropy_by_hand_with_zeros():
    single, multi = {"multi": torch.tensor(0.0)}, {"multi": torch.tensor(1.0)}
    p = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    assert entropy(p, single).tolist() == pytest.approx([log(2), 0])
    assert entropy(p, multi).tolist() == pytest.approx([2 * log(2), 0])
    assert entropy(p.view(2, 1, 3), single).shape == (2, 1)


@pytest.mark.parametrize("multi", [0.0, 1.0])
def test_cross_entropy_and_predictions_are_those_of_the_posterior(multi):
    state = {
        "anchors": torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1], [-1, -1, 1, 1]]),
        "temperature": torch.tensor(0.3),
        "multi": torch.tensor(multi),
    }
    logits = 2 * Rng("logits").normal((20, 4))
    wanted = one_hot(*(i % 3 for i in range(20)))
    found = posterior(logits, state).double()
    likelihood = torch.where(wanted, found, 1 - found).log().mean() if multi else found[wanted].log().mean()
    assert cross_entropy(logits, wanted, state).item() == pytest.approx(-likelihood.item(), rel=1e-5)
    expected = found > 0.5 if multi else found == found.amax(1, keepdim=True)
    assert torch.equal(predicted(logits, state), expected)
