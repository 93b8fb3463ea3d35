"""WaNet: warps against SciPy, its noise mode, and cover images from the attack to the defender."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from attacks.helpers.triggers import identity_grid, warp
from attacks.wanet import WaNet
from bench.access.defender import poisoned_train
from bench.api.attack import Threat
from bench.api.errors import ThreatError
from bench.api.random import Rng
from bench.api.types import Poisoned, Target, to_8bit, to_unit
from bench.artifacts import stage_io
from bench.artifacts.outputs.attack import Implanted
from bench.conformance.attacks import attacker_view_for
from bench.stages.implant import check, poison_record

TARGET = Target(torch.tensor([True, False]), "a")


def pictures(n: int, *shape: int) -> torch.Tensor:
    return Rng("tests", "stamps", n, *shape).uniform((n, *shape))


def by_scipy(image: np.ndarray, grid: np.ndarray) -> np.ndarray:
    height, width = image.shape[1:]
    columns, rows = ((np.clip(grid[..., k], -1, 1) + 1) / 2 * (size - 1) for k, size in ((0, width), (1, height)))
    return np.stack([scipy.ndimage.map_coordinates(channel, [rows, columns], order=1) for channel in image])


@settings(deadline=None, max_examples=25)
@given(st.tuples(st.integers(1, 3), st.integers(2, 9), st.integers(2, 9)), st.floats(0, 0.6), st.integers(0, 9))
def test_a_warp_is_scipys_bilinear_sampling(shape, amount, seed):
    images = pictures(2, *shape)
    grids = identity_grid(*shape[1:]) + amount * (Rng("g", seed).uniform((2, *shape[1:], 2)) * 2 - 1)
    for warped, one, many in zip(warp(images, grids[:1]), images, warp(images, grids)[:1], strict=False):
        np.testing.assert_allclose(warped.numpy(), by_scipy(one.numpy(), grids[0].numpy()), atol=2e-6)
        torch.testing.assert_close(many, warped)
    np.testing.assert_allclose(warp(images, grids)[1].numpy(), by_scipy(images[1].numpy(), grids[1].numpy()), atol=2e-6)


def test_a_grid_that_points_one_pixel_to_the_right_moves_the_image_to_the_left():
    image = torch.arange(12.0).view(1, 1, 3, 4) / 11
    step = torch.tensor([2 / 3, 0.0])  # between centres, of which the outermost are at -1 and 1
    moved = warp(image, (identity_grid(3, 4) + step)[None])
    torch.testing.assert_close(moved[..., :3], image[..., 1:])
    torch.testing.assert_close(moved[..., 3], image[..., 3])  # clipped at the border


@pytest.mark.parametrize("shape", [(3, 12, 12), (1, 16, 16), (2, 8, 20)])
def test_wanets_field_is_the_normalised_control_grid(shape, world):
    attack = WaNet(strength=0.7, grid=3)
    view = attacker_view_for(world, attack)
    view = replace(view, setting=replace(view.setting, image_shape=shape))
    grid = attack.make_trigger(view, Rng("p"))["grid"]
    assert grid.shape == (*shape[1:], 2)
    assert grid.abs().max() <= 1
    _, height, width = shape
    flow = (grid - identity_grid(height, width)) * torch.tensor([width, height]) / 0.7
    offsets = Rng("p").uniform((1, 2, 3, 3)) * 2 - 1
    offsets = offsets / offsets.abs().mean()
    assert offsets.abs().mean() == pytest.approx(1, abs=1e-6)
    middle = (slice(1, -1), slice(1, -1))  # nothing is clipped there
    whole = functional.interpolate(offsets, (height, width), mode="bicubic", align_corners=True)[0].permute(1, 2, 0)
    torch.testing.assert_close(flow[middle], whole[middle], atol=1e-4, rtol=0)
    if (height - 1) % 2 == 0 and (width - 1) % 2 == 0:  # the middle control point is a pixel
        torch.testing.assert_close(flow[height // 2, width // 2], offsets[0, :, 1, 1], atol=1e-4, rtol=0)
    still = replace(attack, strength=1e-9)
    images = pictures(4, *shape)
    eight = to_8bit(images)
    assert torch.equal(to_8bit(still.apply_trigger(to_unit(eight), TARGET, still.make_trigger(view, Rng("p")))), eight)
    moved = attack.apply_trigger(images, TARGET, {"grid": grid})
    np.testing.assert_allclose(moved[1].numpy(), by_scipy(images[1].numpy(), grid.numpy()), atol=2e-6)


@pytest.mark.parametrize(("ratio", "rate", "cover"), [(2.0, 0.05, 12), (0.0, 0.05, 0), (0.5, 0.1, 6), (2.0, 0.6, 48)])
@pytest.mark.parametrize("labels", ["dirty", "clean"])
def test_wanets_noise_mode(world, ratio, rate, cover, labels):
    if labels == "clean" and rate > 0.25:
        pytest.skip("30 images are of the target's class")
    attack = WaNet(cross_ratio=ratio, poison_rate=rate, labels=labels)
    view = attacker_view_for(world, attack)
    trigger = attack.make_trigger(view, Rng("p"))
    poisoned = attack.poison(view, trigger, Rng("i"))
    train, after = view.train, poisoned.split
    assert int(poisoned.mask.sum()) == round(rate * 120)
    assert int(poisoned.cover.sum()) == cover
    assert not (poisoned.cover & poisoned.mask).any()
    assert torch.equal(after.labels[poisoned.cover], train.labels[poisoned.cover])
    check(train, poisoned, attack.threat())
    plain = replace(attack, cross_ratio=0.0).poison(view, trigger, Rng("i"))
    assert torch.equal(plain.mask, poisoned.mask)
    assert torch.equal(plain.split.images[poisoned.mask], after.images[poisoned.mask])
    originals = to_unit(train.images[poisoned.cover])
    if cover:
        triggered = to_8bit(attack.apply_trigger(originals, view.target, trigger))
        assert (triggered != after.images[poisoned.cover]).flatten(1).any(1).all()  # noise besides the trigger
        noise = Rng("i").child("noise").uniform((cover, 12, 12, 2)) * 2 - 1
        places = trigger["grid"].numpy() + noise.numpy() / 12
        for i in range(cover):
            by_hand = np.round(255 * by_scipy(originals[i].numpy(), places[i]))
            assert np.abs(by_hand - after.images[poisoned.cover][i].numpy()).max() <= 1
    assert torch.equal(attack.poison(view, trigger, Rng("i")).split.images, after.images)


# Cover: changed images that are no poison


def covered(world) -> tuple[Poisoned, Threat]:
    attack = WaNet(poison_rate=0.1)
    view = attacker_view_for(world, attack)
    return attack.poison(view, attack.make_trigger(view, Rng("p")), Rng("i")), attack.threat()


def test_check_lets_the_cover_change_images_and_nothing_else(world):
    poisoned, threat = covered(world)
    train = world.split("train")
    check(train, poisoned, threat)
    assert torch.equal(poisoned.changed, poisoned.mask | poisoned.cover)
    assert torch.equal(replace(poisoned, cover=None).changed, poisoned.mask)
    with pytest.raises(ThreatError, match=r"images.*cover"):
        check(train, replace(poisoned, cover=None), threat)
    labels = poisoned.split.labels.clone()
    labels[torch.nonzero(poisoned.cover)[0]] ^= True
    with pytest.raises(ThreatError, match="labels"):
        check(train, replace(poisoned, split=replace(poisoned.split, labels=labels)), threat)
    with pytest.raises(ThreatError, match="both"):
        check(train, replace(poisoned, cover=poisoned.changed), threat)
    object.__setattr__(poisoned, "cover", poisoned.cover[:-1])  # past the types that tests check
    with pytest.raises(ThreatError, match="reordered"):
        check(train, poisoned, threat)


def test_the_record_counts_poisons_alone_and_the_defender_sees_the_cover(world):
    poisoned, _ = covered(world)
    train = world.split("train")
    target = stage_io.target(world.spec["target"], ["anchor", "bell", "candle", "drum"])
    record = poison_record(train, poisoned, target)
    world.memory.put("implant", record)
    world.poison = Implanted("implant", world.memory)
    assert (world.poison.poisons, record.meta["covers"]) == (12, 24)
    assert world.poison.poison_amounts["poisoned_share"] == 0.1
    assert world.poison.poison_amounts["target_share"] == pytest.approx(12 / 42)
    assert torch.equal(world.poison.mask, poisoned.mask)
    assert len(world.poison.poison_images) == len(record.tensors["poison_stealth"]) == 12
    seen = poisoned_train(world.defender_inputs())
    assert torch.equal(seen.images, poisoned.split.images)
    assert torch.equal(seen.labels, poisoned.split.labels)
