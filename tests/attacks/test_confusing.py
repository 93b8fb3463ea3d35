"""CIBA's objective against enumeration and autograd, and perturbations against a literal copy of the published loop."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attacks.helpers.confusing import STEP, dispersion, objective, offset_by, perturb, shift
from attacks.helpers.linf import levels
from bench.api.errors import DivergedError
from bench.api.random import Rng
from bench.api.types import to_8bit, to_unit

PAIRS = ("unordered", "ordered")
EPSILONS = (2 / 255, 0.032, 8 / 255)


def corners(m: int) -> torch.Tensor:
    """All codes of m images with one bit."""
    return torch.tensor(list(product([-1.0, 1.0], repeat=m)))[:, :, None]


def bound(m: int, bits: int, lam: float, pairs: str = "unordered") -> float:
    """The largest value of `objective` for m images (Theorem 1; for ordered pairs twice its first term)."""
    split = (m * m - m % 2) / ((2 if pairs == "ordered" else 4) * max(1, m * (m - 1)))
    return lam * bits * split + (1 - lam) * bits


def test_by_hand():
    codes = torch.tensor([[1.0, 1.0], [1.0, -1.0], [0.5, 0.0]])
    clean = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [0.5, -1.0]])
    assert shift(codes, clean).tolist() == [0.0, 2.0, 0.875]
    assert float(dispersion(codes, "ordered")) == pytest.approx((1 + 0.75 + 0.75) / 3)  # the mean distance of a pair
    assert float(dispersion(codes, "unordered")) == pytest.approx((1 + 0.75 + 0.75) / 6)
    assert float(objective(codes, clean, 0.8)) == pytest.approx(0.8 * 2.5 / 6 + 0.2 * 2.875 / 3)
    assert float(dispersion(codes[:1])) == 0


def test_the_printed_bound_fails_for_the_printed_pairs():
    """METHODOLOGY.md#ciba: two opposite codes of one bit; eq. (4) gives 1, Theorem 1 allows 1/2."""
    codes = torch.tensor([[1.0], [-1.0]])
    assert float(dispersion(codes, "ordered")) == 1 == bound(2, 1, 1.0, "ordered")
    assert float(dispersion(codes, "unordered")) == 0.5 == bound(2, 1, 1.0, "unordered")


@pytest.mark.parametrize("pairs", PAIRS)
@given(m=st.integers(2, 7), bits=st.integers(1, 9), lam=st.floats(0, 1), seed=st.integers(0, 99), sign=st.booleans())
def test_never_above_the_bound(pairs, m, bits, lam, seed, sign):
    codes, clean = 2 * Rng("bound", seed).uniform((2, m, bits)) - 1
    if sign:
        codes, clean = codes.sign(), clean.sign()
    assert float(objective(codes, clean, lam, pairs)) <= bound(m, bits, lam, pairs) + 1e-5


@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize("lam", [0.0, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("m", [1, 2, 3, 4, 5, 6])
def test_optimum_for_given_clean_codes(m, lam, pairs):
    """The optimum per bit against all codes; the bound is reached iff clean bits are balanced (METHODOLOGY.md#ciba)."""
    c = {"ordered": 2, "unordered": 1}[pairs]
    for clean in corners(m):
        best = max(float(objective(codes, clean, lam, pairs)) for codes in corners(m))
        p = int((clean > 0).sum())
        formula = max(
            lam * c * q * (m - q) / max(1, m * (m - 1)) + (1 - lam) * (2 * min(m - p, q) - q + p) / m
            for q in range(m + 1)
        )
        assert best == pytest.approx(formula, abs=1e-6)
        balanced = abs(2 * p - m) <= m % 2
        always = lam in {0.0, 1.0} or m == 1
        assert (best == pytest.approx(bound(m, 1, lam, pairs), abs=1e-6)) == (balanced or always)


def test_bits_add_up():
    codes, clean = (2 * Rng("bits").uniform((2, 5, 4)) - 1).unbind()
    parts = [float(objective(codes[:, [b]], clean[:, [b]], 0.8)) for b in range(4)]
    assert float(objective(codes, clean, 0.8)) == pytest.approx(sum(parts), abs=1e-6)
    assert bound(5, 4, 0.8) == pytest.approx(4 * bound(5, 1, 0.8))


@pytest.mark.parametrize(
    ("pairs", "lam", "kept"),
    [
        ("unordered", 0.8, 0.375),  # (2 lam - 1) / (2 lam)
        ("unordered", 0.6, 1 / 6),
        ("unordered", 0.5, 0.0),
        ("unordered", 0.3, 0.0),
        ("ordered", 0.8, 0.4375),  # (3 lam - 1) / (4 lam)
        ("ordered", 2 / 3, 0.375),
        ("ordered", 1 / 3, 0.0),
        ("ordered", 0.2, 0.0),
    ],
)
def test_collapsed_class(pairs, lam, kept):
    """Where all clean codes are equal, the optimum keeps a share of each bit: none at all for small lambda."""
    m = 400
    clean = torch.ones(m, 1)
    rows = torch.where(torch.arange(m)[None] < torch.arange(m + 1)[:, None], 1.0, -1.0)[:, :, None]
    values = torch.stack([objective(codes, clean, lam, pairs) for codes in rows])
    share = int(values.double().argmax()) / m
    assert share == pytest.approx(kept, abs=0.02)  # flat at the top, in float32
    best = rows[round(kept * m)]
    assert float(shift(best, clean).mean()) == pytest.approx(1 - kept, abs=2 / m)
    assert float(dispersion(best, "ordered")) == pytest.approx(2 * kept * (1 - kept), abs=2 / m)


@pytest.mark.parametrize(("ordered", "unordered"), [(0.8, 8 / 9), (2 / 3, 0.8), (0.0, 0.0), (1.0, 1.0)])
def test_ordered_pairs_are_unordered_ones_with_a_larger_lambda(ordered, unordered):
    codes, clean = (2 * Rng("pairs").uniform((2, 6, 5)) - 1).unbind()
    codes.requires_grad_()
    (one,) = torch.autograd.grad(objective(codes, clean, ordered, "ordered"), codes)
    (two,) = torch.autograd.grad(objective(codes, clean, unordered, "unordered"), codes)
    torch.testing.assert_close(one, (1 + ordered) * two)


@pytest.mark.parametrize("pairs", PAIRS)
def test_one_backward_is_each_images_gradient_with_the_others_detached(pairs):
    codes, clean = (2 * Rng("detached").uniform((2, 6, 5)) - 1).unbind()
    codes.requires_grad_()
    (together,) = torch.autograd.grad(objective(codes, clean, 0.8, pairs), codes)
    weight = {"ordered": 2, "unordered": 1}[pairs]
    for i in range(6):
        own = codes.detach()[i].clone().requires_grad_()
        others = torch.cat([codes.detach()[:i], codes.detach()[i + 1 :]])
        value = 0.8 * weight * ((5 - others @ own) / 2).sum() / 30 + 0.2 * (5 - own @ clean[i]) / 2 / 6
        (alone,) = torch.autograd.grad(value, own)
        torch.testing.assert_close(together[i], alone)


class Linear(torch.nn.Module):
    """Images [n 2 3 3] to 7 logits."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.weight = scale * Rng("linear").normal((18, 7))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images - 0.5).flatten(1) @ self.weight


def pictures(n: int) -> torch.Tensor:
    return to_unit(Rng("pictures").integers(256, (n, 2, 3, 3)).to(torch.uint8))


def as_published(model, images, lam, pairs, eps, iterations, step, batch) -> torch.Tensor:
    """Image after image, each against the codes at the start of the step; the loss of the released code."""
    weight = {"ordered": 2 * lam, "unordered": lam}[pairs]
    out = []
    for start in range(0, len(images), batch):
        x = images[start : start + batch]
        clean, now = model(x).tanh(), x.clone()
        for _ in range(iterations):
            snapshot, following = model(now).tanh(), now.clone()
            for i in range(len(x)):
                own = now[i : i + 1].clone().requires_grad_()
                code = model(own).tanh()[0]
                others = [snapshot[j] @ code / 7 for j in range(len(x)) if j != i]
                loss = -(1 - lam) * (code @ clean[i]) / 7
                loss = loss - weight * torch.stack(others).mean() if others else loss
                (gradient,) = torch.autograd.grad(loss, own)
                following[i] = torch.minimum(torch.maximum(own + step * gradient.sign(), x[i] - eps), x[i] + eps)[0]
            now = following.detach().clamp(0, 1)
        out.append(now)
    return torch.cat(out)


@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize("lam", [0.0, 0.8])
@pytest.mark.parametrize("n", [9, 10])  # the last batch has one image, or two
def test_perturb_is_the_published_loop(n, lam, pairs):
    model, images, eps = Linear(), pictures(n), 8 / 255
    found = perturb(
        model, images, lambda u, c: objective(u, c, lam, pairs), eps=eps, iterations=7, step=eps * STEP * 2, batch=4
    )
    expected = as_published(model, images, lam, pairs, eps, 7, eps * STEP * 2, 4)
    assert torch.equal(to_8bit(found), to_8bit(expected))
    assert not torch.equal(to_8bit(found), to_8bit(images))


@pytest.mark.parametrize("lam", [0.0, 0.8, 1.0])
def test_perturb_raises_the_objective_and_each_term_where_it_has_all_the_weight(lam):
    model, images = Linear(0.3), pictures(20)

    def value(x: torch.Tensor) -> float:
        return float(objective(model(x).tanh(), model(images).tanh(), lam))

    found = perturb(
        model, images, lambda u, c: objective(u, c, lam), eps=0.032, iterations=20, step=0.032 * STEP, batch=20
    )
    noise = offset_by(images, 0.032 * (2 * Rng("noise").uniform(images.shape) - 1), 0.032)
    assert value(found) > value(noise) > value(images) or lam == 1.0
    assert value(found) > value(images)
    assert value(found) > value(noise)


@pytest.mark.parametrize("eps", EPSILONS)
def test_stored_perturbations_stay_within_eps(eps):
    images = pictures(20)
    found = perturb(Linear(), images, objective_of(0.8), eps=eps, iterations=20, step=eps * STEP, batch=20)
    moved = (to_8bit(found).int() - to_8bit(images).int()).abs()
    assert int(moved.max()) == levels(eps)
    assert int(moved.max()) / 255 <= eps
    assert torch.equal(to_unit(to_8bit(found)), found)  # whole levels already


def objective_of(lam: float):
    return lambda codes, clean: objective(codes, clean, lam)


@given(
    pixel=st.integers(0, 255),
    offset=st.floats(-0.25, 0.25, width=32),
    eps=st.sampled_from(EPSILONS) | st.floats(1 / 255, 0.2),
)
def test_offsets_are_whole_and_within_eps(pixel, offset, eps):
    image = to_unit(torch.full((1, 1, 1, 1), pixel, dtype=torch.uint8))
    value = offset_by(image, torch.full((1, 1, 1, 1), offset), eps)
    after = int(to_8bit(value))
    assert float(value) * 255 == pytest.approx(after, abs=1e-4)
    assert abs(after - pixel) <= 255 * eps + 1e-3
    exact = min(max(pixel + min(max(255 * offset, -levels(eps)), levels(eps)), 0), 255)
    assert abs(after - exact) <= 0.5 + 1e-4


def test_a_saturated_surrogate_is_said_to_be_one():
    with pytest.raises(DivergedError, match="saturated"):
        perturb(Linear(1e4), pictures(4), objective_of(0.8), eps=0.1, iterations=2, step=0.1, batch=4)


def test_a_surrogate_without_finite_codes_is_said_to_be_one():
    with pytest.raises(DivergedError, match="finite"):
        perturb(Linear(float("nan")), pictures(4), objective_of(0.8), eps=0.1, iterations=2, step=0.1, batch=4)
