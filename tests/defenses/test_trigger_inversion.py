"""The search for triggers: planted patches in hand-built models, its rules step by step, and the index by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bench.access.defender import defender_view
from bench.api.defense import Needs, Rng
from bench.api.errors import DivergedError
from bench.api.types import Split, to_unit
from defenses.helpers.trigger_inversion import (
    CACHED,
    Reversing,
    Search,
    anomaly,
    blended,
    class_anchors,
    reach,
)

CODES = torch.tensor([[1.0, 1.0, -1.0, -1.0], [-1.0, 1.0, 1.0, -1.0], [-1.0, -1.0, -1.0, 1.0]])


class Planted(nn.Module):
    """Linear: class c lights quadrant c of 8 x 8 images; two pixels in the last corner weigh a lot towards code 2."""

    def __init__(self, patch: float = 10.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(patch))
        self.sizes: list[int] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(images))
        grey = images.mean(1)
        light = [grey[:, a : a + 4, b : b + 4].mean((1, 2)) for a, b in ((0, 0), (0, 4), (4, 0))]
        light[2] = light[2] + self.weight * (grey[:, 7, 7] + grey[:, 7, 6])
        return 3 * torch.stack(light, 1) @ CODES


def planted_images(each: int = 6, channels: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    classes = torch.arange(3 * each) % 3
    images = 2 * Rng("planted").uniform((3 * each, channels, 8, 8))
    for i, c in enumerate(classes.tolist()):
        top, left = ((0, 0), (0, 4), (4, 0))[c]
        images[i, :, top : top + 4, left : left + 4] += 200
    return images.to(torch.uint8), torch.eye(3, dtype=torch.bool)[classes]


def reversing(**params) -> Reversing:
    return Reversing(**params)


def search(how=None, model=None, images=None, own=None, codes=CODES, rng=None) -> Search:
    default_images, default_own = planted_images()
    images = default_images if images is None else images
    own = default_own if own is None else own
    return Search(how or reversing(), model or Planted(), to_unit(images), own, codes, rng or Rng("s"))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_planted_patch_is_found_where_it_is(channels):
    images, own = planted_images(channels=channels)
    found = reversing(steps=20).reverse(Planted(), images, own, CODES, Rng("f"))
    assert float(found.sizes[2]) < 0.01
    assert float(found.sizes[:2].min()) > 0.2
    assert set(found.masks[2, 0].flatten().topk(2).indices.tolist()) == {62, 63}
    assert found.patterns[2, :, 7, 6:].mean(0).min() > 0.9
    without = reversing(steps=20).reverse(Planted(patch=0.0), images, own, CODES, Rng("f"))
    assert float(without.sizes.min()) > 0.2


def test_sizes_belong_to_masks_that_succeed():
    images, own = planted_images()
    found = reversing(steps=8).reverse(Planted(), images, own, CODES, Rng("f"))
    for c in range(3):
        if float(found.sizes[c]) < 1:
            assert float(found.sizes[c]) == pytest.approx(float(found.masks[c].mean()), abs=1e-6)
            logits = Planted()(found.apply_trigger(to_unit(images[~own[:, c]]), c))
            assert float(reach(logits, torch.full((len(logits),), c), CODES).mean()) >= 0.99
    assert (found.sizes < 1).any()


def test_where_nothing_succeeds_the_size_is_one_and_the_trigger_the_last():
    class Deaf(Planted):
        def forward(self, images):
            return super().forward(images) * 0 + CODES[0] + self.weight * 0

    images, own = planted_images()
    few = reversing(steps=3)
    found = few.reverse(Deaf(), images, own, CODES, Rng("f"))
    assert found.sizes.tolist() == [pytest.approx(float(found.masks[0].mean())), 1, 1]
    assert bool(((found.masks > 0) & (found.masks < 1)).all())
    start = search(few, Deaf(), rng=Rng("f")).best[0]
    assert not torch.equal(found.masks[1], start[1])


def test_a_code_that_has_every_image_already_is_not_searched_for():
    images, own = planted_images()
    own[:, 1] = True
    found = reversing(steps=3, patience=1).reverse(Planted(), images, own, CODES, Rng("f"))
    assert float(found.sizes[1]) == 1
    everything = torch.ones_like(own)
    assert reversing().reverse(Planted(), images, everything, CODES, Rng("f")).sizes.tolist() == [1, 1, 1]


def test_own_images_are_left_out_of_updates_and_of_the_success():
    class Seen(Planted):
        def forward(self, images):
            self.seen = images.detach()
            return super().forward(images)

    images = torch.arange(6).view(6, 1, 1, 1).expand(6, 1, 8, 8).to(torch.uint8) * 40
    own = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 1, 1], [1, 1, 0]], dtype=torch.bool)
    state = search(reversing(batch=4), Seen(), images, own)
    state.raw[0].data.fill_(-20)  # nothing of the pattern
    others = [{2, 3, 4}, {0, 1}, {0, 1, 2, 3, 5}]
    live = torch.arange(3)
    cycle = [[], [], []]
    for turn in range(5):
        state.update(live, turn)
        state.raw[0].data.fill_(-20)
        shown = (state.model.seen.reshape(3, 4, -1).mean(2) * 255 / 40).round().int().tolist()
        for c in range(3):
            cycle[c] += shown[c]
    for c in range(3):
        n = len(others[c])
        assert set(cycle[c][:n]) == others[c]
        assert cycle[c] == (cycle[c][:n] * 20)[:20]  # every image once before any comes twice
    state.success(live)
    assert len(state.model.seen) == 10


@pytest.mark.parametrize("side", [8, 128, 512])
def test_updates_descend_the_loss_and_successes_are_counted_in_portions_of_any_size(side):
    """Mean over the batch of (1 - u.a/K) / 2, plus l times the mean of the mask, per class; by autograd and Adam.

    Large images take several portions: a few codes at a time in an update, a few images at a time for the success.
    """
    images, own = planted_images()
    images = nn.functional.pad(images, (0, side - 8, 0, side - 8))
    model, portion = Planted(), max(1, CACHED // side**2)
    state = search(reversing(batch=4, cost=0.01), model, images, own)
    raw = [part.detach().clone().requires_grad_() for part in state.raw]
    adam = torch.optim.Adam(raw, lr=0.1, betas=(0.5, 0.9))
    for turn in range(2):
        total = torch.zeros(())
        for c in range(3):
            mask, pattern = (torch.sigmoid(2 * part[c]) for part in raw)
            pool = [i for i in state.order[c].tolist() if not own[i, c]]
            shown = to_unit(images[[pool[(4 * turn + j) % 12] for j in range(4)]])
            u = Planted()((1 - mask) * shown + mask * pattern).tanh()
            total = total + ((1 - u @ CODES[c] / 4) / 2).mean() + 0.01 * mask.sum()
        adam.zero_grad()
        total.backward()
        adam.step()
        state.update(torch.arange(3), turn)
    for mine, theirs in zip(state.raw, raw, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    assert max(model.sizes) <= max(portion, 4)
    model.sizes.clear()
    found = state.success(torch.arange(3))
    assert max(model.sizes) <= portion
    for c in range(3):
        mask, pattern = ((part[c].tanh() + 1) / 2 for part in raw)
        others = to_unit(images[~own[:, c]])
        logits = Planted()((1 - mask) * others + mask * pattern)
        assert float(found[c]) == pytest.approx(float(reach(logits, torch.full((12,), c), CODES).mean()))


def test_the_search_starts_at_the_mean_of_a_code_s_own_images():
    images, own = planted_images(channels=3)
    own[:, 1] = False
    masks, patterns = search(images=images, own=own).best
    assert masks.flatten().tolist() == pytest.approx([0.8808] * 192, abs=1e-4)
    mean = to_unit(images[own[:, 2]]).mean(0)
    torch.testing.assert_close(patterns[2], 0.05 + 0.9 * mean)
    torch.testing.assert_close(patterns[1], torch.full((3, 8, 8), 0.5))


def test_only_live_codes_are_worked_on():
    model = Planted()
    state = search(reversing(batch=5), model)
    before = state.weight.clone()
    state.update(torch.tensor([1]), 0)
    state.judge(torch.tensor([1]), torch.tensor([1.0]))
    assert model.sizes == [5]
    assert state.sizes.isfinite().tolist() == [False, True, False]
    assert torch.equal(state.weight, before)


def scripted(successes: list[bool], sizes: list[float], **params) -> tuple[Search, list[float], list[bool]]:
    """Weight and done after each judged step of code 0, with masks of the given sizes; code 1 does the opposite."""
    state = search(reversing(**params))
    weights, done = [], []
    for won, size in zip(successes, sizes, strict=True):
        state.raw[0].data.fill_(float(torch.tensor(2 * size - 1).atanh()))
        state.judge(torch.arange(3), torch.tensor([0.995 * won, 0.995 * (not won), 0.0]))
        weights.append(float(state.weight[0]) / 0.064)
        done.append(bool(state.done[0]))
    return state, weights, done


def test_the_weight_follows_successes_and_failures_in_a_row():
    wins = [True] * 7 + [False] * 5 + [True, False] * 3 + [True] * 5
    _, weights, _ = scripted(wins, [0.5] * len(wins))
    expected = [1] * 4 + [2] * 7 + [2 / 2**1.5] * (1 + 6 + 4) + [4 / 2**1.5]
    assert weights == pytest.approx(expected)


def test_success_is_ninety_nine_per_cent():
    state = search()
    state.judge(torch.arange(3), torch.tensor([0.99, 0.9899, 1.0]))
    assert state.sizes.isfinite().tolist() == [True, False, True]


def test_the_smallest_mask_with_success_is_kept():
    wins, sizes = [False, True, True, False, True], [0.1, 0.5, 0.3, 0.2, 0.4]
    state, _, _ = scripted(wins, sizes)
    found = state.found()
    assert found.sizes.tolist() == pytest.approx([0.3, 0.1, 1.0])
    assert found.masks.mean((1, 2, 3)).tolist() == pytest.approx([0.3, 0.1, 0.4])


def test_a_code_is_done_when_its_weight_went_both_ways_and_its_mask_stays():
    wins = [True] * 2 + [False] * 2 + [True] * 8
    sizes = [0.5, 0.5, 0.1, 0.1, 0.4, 0.399, 0.39, 0.389, 0.389, 0.389, 0.389, 0.389]
    _, _, done = scripted(wins, sizes, patience=2, early_stop=4)
    assert done.index(True) == 10  # .399 and .389 are no progress (99 %), .39 is
    _, _, done = scripted([True] * 12, [0.5] * 12, patience=2, early_stop=4)
    assert not any(done)  # the weight was never lowered


def test_search_ends_when_all_codes_are_done():
    """Each step shows 4 images per live code for the update, and 12 per live code for the success."""
    images, own = planted_images()
    model, sizes = Planted(), []
    model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))  # copies of the model keep it
    reversing(steps=2000, updates=1, batch=4, patience=1, early_stop=1).reverse(model, images, own, CODES, Rng("f"))
    live = [size // 4 for size in sizes[::2]]
    assert sizes[1::2] == [12 * codes for codes in live]
    assert live == sorted(live, reverse=True)
    assert (live[0], live[-1]) == (3, 1)
    assert len(live) < 2000


def test_the_model_is_neither_trained_nor_frozen():
    images, own = planted_images()
    model = Planted().train()
    reversing(steps=1).reverse(model, images, own, CODES, Rng("f"))
    assert model.training
    assert model.weight.requires_grad
    assert model.weight.grad is None


def test_infinite_triggers_are_refused():
    class Broken(Planted):
        def forward(self, images):
            return super().forward(images) * torch.nan

    images, own = planted_images()
    with pytest.raises(DivergedError, match="`rate`"):
        reversing(steps=1).reverse(Broken(), images, own, CODES, Rng("f"))


def test_equally_near_anchors_share_a_success():
    codes = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0]])
    logits = torch.tensor([[2.0, 1.0], [2.0, 1.0], [-1.0, -1.0], [-1.0, -1.0], [0.0, 3.0]])
    assert reach(logits, torch.tensor([0, 1, 1, 0, 1]), codes).tolist() == [1, 0, 0.5, 0, 1]  # a logit of 0 is -1


def test_blending_by_hand():
    images = torch.full((2, 3, 1, 2), 0.2)
    masks, patterns = torch.tensor([[[[0.0, 0.5]]]]), torch.tensor([0.4, 0.6, 1.0]).view(1, 3, 1, 1).expand(1, 3, 1, 2)
    out = blended(images, masks, patterns)
    assert out[1, :, 0, 0].tolist() == pytest.approx([0.2] * 3)
    assert out[1, :, 0, 1].tolist() == pytest.approx([0.3, 0.4, 0.6])


def test_index_by_hand():
    index, median, deviation = anomaly(torch.tensor([0.10, 0.02, 0.12, 0.08]))
    assert (median, deviation) == (pytest.approx(0.09), pytest.approx(0.02))  # deviations .01 .07 .03 .01
    assert index.tolist() == pytest.approx([0, 0.07 / (1.4826 * 0.02), 0, 0.01 / (1.4826 * 0.02)], rel=1e-5)


@pytest.mark.parametrize("sizes", [[0.3], [0.5, 0.5, 0.5, 0.01], [1.0] * 6])
def test_without_spread_nothing_is_an_outlier(sizes):
    index, median, deviation = anomaly(torch.tensor(sizes))
    assert index.tolist() == [0.0] * len(sizes)
    assert (median, deviation) == (pytest.approx(sizes[0]), 0)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 1000), min_size=2, max_size=30))
def test_the_index_is_largest_where_the_size_is_smallest_and_scales_away(sizes):
    index, _, _ = anomaly(torch.tensor(sizes).float() / 1000)
    assert bool((index >= 0).all())
    assert float(index.max()) == float(index[sizes.index(min(sizes))])
    other, _, _ = anomaly(torch.tensor(sizes).float() / 250)
    torch.testing.assert_close(index, other, rtol=1e-4, atol=1e-4)


class Table(nn.Module):
    """Image i is filled with the number i and has row i of the table as its logits."""

    def __init__(self, logits: list[list[float]]) -> None:
        super().__init__()
        self.register_buffer("logits", torch.tensor(logits))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits[(images[:, 0, 0, 0] * 255).round().long()]


def numbered(labels: list[list[int]]) -> Split:
    n = len(labels)
    images = torch.arange(n).view(n, 1, 1, 1).to(torch.uint8).expand(n, 1, 2, 2).clone()
    return Split(images, torch.tensor(labels, dtype=torch.bool), torch.arange(n))


def test_anchors_merge_leave_out_and_keep_the_order_of_classes():
    """Class 0 has no image, 1 and 4 agree, 3 has one image with a label of its own and one without."""
    labels = [[0, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 1, 1, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]]
    logits = [[1.0, 1.0], [-1.0, 1.0], [-2.0, -1.0], [1.0, 1.0], [1.0, 1.0], [3.0, 0.1]]
    anchors = class_anchors(Table(logits), numbered(labels))
    assert anchors.codes.tolist() == [[1, 1], [-1, 1], [-1, -1]]
    assert anchors.classes.int().tolist() == [[0, 1, 0, 0, 1], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0]]


def test_anchors_of_labels_that_never_stand_alone_come_from_all_images_with_them():
    anchors = class_anchors(Table([[1.0, -1.0], [2.0, -1.0], [-1.0, -1.0]]), numbered([[1, 1], [1, 1], [0, 1]]))
    assert anchors.codes.tolist() == [[1, -1], [-1, -1]]
    assert anchors.classes.tolist() == [[True, False], [False, True]]


def test_the_trusted_set_is_both_halves(world):
    whole = numbered([[1], [0], [1]])
    view = defender_view(world.spec, world.defender_inputs(), world.context, Needs.NONE)
    halves = {"fit_set": whole.select(torch.tensor([2])), "calibration_set": whole.select(torch.tensor([0, 1]))}
    both = replace(view, **halves).trusted_set
    assert both.ids.tolist() == [2, 0, 1]
    assert both.images[:, 0, 0, 0].tolist() == [2, 0, 1]
    assert both.labels[:, 0].tolist() == [True, True, False]
