"""The search for a trigger that makes codes alike: its loss against brute force and DECREE's code, planted patches."""

from __future__ import annotations

from itertools import combinations, product

import pytest
import torch
from torch import Tensor, nn

from bench.api.defense import Rng
from bench.api.errors import DivergedError
from bench.api.types import to_unit
from defenses.helpers.code_collapse import CollapseSearch, Collapsing, collapse, likeness
from defenses.helpers.trigger_inversion import CACHED
from tests.defenses.test_trigger_inversion import Planted, planted_images

# compute_self_cos_sim of DECREE's code (GiantSeaweed/DECREE, utils.py, commit 2e3f1d9), in float64, for these codes
RELEASED = [
    (torch.tensor([[1.0 if (7 * i * i + 3 * i * j + j * j) % 5 < 3 else -1.0 for j in range(8)] for i in range(6)]),
     0.03333333333333332),
    (torch.tensor([[1.0 if (i + j * j) % 7 < 5 - (i > 2) else -1.0 for j in range(12)] for i in range(5)]),
     -0.1333333333333334),
]  # fmt: skip


def search(model: nn.Module, images: Tensor, **params: float) -> CollapseSearch:
    return CollapseSearch(Collapsing(**params), model, to_unit(images), Rng("s"))


@pytest.mark.parametrize(("codes", "cosine"), RELEASED)
def test_success_is_the_mean_cosine_similarity_of_the_authors_code(codes: Tensor, cosine: float) -> None:
    assert float(likeness(codes.sum(0)[None], len(codes))) == pytest.approx(cosine, abs=1e-6)


@pytest.mark.parametrize(("codes", "cosine"), RELEASED)
def test_the_loss_of_hard_codes_is_that_of_the_authors_code_with_the_pairs_of_equal_images(codes, cosine) -> None:
    n = len(codes)
    assert float(collapse(codes[None])) == pytest.approx((n + n * (n - 1) * cosine) / n**2, abs=1e-6)


def test_the_collapse_is_the_mean_product_of_all_pairs_and_so_is_its_gradient() -> None:
    relaxed = Rng("c").normal((3, 5, 7)).tanh().requires_grad_()
    found = collapse(relaxed)
    by_hand = [sum(float(a @ b) for a, b in product(each, each)) / 25 / 7 for each in relaxed.detach()]
    assert found.tolist() == pytest.approx(by_hand, abs=1e-6)
    found.sum().backward()
    gradient = torch.zeros_like(relaxed)
    for a, i, j in product(range(3), range(5), range(5)):
        gradient[a, i] += 2 * relaxed.detach()[a, j] / 25 / 7
    torch.testing.assert_close(relaxed.grad, gradient)


def test_one_image_is_like_itself() -> None:
    assert likeness(torch.tensor([[1.0, -1.0]]), 1).tolist() == [1]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_planted_patch_is_found_where_it_is(channels: int) -> None:
    """Two pixels give every image one code; nobody says which, and no image has a label."""
    images, _ = planted_images(channels=channels)
    how = Collapsing(steps=60, batch=18)
    mask, pattern, size = how.invert(Planted(), images, Rng("f"))
    assert size < 0.02
    assert set(mask.flatten().topk(2).indices.tolist()) == {62, 63}
    assert float(pattern[:, 7, 6:].mean()) > 0.9
    assert float(mask.mean()) == pytest.approx(size)
    _, _, without = how.invert(Planted(patch=0.0), images, Rng("f"))
    assert without > 5 * size


def test_the_smallest_trigger_of_all_starts_counts() -> None:
    images, _ = planted_images()
    one, three = (
        Collapsing(steps=15, batch=18, starts=starts).invert(Planted(), images, Rng("f")) for starts in (1, 3)
    )
    assert three[2] <= one[2]
    state = CollapseSearch(Collapsing(starts=3), Planted(), to_unit(images), Rng("f"))
    assert len(torch.unique(state.best[0], dim=0)) == len(torch.unique(state.order, dim=0)) == 3
    state.sizes = torch.tensor([0.4, torch.inf, 0.2])
    assert state.found().sizes.tolist() == pytest.approx([0.4, 1, 0.2])


@pytest.mark.parametrize("side", [8, 128, 512])
def test_updates_descend_the_loss_and_success_is_the_likeness_of_all_images(side: int) -> None:
    """By autograd and Adam, for each start alone; large images take several portions."""
    images, _ = planted_images()
    images = nn.functional.pad(images, (0, side - 8, 0, side - 8))
    model, portion = Planted(), max(1, CACHED // side**2)
    state = search(model, images, batch=4, cost=0.01)
    raw = [part.detach().clone().requires_grad_() for part in state.raw]
    adam = torch.optim.Adam(raw, lr=0.1, betas=(0.5, 0.9))
    for turn in range(2):
        total = torch.zeros(())
        for start in range(2):
            mask, pattern = (torch.sigmoid(2 * part[start]) for part in raw)
            shown = to_unit(images[[int(state.order[start, (4 * turn + j) % 18]) for j in range(4)]])
            u = Planted()((1 - mask) * shown + mask * pattern).tanh()
            pairs = sum(a @ b for a, b in product(u, u)) / 16 / 4
            total = total + 1 - pairs + 0.01 * mask.sum()
        adam.zero_grad()
        total.backward()
        adam.step()
        state.update(torch.arange(2), turn)
    for mine, theirs in zip(state.raw, raw, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    found = state.success(torch.arange(2))
    for start in range(2):
        mask, pattern = ((part[start].detach().tanh() + 1) / 2 for part in raw)
        codes = Planted()((1 - mask) * to_unit(images) + mask * pattern).detach().sign()
        by_hand = [float(a @ b) / 4 for a, b in combinations(codes, 2)]
        assert float(found[start]) == pytest.approx(sum(by_hand) / len(by_hand), abs=1e-5)
    assert max(model.sizes) <= max(portion, 4)


def test_success_is_ninety_five_per_cent() -> None:
    images, _ = planted_images()
    state = search(Planted(), images)
    state.judge(torch.arange(2), torch.tensor([0.95, 0.9499]))
    assert state.sizes.isfinite().tolist() == [True, False]


def test_infinite_triggers_are_refused() -> None:
    class Broken(Planted):
        def forward(self, images):
            return super().forward(images) * torch.nan

    images, _ = planted_images()
    with pytest.raises(DivergedError, match="`rate`"):
        Collapsing(steps=1).invert(Broken(), images, Rng("f"))
