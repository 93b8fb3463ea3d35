"""Sine waves, warps and reflections against NumPy and SciPy; cover images from the attack to the defender."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from attacks._proxy_data import fit_to
from attacks._reflections import GAMMA, blurred, ghosted, reflect, vignette
from attacks._triggers import add, identity_grid, sinusoid, warp
from attacks.reflection import Reflection, choice
from attacks.sig import Sig
from attacks.wanet import WaNet
from bench.access.attacker import attacker_view
from bench.access.defender import poisoned_train
from bench.api.attack import DataSpec, PoisoningAttack, Threat
from bench.api.errors import ThreatError
from bench.api.random import Rng
from bench.api.types import Poisoned, Target, to_8bit, to_unit
from bench.artifacts import stage_io
from bench.artifacts.outputs.attack import Implanted
from bench.stages.implant import check, poison_record

TARGET = Target(torch.tensor([True, False]), "a")


def pictures(n: int, *shape: int) -> torch.Tensor:
    return Rng("tests", "stamps", n, *shape).uniform((n, *shape))


def seen_by(world, attack: PoisoningAttack):
    return attacker_view(world.spec, world.attacker_inputs(attack), world.context, attack.threat())


# SIG


@pytest.mark.parametrize(("width", "frequency", "used"), [(32, 6.0, 6), (16, 6.0, 6), (13, 6.0, 6), (12, 6.0, 5)])
def test_sig_adds_the_papers_sine_wave(width, frequency, used, world):
    attack = Sig(frequency=frequency)
    view = seen_by(world, attack)
    view = replace(view, setting=replace(view.setting, image_shape=(2, 4, width)))
    images = pictures(3, 2, 4, width)
    triggered = attack.apply_trigger(images, TARGET, attack.make_trigger(view, Rng("p")))
    wave = np.array([40 / 255 * np.sin(2 * np.pi * j * used / width) for j in range(width)])
    assert abs(wave).max() > 0.13  # no alias to nothing
    np.testing.assert_allclose(triggered.numpy(), np.clip(images.numpy() + wave, 0, 1), atol=1e-6)


def test_sig_by_hand():
    """A quarter of a period per column."""
    signal = sinusoid(0.2, 1.0, (1, 2, 4))
    torch.testing.assert_close(signal, torch.tensor([[[0, 0.2, 0, -0.2]] * 2]), rtol=0, atol=1e-7)
    triggered = add(torch.tensor([[[[0.5, 0.5, 0.5, 0.5], [0.0, 0.9, 1.0, 0.1]]]]), signal)
    torch.testing.assert_close(triggered, torch.tensor([[[[0.5, 0.7, 0.5, 0.3], [0.0, 1.0, 1.0, 0.0]]]]))
    assert Sig().labels == "clean"
    assert Threat.LABELS not in Sig().threat()


# WaNet


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
    view = seen_by(world, attack)
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
    view = seen_by(world, attack)
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
    view = seen_by(world, attack)
    return attack.poison(view, attack.make_trigger(view, Rng("p")), Rng("i")), attack.threat()


def test_check_lets_the_cover_change_images_and_nothing_else(world):
    poisoned, threat = covered(world)
    train = world.split("train")
    check(train, poisoned, threat)
    assert torch.equal(poisoned.changed, poisoned.mask | poisoned.cover)
    assert torch.equal(replace(poisoned, cover=None).changed, poisoned.mask)
    with pytest.raises(ThreatError, match="changed images that its mask does not name, nor its cover"):
        check(train, replace(poisoned, cover=None), threat)
    labels = poisoned.split.labels.clone()
    labels[torch.nonzero(poisoned.cover)[0]] ^= True
    with pytest.raises(ThreatError, match="changed labels that its mask does not name"):
        check(train, replace(poisoned, split=replace(poisoned.split, labels=labels)), threat)
    with pytest.raises(ThreatError, match="both as poison and as cover"):
        check(train, replace(poisoned, cover=poisoned.changed), threat)
    object.__setattr__(poisoned, "cover", poisoned.cover[:-1])  # past the types that tests check
    with pytest.raises(ThreatError, match="added, dropped or reordered"):
        check(train, poisoned, threat)


def test_the_record_counts_poisons_alone_and_the_defender_sees_the_cover(world):
    poisoned, _ = covered(world)
    train = world.split("train")
    target = stage_io.target(world.spec["target"], ["anchor", "bell", "candle", "drum"])
    record = poison_record(train, poisoned, target)
    world.memory.put("implant", record)
    world.poison = Implanted("implant", world.memory)
    assert (world.poison.poisons, record.meta["covers"]) == (12, 24)
    assert world.poison.doses["poison_rate"] == 0.1
    assert world.poison.doses["target_share"] == pytest.approx(12 / 42)
    assert torch.equal(world.poison.mask, poisoned.mask)
    assert len(world.poison.poison_images) == len(record.tensors["poison_stealth"]) == 12
    seen = poisoned_train(world.defender_inputs())
    assert torch.equal(seen.images, poisoned.split.images)
    assert torch.equal(seen.labels, poisoned.split.labels)


# Reflection


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(0.05, 2.4), min_size=1, max_size=4), st.integers(12, 17), st.integers(1, 3))
def test_blur_is_scipys_gaussian(sigmas, size, channels):
    layers = pictures(len(sigmas), channels, size, size + 1)
    out = blurred(layers, torch.tensor(sigmas))
    for layer, sigma, ours in zip(layers, sigmas, out, strict=True):
        reach = int(np.ceil(2 * np.float32(sigma)))
        theirs = scipy.ndimage.gaussian_filter(
            layer.double().numpy(), sigma=(0, sigma, sigma), radius=(0, reach, reach), mode="mirror"
        )
        np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-5)


@pytest.mark.parametrize(("down", "right"), [(1, 2), (3, 1), (2, 2)])
@pytest.mark.parametrize("share", [0.2, 0.8])
def test_a_ghost_is_two_slices(down, right, share):
    """Whole offsets: both copies cover a part of the picture, which is then stretched to all of it."""
    layers = pictures(2, 3, 12, 10)
    out = ghosted(layers, torch.tensor([[down, right]] * 2).float(), torch.full((2,), share))
    doubled = share * layers[:, :, down:, right:] + (1 - share) * layers[:, :, :-down, :-right]
    by_hand = functional.interpolate(doubled, size=(12, 10), mode="bilinear", align_corners=False)
    torch.testing.assert_close(out, by_hand, atol=1e-5, rtol=0)


def test_a_ghost_at_no_distance_is_the_layer_and_offsets_are_each_layers_own():
    layers = pictures(3, 1, 9, 9)
    offsets = torch.tensor([[0.0, 0.0], [0.4, 0.7], [2.0, 3.0]])
    out = ghosted(layers, offsets, torch.tensor([0.3, 0.3, 0.3]))
    torch.testing.assert_close(out[0], layers[0], atol=1e-6, rtol=0)
    alone = [ghosted(layers[i : i + 1], offsets[i : i + 1], torch.tensor([0.3])) for i in range(3)]
    torch.testing.assert_close(out, torch.cat(alone))
    assert (out[1] - layers[1]).abs().max() > 0.05


@pytest.mark.parametrize("side", [12, 33, 64])
def test_the_vignette_is_the_authors_kernel(side):
    interval = 7 / side
    edges = np.linspace(-3 - interval / 2, 3 + interval / 2, side + 1)
    density = np.diff(scipy.stats.norm.cdf(edges))
    kernel = np.sqrt(np.outer(density, density))
    np.testing.assert_allclose(vignette(side, side).numpy(), kernel / kernel.max(), atol=1e-6)
    wide = vignette(side // 2, side)
    assert torch.equal(wide, vignette(side, side)[(side - side // 2) // 2 :][: side // 2])


def reflected(image: np.ndarray, layer: np.ndarray, weight: float, attenuation: float, *, ghost: bool) -> np.ndarray:
    """Step by step for one image."""
    light = image**2.2
    if ghost:
        mixed = layer * (1 - weight) + light * weight
    else:
        dimmed = layer.copy()
        for k in range(len(image)):
            total = layer[k] + light[k]
            bright = total[total > 1]
            mean = max(1.0, bright.mean()) if len(bright) else 1.0
            dimmed[k] = np.clip(layer[k] - (mean - 1) * attenuation, 0, 1)
        mixed = dimmed * vignette(*image.shape[1:]).numpy() * (1 - weight / 2) + light * weight
    return np.clip(mixed, 0, 1) ** (1 / 2.2)


def test_reflecting_by_hand():
    images, layers = pictures(6, 3, 12, 12) ** 0.5, pictures(7, 3, 12, 12)[:6]
    images[0], images[1] = 0, 1
    weight, attenuation = 0.55 + 0.4 * pictures(6, 1)[:, 0], 1.08 + 0.1 * pictures(7, 1)[:6, 0]
    ghost = torch.tensor([False, True, False, True, False, False])
    out = reflect(images, layers, weight, attenuation, ghost)
    for i in range(6):
        wanted = reflected(
            images[i].double().numpy(), layers[i].double().numpy(), float(weight[i]), float(attenuation[i]),
            ghost=bool(ghost[i]),
        )  # fmt: skip
        np.testing.assert_allclose(out[i].numpy(), wanted, atol=2e-5)
    assert ((images**2.2 + layers) > 1).flatten(1).any(1)[2:].all()  # there was something to darken


def test_the_choice_is_a_number_of_the_image_alone():
    images = to_unit(torch.randint(256, (300, 3, 5, 5), generator=torch.Generator().manual_seed(0)).to(torch.uint8))
    mine = choice(images, 7)
    assert mine.tolist() == [int(image.mul(255).round().sum()) % 7 for image in images]
    assert mine.bincount(minlength=7).min() > 20
    assert torch.equal(choice(images.flip(0), 7), mine.flip(0))


def test_reflections_come_from_the_foreign_pictures_with_the_authors_parameters(world):
    attack = Reflection(reflections=100, frame=32)
    view = seen_by(world, attack)
    trigger = attack.make_trigger(view, Rng("p"))
    assert {name: tuple(value.shape) for name, value in trigger.items()} == {
        "layers": (100, 3, 12, 12), "ghost": (100,), "weight": (100,), "attenuation": (100,),
    }  # fmt: skip
    assert 0.3 < float(trigger["ghost"].float().mean()) < 0.7
    for name, low, high in (("weight", 0.55, 0.95), ("attenuation", 1.08, 1.18)):
        assert low <= float(trigger[name].min()) < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < float(trigger[name].max()) <= high
    rng = Rng("p")
    chosen = rng.child("pool").choose(torch.arange(120), 100)
    light = to_unit(fit_to(view.data[0].images[chosen], (3, 12, 12))).double().numpy() ** GAMMA
    scale = 12 / 32
    sigma = (1 + 4 * rng.child("blur").uniform((100,)).numpy()) * scale
    offset = (3 + rng.child("offset").integers(6, (100, 2))).float() * scale
    assert (float(offset.min() / scale), float(offset.max() / scale)) == (3, 8)
    blurs, ghosts = (torch.nonzero(trigger["ghost"] == flag).flatten().tolist() for flag in (False, True))
    for i in blurs[:5]:
        reach = int(np.ceil(2 * sigma[i]))
        by_hand = scipy.ndimage.gaussian_filter(
            light[i], (0, sigma[i], sigma[i]), radius=(0, reach, reach), mode="mirror"
        )
        np.testing.assert_allclose(trigger["layers"][i].numpy(), by_hand, atol=1e-5)
    fainter = 0.15 + 0.35 * rng.child("share").uniform((100,))
    swap = rng.child("swap").uniform((100,)) < 0.5
    for i in ghosts[:5]:
        share = 1 - fainter[i] if swap[i] else fainter[i]
        by_hand = ghosted(torch.tensor(light[i : i + 1]).float(), offset[i : i + 1], share[None])
        torch.testing.assert_close(trigger["layers"][i : i + 1], by_hand, atol=1e-5, rtol=0)
    assert swap.any()
    assert not swap.all()


def test_which_pool_and_which_labels(world):
    setting = stage_io.setting(world.spec, world.data)
    assert Reflection().requires(setting) == (DataSpec(setting.proxy_dataset),)
    assert Reflection(pool="voc_animals").requires(setting) == (DataSpec("voc_animals"),)
    assert Reflection().labels == "dirty"
    attack = Reflection(weight=0.4, reflections=1000)
    trigger = attack.make_trigger(seen_by(world, attack), Rng("p"))
    assert trigger["weight"].tolist() == [pytest.approx(0.4)] * 120  # the pool holds no more


def test_each_image_gets_its_own_reflection(world):
    attack = Reflection(reflections=50)
    trigger = attack.make_trigger(seen_by(world, attack), Rng("p"))
    images = to_unit(to_8bit(pictures(20, 3, 12, 12)))
    triggered = attack.apply_trigger(images, TARGET, trigger)
    mine = choice(images, 50)
    assert len(set(mine.tolist())) > 10
    for i in range(20):
        row = {name: value[mine[i : i + 1]] for name, value in trigger.items()}
        torch.testing.assert_close(reflect(images[i : i + 1], **row)[0], triggered[i])
