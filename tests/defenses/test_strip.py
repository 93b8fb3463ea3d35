"""STRIP's scores against brute force."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations, permutations
from math import log

import pytest
import torch
from torch import nn

from bench.access.defender import defender_view
from bench.api.random import Rng
from defenses.helpers.code_posterior import entropy, posterior
from defenses.strip import LIMIT, Strip, dispersion


@pytest.mark.parametrize(("copies", "bits"), [(2, 1), (3, 4), (7, 16), (8, 5)])
def test_dispersion_is_the_mean_hamming_distance_over_all_pairs(copies, bits):
    signs = torch.where(Rng("s", copies, bits).normal((4, copies, bits)) > 0.3, 1.0, -1.0)
    expected = []
    for image in signs:
        distances = [float((a != b).sum()) / bits for a, b in combinations(image, 2)]
        expected.append(sum(distances) / len(distances))
    assert dispersion(signs).tolist() == pytest.approx(expected, abs=1e-6)


def slow_votes(query: torch.Tensor, database: torch.Tensor, labels: torch.Tensor, k: int) -> list[Fraction]:
    """Labels among the k nearest, averaged over every order of the items that compares equal distances either way."""
    distance = [int((query != item).sum()) for item in database]
    total = [Fraction(0)] * labels.shape[1]
    orders = list(permutations(range(len(database))))
    for order in orders:
        for item in sorted(order, key=lambda i: distance[i])[:k]:
            for label, has in enumerate(labels[item].tolist()):
                total[label] += Fraction(int(has), len(orders))
    return total


def state_of(database: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """As `fit` stores it: distinct codes with the sum of their labels."""
    codes, inverse = torch.unique(database, dim=0, return_inverse=True)
    summed = torch.zeros(len(codes), labels.shape[1]).index_add_(0, inverse, labels.float())
    return {"codes": codes, "labels": summed, "counts": torch.bincount(inverse).float()}


@pytest.mark.parametrize("neighbours", [1, 2, 3, 5, 6, 7, 50])
@pytest.mark.parametrize("seed", [0, 1])
def test_retrieval_pools_the_expected_label_histogram_over_tie_orders(neighbours, seed):
    rng = Rng("r", seed)
    database = torch.where(rng.normal((6, 3)) > 0, 1.0, -1.0)
    labels = rng.uniform((6, 3)) < 0.5
    labels[:, 0] |= ~labels.any(1)
    queries = torch.where(rng.normal((4, 3)) > 0, 1.0, -1.0)
    scores = Strip(neighbours=neighbours).retrieval(queries, state_of(database, labels), 2)
    for i in range(2):  # two images with two blended copies each
        votes = [sum(parts) for parts in zip(
            *(slow_votes(q, database, labels, neighbours) for q in queries[2 * i : 2 * i + 2]), strict=True
        )]  # fmt: skip
        shares = [float(vote / sum(votes)) for vote in votes]
        assert float(scores[i]) == pytest.approx(sum(p * log(p) for p in shares if p), abs=1e-5)


def test_fit_keeps_distinct_codes_with_counts_and_overlays_from_the_fitting_half(world):
    detector = Strip(overlays=40)  # more than the 30 images there are
    view = defender_view(world.spec, world.defender_inputs(), world.context, detector.needs)
    state = detector.fit(view, Rng("d", 0))
    assert len(torch.unique(state["codes"], dim=0)) == len(state["codes"])
    assert float(state["counts"].sum()) == 80
    for code, count, labels in zip(state["codes"], state["counts"], state["labels"], strict=True):
        here = (view.database.signs == code).all(1)
        assert int(here.sum()) == int(count)
        assert torch.equal(view.database.labels[here].float().sum(0), labels)
    overlays = (state["overlays"] * 255).round().to(torch.uint8)
    fit_images = {bytes(image.flatten().tolist()) for image in view.fit_set.images}
    used = [bytes(overlay.flatten().tolist()) for overlay in overlays]
    assert set(used) == fit_images  # every image once before any comes twice
    assert len(set(used[:30])) == 30
    other = detector.fit(view, Rng("d", 1))
    assert not torch.equal(other["overlays"], state["overlays"])


def test_the_two_sided_rank_is_large_for_unusually_low_and_high_entropy(world):
    detector = Strip(overlays=4)
    view = defender_view(world.spec, world.defender_inputs(), world.context, detector.needs)
    state = dict(detector.fit(view, Rng("d", 0)))
    images = view.calibration_set.images[:9].float() / 255
    scores = detector.score(images, view.model, state)
    clean = detector.score(view.fit_set.images.float() / 255, view.model, state)["entropy"]
    for value, found in zip(scores["entropy"], scores["two_sided"], strict=True):
        rank = (float((clean < value).sum()) + float((clean == value).sum()) / 2 + 1) / (len(clean) + 2)
        assert float(found) == pytest.approx(abs(2 * rank - 1), abs=1e-6)


class Bright(nn.Module):
    """Three logits from the mean of each channel; keeps what it was shown."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.shown = images
        return 10 * (images.mean((2, 3)) - 0.5)


@pytest.mark.parametrize(("image_weight", "overlay_weight"), [(1.0, 1.0), (0.5, 0.5), (1.0, 0.5)])
@torch.no_grad()
def test_score_blends_clips_and_names_its_scores(image_weight, overlay_weight):
    rng = Rng("b")
    images, overlays = rng.uniform((2, 3, 4, 4)), rng.uniform((5, 3, 4, 4))
    database = torch.tensor([[1.0, 1, 1], [-1, -1, -1], [1, -1, 1]])
    state = {
        **state_of(database, torch.eye(3, dtype=torch.bool)),
        "overlays": overlays,
        "anchors": database,
        "temperature": torch.tensor(0.3),
        "multi": torch.tensor(0.0),
        "clean": torch.tensor([-9.0, -9.0]),
    }
    model = Bright()
    detector = Strip(overlays=5, image_weight=image_weight, overlay_weight=overlay_weight, neighbours=2)
    scores = detector.score(images, model, state)
    assert list(scores) == ["entropy", "consensus", "retrieval", "dispersion", "two_sided"]
    assert scores["two_sided"].tolist() == pytest.approx([0.5] * 2)  # above both clean values: rank 3 of 4
    for i in range(2):
        mixed = (image_weight * images[i] + overlay_weight * overlays).clamp(0, 1)
        torch.testing.assert_close(model.shown[5 * i : 5 * i + 5], mixed)
        logits = 10 * (mixed.mean((2, 3)) - 0.5)
        p = posterior(logits, state)
        assert float(scores["entropy"][i]) == pytest.approx(-float(entropy(p, state).mean()), abs=1e-5)
        assert float(scores["consensus"][i]) == pytest.approx(-float(entropy(p.mean(0), state)), abs=1e-5)
        signs = torch.where(logits > 0, 1.0, -1.0)
        assert float(scores["dispersion"][i]) == pytest.approx(-float(dispersion(signs[None])), abs=1e-6)
        assert float(scores["retrieval"][i]) == pytest.approx(float(detector.retrieval(signs, state, 1)), abs=1e-6)


@torch.no_grad()
def test_codes_that_no_overlay_moves_are_the_most_suspicious():
    database = torch.tensor([[1.0, 1, 1], [-1, -1, -1]])
    state = {
        **state_of(database, torch.eye(2, dtype=torch.bool)),
        "overlays": torch.cat([torch.zeros(3, 3, 2, 2), torch.full((3, 3, 2, 2), 0.8)]),
        "anchors": database,
        "temperature": torch.tensor(0.1),
        "multi": torch.tensor(0.0),
        "clean": torch.full((99,), -torch.inf),
    }
    images = torch.stack([torch.ones(3, 2, 2), torch.zeros(3, 2, 2)])  # the first saturates whatever is added
    for score in Strip(overlays=6, neighbours=1).score(images, Bright(), state).values():
        assert score[0] >= score[1]
        assert score[0] > -1e-6


def test_neighbours_without_any_label_are_no_evidence():
    codes = torch.tensor([[1.0, 1.0, 1.0, 1.0], [-1.0, -1.0, -1.0, -1.0]])
    labels = torch.tensor([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    state = {"codes": codes, "labels": labels, "counts": torch.tensor([2.0, 2.0])}
    found = Strip(neighbours=2).retrieval(codes, state, 2)
    assert found.tolist() == pytest.approx([-log(3), 0])


@torch.no_grad()
def test_scores_do_not_depend_on_how_many_blends_fit_into_memory():
    """Blends of two of these images are as many values as the limit allows."""
    images, overlays = Rng("strip").uniform((5, 3, 128, 128)), Rng("overlays").uniform((170, 3, 128, 128))
    assert 2 * overlays.numel() <= LIMIT < 3 * overlays.numel()
    database = torch.tensor([[1.0, 1, 1], [-1, -1, -1], [1, -1, 1]])
    state = {
        **state_of(database, torch.eye(3, dtype=torch.bool)),
        "overlays": overlays, "anchors": database, "temperature": torch.tensor(0.3), "multi": torch.tensor(0.0),
        "clean": torch.tensor([-0.7, -0.5, -0.3]),
    }  # fmt: skip
    detector, model, shown = Strip(overlays=170, neighbours=2), Bright(), []
    alone = [detector.score(images[i : i + 1], model, state) for i in range(5)]
    model.register_forward_pre_hook(lambda _, inputs: shown.append(len(inputs[0])))
    for name, value in detector.score(images, model, state).items():
        torch.testing.assert_close(value, torch.cat([one[name] for one in alone]))
    assert shown == [340, 340, 170]
