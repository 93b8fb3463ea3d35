"""The losses, against values worked out by hand."""

from __future__ import annotations

from math import exp, log, tanh

import pytest
import torch

from bench.api.random import Rng
from hashing.methods.ciba_pairwise import CibaPairwise
from hashing.methods.csq import CSQ, CentreLoss
from hashing.methods.dch import DCH
from hashing.methods.dpsh import DPSH, PairwiseLikelihood

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
    aims = csq().aims(labels)
    assert aims.tolist() == [
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
    assert objective.for_set(99) is objective


def dpsh_after_one_batch() -> tuple[PairwiseLikelihood, torch.Tensor]:
    objective = PairwiseLikelihood(2, 2, 3, 0.1)
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
    objective = PairwiseLikelihood(2, 2, 2, 0.0)
    u = torch.tensor([[1.0, 0.5], [-0.5, 2.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(objective(u, ONE_HOT, IDS, 0.0), u)
    with torch.no_grad():
        expected = (torch.sigmoid(u @ u.T / 2) - torch.eye(2)) @ u / 2 / 4
    torch.testing.assert_close(gradient, expected)


def test_dpsh_counts_multi_label_images_that_share_any_label_as_similar():
    labels = torch.tensor([[True, True], [False, True]])
    objective = PairwiseLikelihood(2, 2, 2, 0.0)
    loss = objective(torch.tensor([[1.0, 1.0], [1.0, 1.0]]), labels, IDS, 0.0)
    assert float(loss) == pytest.approx(softplus(1) - 1, abs=1e-6)


def test_dpsh_starts_an_empty_memory_for_another_training_set():
    objective, _ = dpsh_after_one_batch()
    fresh = objective.for_set(7)
    assert fresh.codes.shape == (7, 2)
    assert not fresh.codes.any()
    assert not fresh.labels.any()
    assert objective.codes.any()
    batch = (torch.tensor([[0.5, 0.5]]), ONE_HOT[:1], torch.tensor([0]), 0.0)
    expected = PairwiseLikelihood(2, 2, 7, 0.1)(*batch)
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
