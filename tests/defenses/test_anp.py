"""Adversarial neuron pruning: the min-max game of masks and noise, and how much is pruned."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bench.api import registry
from bench.api.errors import DivergedError, UserError
from bench.api.random import Rng
from bench.api.types import to_unit
from defenses.anp import ANP
from defenses.helpers.masks import MaskedLoss, without_channels
from tests.defenses.conftest import calibration_map, norms_of, read_features, state

WIDTHS = (4, 8, 16, 16)


class Game(MaskedLoss):
    """A loss with a known course, in place of a network's."""

    def __init__(self, value):
        self.value, self.batches = value, []
        self.channels, self.images, self.device = 3, 5, torch.device("cpu")

    def __call__(self, masks, noise, ids, progress):
        self.batches.append((ids.tolist(), progress))
        return self.value(masks, noise)


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        (5.0, [1.0, 0.96, 0.884]),  # gradient 0.2 * 5 - 0.8 = 0.2; momentum: 0.2, then 0.38; rate 0.2
        (3.0, [1.0, 1.0, 1.0]),  # gradient -0.2: clipped at 1
        (504.0, [1.0, 0.0, 0.0]),  # gradient 100: clipped at 0
    ],
)
def test_masks_descend_on_the_weighted_loss_with_momentum_and_stay_in_the_unit_interval(weight, expected):
    game = Game(lambda m, noise: weight * m.sum() if noise is None else noise.sum() - m.sum())
    for steps, value in enumerate(expected):
        masks = ANP(steps=steps).train_masks(game, Rng("d"))
        assert masks.tolist() == pytest.approx([value] * 3, abs=1e-6)


def test_batches_are_without_repetition_and_progress_runs_from_zero():
    game = Game(lambda m, noise: m.sum() + (0 if noise is None else noise.sum()))
    ANP(steps=4, batch=3).train_masks(game, Rng("d"))
    assert [progress for _, progress in game.batches[::3]] == [0, 0.25, 0.5, 0.75]
    assert all(len(set(ids)) == 3 for ids, _ in game.batches)
    assert len({tuple(ids) for ids, _ in game.batches}) > 1
    game.batches.clear()
    ANP(steps=1).train_masks(game, Rng("d"))
    assert all(sorted(ids) == [0, 1, 2, 3, 4] for ids, _ in game.batches)


@pytest.mark.parametrize("ascents", [1, 3, 20])
@pytest.mark.parametrize("eps", [0.0, 0.1, 0.4])
def test_noise_ascends_within_its_bounds(ascents, eps):
    slope = torch.tensor([[1.0, -2.0, 3.0], [-1.0, 0.5, -0.1]])
    game, rng = Game(lambda m, noise: (noise * slope).sum()), Rng("noise", ascents)
    noise = ANP(eps=eps, ascents=ascents).worst_noise(game, torch.ones(3), torch.arange(5), 0.0, rng)
    start = eps * (2 * Rng("noise", ascents).uniform((2, 3)) - 1)
    torch.testing.assert_close(noise, (start + eps * slope.sign()).clamp(-eps, eps))
    assert bool((noise.abs() <= torch.tensor(eps)).all())


def test_a_loss_that_is_not_finite_is_told():
    with pytest.raises(DivergedError, match="lower"):
        ANP(steps=2).train_masks(
            Game(lambda m, noise: (m.sum() + (0 if noise is None else noise.sum())) * float("nan")), Rng("d")
        )


def plant(view, channel: int) -> None:
    """A channel of the last block that is just silent on clean images, and would flip bits as soon as it is heard."""
    block, head = view.model.backbone.blocks[3], view.model.head
    seen = []
    handle = block[1].register_forward_hook(lambda m, i, o: seen.append(o.detach().clone()))
    with torch.no_grad():
        view.model(to_unit(view.fit_set.images))
        handle.remove()
        norm = block[1]
        raw = (seen[0][:, channel] - norm.bias[channel]) / norm.weight[channel]
        norm.weight[channel] = 3.0
        norm.bias[channel] = -3.0 * raw.max().clamp_min(0.1)
        head.weight[:, channel] = 20 * torch.where(torch.arange(16) % 2 == 0, 1.0, -1.0)


@pytest.mark.parametrize("channel", [2, 11])
def test_a_planted_channel_gets_the_smallest_mask_of_its_block_and_is_pruned_first(view, channel):
    plant(view, channel)
    view = replace(view, recipe=replace(view.recipe, batch_norm="eval"))
    masks = ANP(steps=40).train_masks(MaskedLoss(view), Rng("d"))[28:]
    assert int(masks.argmin()) == channel
    assert float(masks[channel]) < 0.2 < float(masks.sort().values[1])
    calm = ANP(steps=40, eps=0.0).train_masks(MaskedLoss(view), Rng("d"))[28:]
    assert float(calm[channel]) > 0.9  # without perturbations nothing gives it away
    repaired = ANP(steps=40, threshold=0.2).repair(view, Rng("d"))
    assert torch.nonzero(norms_of(repaired)[3].weight == 0).flatten().tolist() == [channel]


THRESHOLDS = [0.05 * i for i in range(1, 19)]


def qualities(view, masks: Tensor) -> list[float]:
    """Calibration mAP after pruning at each threshold, as a share of the mAP before."""
    before = calibration_map(view.model, view.calibration_set)
    after = [calibration_map(without_channels(view.model, masks < t), view.calibration_set) for t in THRESHOLDS]
    return [value / before for value in after]


@pytest.mark.parametrize("max_drop", [0.0, 0.05, 0.1, 0.3, 0.6, 1.0])
def test_pruning_ends_before_the_first_loss(view, max_drop):
    """By trying them all, on masks of the last block."""
    masks, before = torch.ones(44), state(view.model)
    masks[28:] = torch.linspace(0.01, 0.99, 16)
    found = ANP(max_drop=max_drop).largest_threshold(view, masks)
    fine = [quality >= 1 - max_drop for quality in qualities(view, masks)]
    kept = fine.index(False) if False in fine else len(fine)
    assert found == pytest.approx(THRESHOLDS[kept - 1] if kept else 0)
    assert all(torch.equal(before[key], value) for key, value in state(view.model).items())


def test_pruning_does_not_go_on_after_a_loss_though_quality_returns(view):
    read_features(view.model, view.fit_set, useful=0, opposed=(1, 2))
    masks = torch.ones(44)
    masks[29], masks[30] = 0.22, 0.62  # the two channels cancel out where both are pruned, or none is
    good = [quality >= 0.96 for quality in qualities(view, masks)]
    assert good == [threshold <= 0.22 or threshold > 0.62 for threshold in THRESHOLDS]
    assert ANP().largest_threshold(view, masks) == pytest.approx(0.2)


def test_repair_prunes_what_its_threshold_says(view):
    masks = ANP(steps=10).train_masks(MaskedLoss(view), Rng("d"))
    threshold = ANP().largest_threshold(view, masks)
    repaired = ANP(steps=10).repair(view, Rng("d"))
    assert torch.equal(torch.cat([norm.weight == 0 for norm in norms_of(repaired)]), masks < threshold)
    assert view.notes["threshold"] == threshold


def test_thresholds_are_strict_and_nothing_is_pruned_where_nothing_is_masked(view):
    before = state(view.model)
    for params in ({"threshold": 0.0, "steps": 2}, {"threshold": 1.0, "steps": 0}, {"steps": 0}):
        after = state(ANP(**params).repair(view, Rng("d")))
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_memory_of_codes_survives_two_losses_in_a_step_and_is_not_the_cases(view):
    objective = registry.create("methods", "dpsh", {}).objective(bits=16, classes=4, train_size=120, rng=Rng("o"))
    view = replace(view, objective=objective)
    masks = ANP(steps=3, batch=8).train_masks(MaskedLoss(view), Rng("d"))
    assert bool(torch.isfinite(masks).all())
    assert not bool(objective.codes.any())


def test_networks_without_batch_norms_are_named_as_unsupported_and_refused(view):
    csq = registry.create("methods", "csq", {})
    batch, group = (registry.create("backbones", "convnet", {"norm": norm}) for norm in ("batch", "group"))
    assert ANP().unsupported_reason(batch, csq) == ""
    assert "norms" in ANP().unsupported_reason(group, csq)
    view.model.backbone.frozen = 4
    with pytest.raises(UserError, match="anp") as error:
        ANP().repair(view, Rng("d"))
    assert "\n" not in str(error.value)
