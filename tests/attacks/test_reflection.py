"""Reflection: blur, ghosts and their mixing against SciPy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from attacks.helpers.proxy_data import fit_to
from attacks.helpers.reflections import GAMMA, blurred, ghosted, reflect, vignette
from attacks.reflection import Reflection, choice
from bench.api.attack import DataSpec
from bench.api.random import Rng
from bench.api.types import Target, to_8bit, to_unit
from bench.artifacts import stage_io
from bench.conformance.attacks import attacker_view_for

TARGET = Target(torch.tensor([True, False]), "a")


def pictures(n: int, *shape: int) -> torch.Tensor:
    return Rng("tests", "stamps", n, *shape).uniform((n, *shape))


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
    view = attacker_view_for(world, attack)
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
    trigger = attack.make_trigger(attacker_view_for(world, attack), Rng("p"))
    assert trigger["weight"].tolist() == [pytest.approx(0.4)] * 120  # the pool holds no more


def test_each_image_gets_its_own_reflection(world):
    attack = Reflection(reflections=50)
    trigger = attack.make_trigger(attacker_view_for(world, attack), Rng("p"))
    images = to_unit(to_8bit(pictures(20, 3, 12, 12)))
    triggered = attack.apply_trigger(images, TARGET, trigger)
    mine = choice(images, 50)
    assert len(set(mine.tolist())) > 10
    for i in range(20):
        row = {name: value[mine[i : i + 1]] for name, value in trigger.items()}
        torch.testing.assert_close(reflect(images[i : i + 1], **row)[0], triggered[i])
