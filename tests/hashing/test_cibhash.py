"""CIBHash: its views beside torchvision, its loss beside sums over pairs."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as reference

from bench.api import registry
from bench.api.hashing import Recipe
from bench.api.random import Rng
from bench.api.types import Split
from hashing.loader import Augmentation
from hashing.methods import cibhash
from hashing.methods.cibhash import CIBHash
from hashing.methods.helpers import views
from hashing.model import build_model
from hashing.train import fit

IMAGES = Rng("tests", "views").uniform((6, 3, 12, 16))
FACTORS = torch.tensor([0.6, 0.8, 1.0, 1.1, 1.3, 1.4])
SHIFTS = torch.tensor([-0.1, -0.05, 0.0, 0.02, 0.07, 0.1])


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("brightness", FACTORS), ("contrast", FACTORS), ("saturation", FACTORS), ("hue", SHIFTS)],
)
def test_colours_are_those_of_torchvision(name, parameters):
    found = getattr(views, name)(IMAGES, parameters)
    expected = [
        getattr(reference, f"adjust_{name}")(image, float(one)) for image, one in zip(IMAGES, parameters, strict=True)
    ]
    torch.testing.assert_close(found, torch.stack(expected), atol=2e-6, rtol=0)


def test_grey_and_blur_are_those_of_torchvision():
    torch.testing.assert_close(views.grey(IMAGES), reference.rgb_to_grayscale(IMAGES), atol=1e-6, rtol=0)
    sigmas = torch.linspace(0.1, 2, len(IMAGES))
    expected = [
        reference.gaussian_blur(image, [3, 3], [float(one)] * 2) for image, one in zip(IMAGES, sigmas, strict=True)
    ]
    torch.testing.assert_close(views.blurred(IMAGES, sigmas), torch.stack(expected), atol=1e-6, rtol=0)


def test_a_crop_of_everything_is_the_image_and_a_mirrored_one_its_mirror():
    zero, one, mirrored = torch.zeros(6), torch.ones(6), torch.tensor([False, True] * 3)
    found = views.cropped(IMAGES, zero, zero, one, one, mirrored=mirrored)
    expected = torch.where(mirrored.view(-1, 1, 1, 1), IMAGES.flip(3), IMAGES)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_crop_is_enlarged_as_by_interpolation():
    """The right lower quarter."""
    half = torch.full((6,), 0.5)
    found = views.cropped(IMAGES, half, half, half, half, mirrored=torch.zeros(6, dtype=torch.bool))
    expected = F.interpolate(IMAGES[:, :, 6:, 8:], size=(12, 16), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found[:, :, 1:-1, 1:-1], expected[:, :, 1:-1, 1:-1], atol=1e-5, rtol=0)


def test_views_differ_between_images_and_depend_on_the_stream_alone():
    same = IMAGES[:1].expand(6, -1, -1, -1)
    one, two = (views.random_view(same, Rng("tests", "draw")) for _ in range(2))
    torch.testing.assert_close(one, two)
    assert 0 <= float(one.min()) <= float(one.max()) <= 1
    assert len({round(float(image.sum()), 3) for image in one}) == 6
    grey = views.random_view(torch.rand(4, 1, 8, 8), Rng("tests", "draw"))
    assert grey.shape == (4, 1, 8, 8)


def test_the_contrastive_loss_is_that_of_pairs():
    one, other = (Rng("tests", name).normal((5, 8)) for name in ("one", "other"))
    every = torch.cat([one, other])
    total = 0.0
    for i in range(10):
        partner = (i + 5) % 10
        terms = [
            math.exp(float(F.cosine_similarity(every[i], every[j], dim=0)) / 0.3) if j != i else 0.0 for j in range(10)
        ]
        total -= math.log(terms[partner] / sum(terms))
    assert float(cibhash.nt_xent(one, other, 0.3)) == pytest.approx(total / 10, rel=1e-5)


def test_the_divergence_is_that_of_bernoulli_bits():
    one, other = (Rng("tests", name).uniform((4, 3)) * 0.8 + 0.1 for name in ("p", "q"))
    expected = torch.distributions.kl_divergence(
        torch.distributions.Bernoulli(one), torch.distributions.Bernoulli(other)
    )
    assert float(cibhash.divergence(one, other)) == pytest.approx(float(expected.sum(1).mean()), rel=1e-4)
    fixed = other.requires_grad_()
    cibhash.divergence(one.requires_grad_(), fixed).backward()
    assert fixed.grad is None


def objective():
    return CIBHash().objective(bits=8, classes=2, train_size=4, rng=Rng("tests"))


def test_the_loss_by_its_parts_and_without_labels():
    logits = Rng("tests", "logits").normal((8, 8))
    chances = logits.sigmoid()
    signs = torch.where(logits > 0, 1.0, -1.0)
    kl = (cibhash.divergence(chances[:4], chances[4:]) + cibhash.divergence(chances[4:], chances[:4])) / 2
    expected = cibhash.nt_xent(signs[:4], signs[4:], 0.3) + 0.001 * kl
    ids = torch.arange(4)
    for labels in (torch.eye(4, 2, dtype=torch.bool), torch.ones(4, 2, dtype=torch.bool)):
        assert float(objective()(logits, labels, ids, 0.5)) == pytest.approx(float(expected), rel=1e-5)


def test_the_gradient_passes_through_the_sign():
    logits = Rng("tests", "logits").normal((8, 8)).requires_grad_()
    objective()(logits, torch.ones(4, 2, dtype=torch.bool), torch.arange(4), 0.5).backward()
    assert logits.grad is not None
    assert float(logits.grad.abs().sum()) > 0.01


def test_training_sees_two_views_of_each_image_and_no_label():
    """Two trainings whose labels differ give equal weights; without views the objective gets half of the logits."""
    seen: list[tuple[int, int]] = []

    def trained(labels: torch.Tensor) -> torch.Tensor:
        backbone = registry.create("backbones", "convnet", {"width": 4})
        stream = Rng("tests", "model")
        model = build_model(
            backbone=backbone, method=CIBHash(), bits=8, image_shape=(3, 16, 16), classes=2, train_size=12, rng=stream
        )
        model.objective.register_forward_pre_hook(lambda _, given: seen.append((len(given[0]), len(given[2]))))
        images = (Rng("tests", "images").uniform((12, 3, 16, 16)) * 255).to(torch.uint8)
        recipe = Recipe(optimizer="adam", lr=1e-3, weight_decay=0, batch=6, epochs=2)
        fit(
            model,
            Split(images, labels, torch.arange(12)),
            recipe,
            Rng("tests", "fit"),
            augmentation=Augmentation(flip=False, pad=0),
        )
        return torch.cat([value.flatten() for value in model.head.parameters()])

    one = trained(torch.eye(2, dtype=torch.bool)[torch.arange(12) % 2])
    other = trained(torch.eye(2, dtype=torch.bool)[torch.zeros(12, dtype=torch.long)])
    assert set(seen) == {(12, 6)}
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_poisons_that_are_not_augmented_are_seen_as_they_are():
    from hashing.train import _views

    kept = torch.tensor([True, False] * 3)
    model = build_model(
        backbone=registry.create("backbones", "convnet", {"width": 4}), method=CIBHash(), bits=8,
        image_shape=(3, 12, 16), classes=2, train_size=6, rng=Rng("tests", "model"),
    )  # fmt: skip
    found = _views(model, IMAGES, torch.arange(6), Rng("tests", "views"), kept)
    both = IMAGES.repeat(2, 1, 1, 1)
    same = torch.tensor([torch.equal(one, other) for one, other in zip(found, both, strict=True)])
    assert torch.equal(same, kept.repeat(2))
    # a hook has added three of the images once more, as a defense with a reverse-engineered trigger does
    found = _views(model, IMAGES, torch.arange(3), Rng("tests", "views"), kept[:3])
    same = torch.tensor([torch.equal(one, other) for one, other in zip(found, both, strict=True)])
    assert torch.equal(same, kept[:3].repeat(4))


def test_local_ascent_takes_both_views():
    from defenses.helpers.gradient_ascent import LocalAscent

    labels = torch.eye(4, 2, dtype=torch.bool) | torch.tensor([False, True])
    logits = Rng("tests", "logits").normal((8, 8))
    ascent = LocalAscent(objective(), torch.ones(2, 8), "batch")
    loss = ascent(logits, labels, torch.arange(4), 0.5)
    assert torch.isfinite(loss)
