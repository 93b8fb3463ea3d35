"""The losses, against values worked out by hand."""

from __future__ import annotations

from math import cosh, exp, log, sqrt, tanh

import pytest
import torch

from bench.api.random import Rng
from hashing.methods.ciba_pairwise import CibaPairwise
from hashing.methods.csq import CSQ, CentreLoss
from hashing.methods.dch import DCH
from hashing.methods.dhn import DHN
from hashing.methods.dpsh import DPSH
from hashing.methods.greedyhash import Greedy, GreedyHash
from hashing.methods.hashnet import HashNet
from hashing.methods.helpers.classes import shared_cross_entropy
from hashing.methods.helpers.pairs import PairwiseLikelihood, rarity
from hashing.methods.orthohash import CosineLoss, OrthoHash

ONE_HOT = torch.eye(2, dtype=torch.bool)
IDS = torch.arange(2)


def softplus(x: float) -> float:
    return log(1 + exp(x))


def csq(quantisation: float = 1e-4) -> CentreLoss:
    centres = torch.tensor([[1.0, -1, 1, 1], [-1, -1, 1, -1], [-1, 1, 1, 1]])
    return CentreLoss(centres, torch.tensor([1.0, -1, -1, 1]), quantisation)


def test_csq_at_zero_logits_is_log_two_plus_the_whole_quantisation_term():
    loss = csq()(torch.zeros(2, 4), torch.eye(3, dtype=torch.bool)[:2], IDS, 0.0)
    assert float(loss) == pytest.approx(log(2) + 1e-4, abs=1e-7)


def test_csq_by_hand():
    """-log of (1 + c tanh u) / 2 = log(1 + exp(-2 c u)) per bit, plus (|tanh u| - 1)^2."""
    u, c = [0.5, -1.0, 0.25, -2.0], [1, -1, 1, 1]
    pull = sum(softplus(-2 * a * b) for a, b in zip(c, u, strict=True)) / 4
    edge = sum((abs(tanh(x)) - 1) ** 2 for x in u) / 4
    labels = torch.tensor([[True, False, False]])
    loss = csq(quantisation=0.5)(torch.tensor([u]), labels, IDS[:1], 0.0)
    assert float(loss) == pytest.approx(pull + 0.5 * edge, abs=1e-6)


def test_csq_aims_multi_label_images_at_the_majority_with_ties_broken_by_one_vector():
    labels = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 1, 1], [0, 0, 0], [0, 1, 1]], dtype=torch.bool)
    targets_for = csq().targets_for(labels)
    assert targets_for.tolist() == [
        [1, -1, 1, 1],  # its own centre
        [1, -1, 1, 1],  # ties in bits 0 and 3 take the vector's 1 and 1
        [-1, -1, 1, 1],  # a majority everywhere
        [1, -1, -1, 1],  # no label: the vector itself
        [-1, -1, 1, 1],  # ties in bits 1 and 3 take -1 and 1
    ]


def test_csq_draws_its_centres_and_a_tie_break_of_signs():
    objective = CSQ().objective(bits=16, classes=10, train_size=5, rng=Rng("o"))
    assert objective.centres.shape == (10, 16)
    assert set(objective.tie_break.tolist()) == {-1.0, 1.0}
    assert objective.reset_for(99) is objective


def dpsh_after_one_batch() -> tuple[PairwiseLikelihood, torch.Tensor]:
    objective = PairwiseLikelihood(2, 2, 3, DPSH()._edge)
    return objective, objective(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), ONE_HOT, torch.tensor([2, 0]), 0.0)


def test_dpsh_by_hand():
    """Theta = u.u/2 is 1/2 and 2 for the items with themselves, else 0; item 1 has not been seen: no label, zeros."""
    _, loss = dpsh_after_one_batch()
    likelihood = (softplus(0.5) - 0.5 + softplus(2) - 2 + 4 * log(2)) / 6
    edge = (2 - 1) ** 2 / 4  # sign(0) = 0
    assert float(loss) == pytest.approx(likelihood + 0.1 * edge, abs=1e-6)


def test_dpsh_remembers_codes_and_labels_by_id_and_compares_with_them():
    objective, _ = dpsh_after_one_batch()
    assert objective.codes.tolist() == [[0, 2], [0, 0], [1, 0]]
    assert objective.labels.tolist() == [[False, True], [False, False], [True, False]]
    # item 1 shares the label of item 2 (code [1, 0]) and differs from item 0 (code [0, 2])
    loss = objective(torch.tensor([[1.0, 1.0]]), ONE_HOT[:1], torch.tensor([1]), 0.0)
    assert float(loss) == pytest.approx((softplus(1) + softplus(1) - 1 + softplus(0.5) - 0.5) / 3, abs=1e-6)


def test_dpsh_sends_no_gradient_through_its_memory():
    """The derivative of the likelihood by u_i is the mean of (sigmoid(theta_ij) - s_ij) u_j / 2, u_j constant."""
    objective = PairwiseLikelihood(2, 2, 2, DPSH(quantisation=0)._edge)
    u = torch.tensor([[1.0, 0.5], [-0.5, 2.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(objective(u, ONE_HOT, IDS, 0.0), u)
    with torch.no_grad():
        expected = (torch.sigmoid(u @ u.T / 2) - torch.eye(2)) @ u / 2 / 4
    torch.testing.assert_close(gradient, expected)


def test_dpsh_counts_multi_label_images_that_share_any_label_as_similar():
    labels = torch.tensor([[True, True], [False, True]])
    objective = PairwiseLikelihood(2, 2, 2, DPSH(quantisation=0)._edge)
    loss = objective(torch.tensor([[1.0, 1.0], [1.0, 1.0]]), labels, IDS, 0.0)
    assert float(loss) == pytest.approx(softplus(1) - 1, abs=1e-6)


def test_dpsh_starts_an_empty_memory_for_another_training_set():
    objective, _ = dpsh_after_one_batch()
    fresh = objective.reset_for(7)
    assert fresh.codes.shape == (7, 2)
    assert not fresh.codes.any()
    assert not fresh.labels.any()
    assert objective.codes.any()
    batch = (torch.tensor([[0.5, 0.5]]), ONE_HOT[:1], torch.tensor([0]), 0.0)
    expected = PairwiseLikelihood(2, 2, 7, DPSH()._edge)(*batch)
    assert float(fresh(*batch)) == float(expected)


def test_dpsh_takes_its_memory_from_the_training_set():
    objective = DPSH(quantisation=0.3).objective(bits=4, classes=3, train_size=9, rng=Rng("o"))
    assert objective.codes.shape == (9, 4)
    assert objective.labels.shape == (9, 3)


def objective_of(method: CibaPairwise | DCH, bits: int):
    return method.objective(bits=bits, classes=3, train_size=9, rng=Rng("o"))


LABELS = torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]], dtype=torch.bool)  # 0 and 3 share two labels
LOGITS = [[0.3, -1.2], [0.9, 0.1], [-0.4, -0.6], [2.0, 0.5]]


@pytest.mark.parametrize(("divide", "divisor"), [("batch", 4), ("bits", 2)])
def test_ciba_pairwise_by_hand(divide, divisor):
    """All ordered pairs, an image with itself included; the similarity counts shared labels."""
    codes = [[tanh(x) for x in row] for row in LOGITS]
    shared = (LABELS.int() @ LABELS.int().T).tolist()
    assert shared[0][3] == 2
    pairs = [
        (sum(a * b for a, b in zip(codes[i], codes[j], strict=True)) / divisor - (2 * shared[i][j] - 1)) ** 2
        for i in range(4)
        for j in range(4)
    ]
    edge = sum((1 - abs(x)) ** 2 for row in codes for x in row)
    method = CibaPairwise(divide=divide, quantisation=0.25)
    loss = objective_of(method, 2)(torch.tensor(LOGITS), LABELS, torch.arange(4), 0.0)
    assert float(loss) == pytest.approx(sum(pairs) / 16 + 0.25 * edge, rel=1e-5)


def test_ciba_pairwise_at_its_best_for_codes_of_two_opposite_classes():
    """Divided by the bits, saturated codes u and -u meet every aim exactly; divided by a batch of 2 they overshoot."""
    logits = torch.tensor([[20.0] * 8, [-20.0] * 8])
    assert float(objective_of(CibaPairwise(divide="bits"), 8)(logits, ONE_HOT, IDS, 0.0)) == pytest.approx(0, abs=1e-9)
    assert float(objective_of(CibaPairwise(), 8)(logits, ONE_HOT, IDS, 0.0)) == pytest.approx(9, abs=1e-6)


def test_dch_by_hand():
    """Cauchy: similar pairs cost log(1 + d/g), others log(1 + g/d); each kind weighs as much as the other."""
    gamma, bits = 5.0, 2

    def distance(a: list[float], b: list[float]) -> float:
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        cosine = dot / (sum(x * x for x in a) * sum(y * y for y in b)) ** 0.5
        return bits / 2 * (1 - min(cosine, 0.99))

    similar = [[bool((LABELS[i] & LABELS[j]).any()) for j in range(4)] for i in range(4)]
    count = sum(map(sum, similar))
    assert count == 10
    total = 0.0
    for i in range(4):
        for j in range(4):
            d = distance(LOGITS[i], LOGITS[j])
            total += 16 / count * log(1 + d / gamma) if similar[i][j] else 16 / (16 - count) * log(1 + gamma / d)
    edge = [log(1 + distance([abs(x) for x in row], [1.0, 1.0]) / gamma) for row in LOGITS]
    loss = objective_of(DCH(gamma=gamma, quantisation=0.5), bits)(torch.tensor(LOGITS), LABELS, torch.arange(4), 0.0)
    assert float(loss) == pytest.approx(total / 16 + 0.5 * sum(edge) / 4, rel=1e-5)


@pytest.mark.parametrize("same", [True, False])
def test_dch_of_a_batch_with_one_kind_of_pairs_is_finite(same):
    labels = torch.tensor([[True, False, False]]).expand(4, 3) if same else torch.eye(4, 3, dtype=torch.bool)
    logits = torch.zeros(4, 8, requires_grad=True)
    loss = objective_of(DCH(), 8)(logits, labels, torch.arange(4), 0.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_dhn_differs_from_dpsh_by_log_cosh():
    logits, labels = torch.tensor([[0.3, -1.5], [-2.0, 0.0]]), ONE_HOT
    plain = DPSH(quantisation=0).objective(bits=2, classes=2, train_size=2, rng=Rng("o"))(logits, labels, IDS, 0.0)
    edge = sum(log(cosh(abs(z) - 1)) for z in logits.flatten().tolist()) / 4
    loss = DHN(quantisation=0.5).objective(bits=2, classes=2, train_size=2, rng=Rng("o"))(logits, labels, IDS, 0.0)
    assert float(loss) == pytest.approx(float(plain) + 0.5 * edge, abs=1e-6)
    far = DHN(quantisation=1.0)._edge(torch.tensor([[1000.0]]))
    assert float(far) == pytest.approx(999 - log(2), rel=1e-6)  # cosh itself would overflow


def test_rarity_weighs_each_kind_of_pair_alike():
    similar = torch.tensor([[True, False, False], [False, True, False], [False, False, True]])
    weights = rarity(similar)
    assert weights[similar].tolist() == [3] * 3
    assert weights[~similar].tolist() == pytest.approx([1.5] * 6)
    for one_kind in (torch.ones(2, 2, dtype=torch.bool), torch.zeros(2, 2, dtype=torch.bool)):
        assert rarity(one_kind).tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize(("progress", "steps"), [(0.0, 1), (0.1333, 1), (20 / 150, 2), (0.4, 4), (0.999, 8), (1.0, 8)])
def test_hashnet_sharpens_in_steps(progress, steps):
    z = 0.37
    assert float(HashNet().relax(torch.tensor([[z]]), progress)) == pytest.approx(tanh(sqrt(steps) * z), abs=1e-6)


def test_hashnet_begins_no_step_at_the_very_end():
    assert float(HashNet(stretch=0.5).relax(torch.tensor([[0.2]]))) == pytest.approx(tanh(sqrt(2) * 0.2), abs=1e-6)


def test_hashnet_by_hand():
    """Ordered pairs of a batch of three, two of which share a label: 5 of 9 similar."""
    logits = [[0.5, -1.0], [0.2, 0.4], [-1.5, 0.1]]
    labels = torch.tensor([[1, 0], [1, 1], [0, 1]], dtype=torch.bool)
    similar = [[1, 1, 0], [1, 1, 1], [0, 1, 1]]
    h = [[tanh(sqrt(2) * z) for z in row] for row in logits]
    total = 0.0
    for i in range(3):
        for j in range(3):
            theta = 0.1 * sum(a * b for a, b in zip(h[i], h[j], strict=True))
            weight = 9 / 7 if similar[i][j] else 9 / 2
            total += weight * (softplus(theta) - similar[i][j] * theta)
    loss = HashNet().objective(bits=2, classes=2, train_size=3, rng=Rng("o"))(
        torch.tensor(logits), labels, torch.arange(3), 0.2
    )
    assert float(loss) == pytest.approx(total / 9, abs=1e-6)


def test_targets_are_spread_over_labels():
    scores = torch.tensor([[1.0, 2.0, 0.0]])
    total = log(exp(1) + exp(2) + 1)
    for labels, expected in (([1, 0, 0], total - 1), ([1, 1, 0], total - 1.5), ([0, 0, 0], 0)):
        found = shared_cross_entropy(scores, torch.tensor([labels], dtype=torch.bool))
        assert float(found) == pytest.approx(expected, abs=1e-6)


def greedy() -> Greedy:
    objective = GreedyHash().objective(bits=2, classes=3, train_size=4, rng=Rng("o"))
    assert isinstance(objective, Greedy)
    with torch.no_grad():
        objective.classifier.weight.copy_(torch.tensor([[1.0, 0.5], [-1.0, 2.0], [0.0, 0.0]]))
    return objective


def test_greedyhash_by_hand():
    """Signs of (0.2, -3) are (1, -1), of (0, 0.5) are (-1, 1): sign(0) is -1."""
    logits, labels = torch.tensor([[0.2, -3.0], [0.0, 0.5]]), torch.eye(3, dtype=torch.bool)[:2]
    first, second = [0.5, -3.0, 0.0], [-0.5, 3.0, 0.0]
    entropy = log(sum(map(exp, first))) - first[0] + log(sum(map(exp, second))) - second[1]
    edge = (0.8**3 + 2**3 + 1 + 0.5**3) / 4
    assert float(greedy()(logits, labels, IDS, 0.0).detach()) == pytest.approx(entropy / 2 + 0.1 * edge, abs=1e-6)


def test_greedyhash_passes_the_gradient_of_the_signs_to_the_logits():
    objective, labels = greedy(), torch.eye(3, dtype=torch.bool)[:1]
    objective._quantisation = 0.0
    logits = torch.tensor([[0.2, -3.0]], requires_grad=True)
    objective(logits, labels, IDS[:1], 0.0).backward()
    signs = torch.tensor([[1.0, -1.0]], requires_grad=True)
    shared_cross_entropy(objective.classifier(signs), labels).backward()
    assert logits.grad is not None
    assert signs.grad is not None
    torch.testing.assert_close(logits.grad, signs.grad)
    assert objective.classifier.weight.grad is not None  # the classifier learns too


def test_orthohash_by_hand():
    objective = CosineLoss(torch.tensor([[1.0, 1], [1, -1], [-1, 1]]), 8.0, 0.2)
    v = [3.0, 4.0]
    cosine = [7 / 5 / sqrt(2), -1 / 5 / sqrt(2), 1 / 5 / sqrt(2)]
    scores = [8 * (c - (0.2 if k == 0 else 0)) for k, c in enumerate(cosine)]
    expected = log(sum(map(exp, scores))) - scores[0]
    loss = objective(torch.tensor([v]), torch.tensor([[True, False, False]]), IDS[:1], 0.0)
    assert float(loss) == pytest.approx(expected, abs=1e-5)
    both = [8 * (c - (0.2 if k < 2 else 0)) for k, c in enumerate(cosine)]
    expected = log(sum(map(exp, both))) - (both[0] + both[1]) / 2
    loss = objective(torch.tensor([v]), torch.tensor([[True, True, False]]), IDS[:1], 0.0)
    assert float(loss) == pytest.approx(expected, abs=1e-5)


def test_orthohash_draws_fair_bits_and_normalises_its_logits():
    objective = OrthoHash().objective(bits=64, classes=50, train_size=5, rng=Rng("o"))
    assert isinstance(objective, CosineLoss)
    assert set(objective.codebook.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(objective.codebook.mean())) < 0.06
    head = OrthoHash().head(5, 4)
    out = head(torch.randn(50, 5, generator=torch.Generator().manual_seed(0)))
    assert out.mean(0).abs().max() < 1e-5
