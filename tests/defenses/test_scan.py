"""The decomposition, the split and the test against numbers of backdoor-toolbox, and a planted second group."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from bench.api.defense import Needs
from bench.api.random import Rng
from defenses.helpers.identities import covariances, distances
from defenses.scan import Scan, anomaly_indices, groups, split
from tests.defenses.conftest import Featured

NEEDS = Needs.TRAIN_SET

# SCAn of vtu81/backdoor-toolbox (7b90693, cleansers_tool_box/scan.py) on the inputs below. In its `calc_test`, G is
# multiplied by Su F as in the authors' local_model.m (TDteach/Demon-in-the-Variant, 11c1d71).
BETWEEN = [0.7212094870008874, -0.2407557864179129, -0.2572254906157579]  # the first rows
WITHIN = [0.0836706745130651, -0.035103540458992, -0.009607698710803055]
FIRST = [0, 1, 2, 3, 4, 6, 7, 8]
ONE = [1.1877499128956504, -0.52475008710435, 0.7252499128956496]
TWO = [-0.022818150143872704, 0.5999091225834001, 0.14536366803794562]
STATISTIC = 4.935943373643716
VALUES = [1.0, 2.0, 4.0, 8.0, 3.0, 2.5]
INDICES = [1.180358829084, 0.505868069607, 0.843113449346, 3.541076487252, 0.168622689869, 0.168622689869]


def grid(n: int, d: int) -> torch.Tensor:
    """The same numbers in [0, 1) on every machine."""
    return ((torch.arange(n * d, dtype=torch.float64) * 0.6180339887498949) % 1).reshape(n, d)


def decomposed() -> tuple[torch.Tensor, torch.Tensor]:
    identity = torch.arange(40) % 4
    clean = grid(40, 3) + 2 * torch.eye(4, 3, dtype=torch.float64)[identity]
    return covariances(clean, nn.functional.one_hot(identity, 4).bool())


def mixed(apart: float = 1.0) -> torch.Tensor:
    """A class in which the first nine rows are moved."""
    rows = 1.5 * grid(31, 3)[1:]
    rows[:9] += apart * torch.tensor([1, -1, 0.5], dtype=torch.float64)
    return rows - rows.mean(0) + 0.3


class Start(Rng):
    """Draws the start that the reference had."""

    def uniform(self, shape, low=0.0, high=1.0):
        return grid(*shape, 1)[:, 0].float()


def test_covariances_are_those_of_backdoor_toolbox():
    between, within = decomposed()
    assert between[0].tolist() == pytest.approx(BETWEEN, rel=1e-9)
    assert within[0].tolist() == pytest.approx(WITHIN, rel=1e-9)


def test_the_split_is_that_of_backdoor_toolbox():
    precision = torch.linalg.pinv(decomposed()[1])
    first, one, two = split(mixed(), precision, grid(30, 1)[:, 0] >= 0.5)
    assert torch.nonzero(first).flatten().tolist() == FIRST
    assert one.tolist() == pytest.approx(ONE, rel=1e-9)
    assert two.tolist() == pytest.approx(TWO, rel=1e-9)


def test_statistic_and_indices_are_those_of_backdoor_toolbox():
    rows, none = mixed(), torch.zeros(0, 3, dtype=torch.float64)
    found = groups(rows, none, *decomposed(), Start("d"))
    assert found.statistic == pytest.approx(STATISTIC, rel=1e-9)
    indices = anomaly_indices(torch.tensor(VALUES, dtype=torch.float64))
    assert indices.tolist() == pytest.approx(INDICES, rel=1e-9)
    assert anomaly_indices(torch.ones(4).double()).tolist() == [0, 0, 0, 0]


def test_ratios_are_those_of_two_normal_distributions_and_the_group_with_clean_images_is_not_suspected():
    rows = mixed(apart=4.0)
    between, within = decomposed()
    found = groups(rows[:20], rows[20:], between, within, Rng("d"))
    assert torch.nonzero(found.suspected).flatten().tolist() == list(range(9))
    suspected = torch.cat([found.suspected, torch.zeros(10, dtype=torch.bool)])
    means = [rows[mask].mean(0) for mask in (suspected, ~suspected)]
    one, other = (torch.distributions.MultivariateNormal(mean, within).log_prob(rows[:20]) for mean in means)
    assert found.ratios.tolist() == pytest.approx((one - other).tolist(), rel=1e-6, abs=1e-6)
    assert torch.equal(found.suspected, found.ratios > 0)
    swapped = groups(torch.cat([rows[20:], rows[:9]]), rows[9:20], between, within, Rng("d"))
    assert torch.nonzero(swapped.suspected).flatten().tolist() == list(range(10, 19))


def test_identities_of_single_images_are_left_out_of_the_covariances():
    identity = torch.arange(40) % 4
    clean = grid(40, 3) + identity[:, None]
    labels = nn.functional.one_hot(identity, 6).bool()
    odd = torch.cat([labels, torch.tensor([[True] * 6, [False] * 6])])
    for ours, theirs in zip(
        covariances(torch.cat([clean, 100 * torch.ones(2, 3).double()]), odd), covariances(clean, labels), strict=True
    ):
        assert torch.allclose(ours, theirs)
    _, within = covariances(clean[:4], labels[:4])
    assert torch.allclose(within.diagonal(), clean[:4].var(0), rtol=0.5)


@pytest.mark.parametrize(("classes", "least", "most"), [(5, 0.035, 0.075), (10, 0.001, 0.015)])
def test_false_alarms_of_normally_distributed_tests_are_as_documented(classes, least, most):
    alarms = [bool((anomaly_indices(Rng("mad", i).normal((classes,)).double()) > 7.3891).any()) for i in range(1500)]
    assert least < sum(alarms) / len(alarms) < most


def planted(view, moved: int):
    """Normal classes; the first `moved` training images of class 1 form a second group."""
    train, trusted = view.train, view.trusted_set
    images = torch.cat([train.images, trusted.images])
    labels = torch.cat([train.labels, trusted.labels])
    rows = Rng("scan").normal((len(images), 5)) + 20 * labels.float() @ torch.eye(4, 5)
    poison = torch.zeros(len(train), dtype=torch.bool)
    poison[torch.nonzero(train.labels[:, 1]).flatten()[:moved]] = True
    rows[: len(train)][poison] += torch.tensor([0.0, 0, 0, 0, 8])
    return replace(view, model=Featured(view.model, images, rows)), poison


@pytest.mark.parametrize("moved", [8, 22])
def test_removes_the_group_without_clean_images_also_if_it_is_the_larger_one(view, moved):
    shown, poison = planted(view, moved)
    found = Scan().judge(shown, Rng("d"))
    assert torch.equal(~found.keep, poison)
    assert float(found.scores[poison].min()) > float(found.scores[~poison].max())
    assert shown.notes["infected classes"] == 1
    assert shown.notes["number of its class"] == 1


def test_removes_nothing_below_the_threshold(view):
    shown, _ = planted(view, 8)
    Scan().judge(shown, Rng("d"))
    index = shown.notes["largest index"]
    assert Scan(threshold=index * 1.01).judge(shown, Rng("d")).keep.all()
    assert not Scan(threshold=index * 0.99).judge(shown, Rng("d")).keep.all()


def test_several_labels_and_none(view):
    labels = view.train.labels.clone()
    labels[:20, 3], labels[20] = True, False
    several = replace(view, granted={"train": replace(view.train, labels=labels)})
    found = Scan().judge(several, Rng("d"))
    assert bool(found.keep[20])
    assert float(found.scores[20]) < float(found.scores[torch.arange(120) != 20].min())
    blank = replace(view, granted={"train": replace(view.train, labels=torch.zeros_like(labels))})
    assert Scan().judge(blank, Rng("d")).keep.all()


def test_codes_are_another_space(view):
    features, code = (Scan(space=space).judge(view, Rng("d")).scores for space in ("features", "code"))
    assert not torch.equal(features, code)


def test_distances_are_squared_mahalanobis_distances():
    rows, within = mixed(), decomposed()[1]
    gap = rows - rows[3]
    expected = [float(row @ torch.linalg.solve(within, row)) for row in gap]
    assert distances(rows, rows[3], torch.linalg.inv(within)).tolist() == pytest.approx(expected)


def test_two_images_are_two_groups_whatever_the_random_start():
    rows, none = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64), torch.empty(0, 2, dtype=torch.float64)
    identity = torch.eye(2, dtype=torch.float64)
    found = {groups(rows, none, identity, identity, Rng("start", seed)).statistic for seed in range(8)}
    assert len(found) == 1
    assert found.pop() > 0


def test_without_clean_images_the_smaller_group_is_suspected():
    rows = torch.tensor([[5.0, 0.0]] * 3 + [[-5.0, 0.0]] * 7, dtype=torch.float64)
    none, identity = torch.empty(0, 2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    for seed in range(8):
        assert groups(rows, none, identity, identity, Rng("start", seed)).suspected.tolist() == [True] * 3 + [False] * 7
