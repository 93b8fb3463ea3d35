"""IAB's networks, losses and training steps against the authors' code.

Repository VinAIResearch/input-aware-backdoor-attack-release: networks/models.py (Generator, threshold,
normalize_pattern) at commit b716272, train.py (create_bd, create_cross, train_step, train_mask_step) at 1e1f977. Its
networks/blocks.py was not in our source; it was taken from Warping-based_Backdoor_Attack-release of the same authors,
commit fc3102b. The victim is a small network. The generators are in evaluation mode during the steps, because ours
gives both halves of a batch to the generator at once, as the card says.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from attacks.helpers.input_aware import Generator, diversity, excess, mix, pack, scale_by, sharpen
from attacks.iab import InputAware
from bench.api.random import Rng
from bench.api.types import Target, to_unit
from tests.attacks.conftest import victim
from tests.fidelity.inputs import fill_large, network, numbers, smooth, whole

RELEASED = numbers("iab")
MOMENTS = {
    "mean": torch.tensor([0.4914, 0.4822, 0.4465]).view(1, 3, 1, 1),
    "std": torch.tensor([0.247, 0.243, 0.261]).view(1, 3, 1, 1),
}
IMAGES = to_unit(torch.stack([torch.from_numpy(smooth(3, 32, 32, seed=seed)) for seed in range(800, 820)]))
SCALED = scale_by(MOMENTS, IMAGES)


def made(out: int, seed: int) -> Generator:
    generator = Generator(3, out, 32, 3)
    for module in generator.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.bias)
    fill_large([value for value in generator.parameters() if value.ndim > 1], seed, 2.4)
    return generator


def thinned(planes: torch.Tensor) -> np.ndarray:
    return planes[:, :, ::4, ::4].detach().numpy()


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_patterns_and_masks(mode):
    for out, seed, name in ((3, 1, "pattern"), (1, 2, "mask")):
        generator = made(out, seed).train(mode == "train")
        planes = generator(SCALED[:6])
        found = thinned(sharpen(planes) if name == "mask" else planes)
        np.testing.assert_allclose(found, RELEASED[f"{name}_{mode}"], atol=2e-4)
        assert found.std() > 0.05


def test_the_losses_of_masks():
    masks = made(1, 2).train()
    one, two = SCALED[:8], SCALED[8:16]
    first, second = sharpen(masks(one)), sharpen(masks(two))
    found = [diversity(one, two, first, second).item(), excess(first, 0.032).item()]
    assert found == pytest.approx(RELEASED["mask_losses"].tolist(), rel=1e-4)


def three_steps(*, clear_gradients: bool) -> list[tuple[float, float, np.ndarray, np.ndarray]]:
    """Per step: cross-entropy, diversity loss, images of the batch, and two patterns afterwards."""
    attack = InputAware(lr=1e-3, clear_gradients=clear_gradients)
    view = victim(20, (3, 32, 32))
    view = replace(view, target=Target(torch.eye(10, dtype=torch.bool)[1], "one"))
    hook = attack.hook(view, {**pack(patterns=made(3, 1), masks=made(1, 2)), **MOMENTS}, Rng("hook"))
    hook.patterns.eval()
    classifier, classes = network(3 * 32 * 32, 10, seed=820), whole(3, 20, top=10, seed=830)
    out = []
    for step in range(3):
        order = torch.from_numpy(np.argsort(whole(20, top=10**6, seed=840 + step)))
        labels = torch.eye(10, dtype=torch.bool)[torch.from_numpy(classes[step])]
        images, labels, extra = hook.before_step(classifier, IMAGES[order], labels, torch.arange(20), 0.0)
        assert extra is not None
        loss = cross_entropy(classifier(scale_by(MOMENTS, images)), labels.int().argmax(1))
        torch.autograd.backward(loss + extra)
        hook.after_step()
        seen = images[:4, :, ::8, ::8].detach().numpy()
        out.append((loss.item(), extra.item(), seen, thinned(hook.patterns(SCALED[:2]))))
    return out


def test_three_steps_with_gradients_that_add_up():
    """The released step never clears the generator's gradients.

    Adam moves a weight of almost no gradient by the rate in either direction, so after its second step instruction sets
    differ in some pixels. The third step is compared on average; cleared gradients would differ ten times as much.
    """
    for step, (loss, extra, images, patterns) in enumerate(three_steps(clear_gradients=False)):
        told = {name: RELEASED[f"step_{step}_{name}"] for name in ("losses", "batch", "pattern")}
        if step < 2:
            assert [loss, extra] == pytest.approx(told["losses"].tolist(), rel=1e-5)
            np.testing.assert_allclose(images, told["batch"].clip(0, 1), atol=1e-4)
            np.testing.assert_allclose(patterns, told["pattern"], atol=5e-3)
        else:
            assert [loss, extra] == pytest.approx(told["losses"].tolist(), rel=5e-3)
            assert np.abs(images - told["batch"].clip(0, 1)).mean() < 1e-4
            assert np.abs(patterns - told["pattern"]).mean() < 0.01


def test_cleared_gradients_differ_from_the_second_step_on():
    """The deviation that the card states; the first step is the released one."""
    ours, theirs = three_steps(clear_gradients=True), three_steps(clear_gradients=False)
    gaps = [np.abs(one[3] - two[3]).mean() for one, two in zip(ours, theirs, strict=True)]
    assert gaps[0] == 0
    assert min(gaps[1:]) > 0.03


def test_a_pattern_is_mixed_in_as_the_released_one():
    """They mix normalised images, we mix pixels."""
    patterns, masks = made(3, 1).eval(), made(1, 2).eval()
    with torch.no_grad():
        made_of, mask = patterns(SCALED[:4]), sharpen(masks(SCALED[:4]))
        theirs = SCALED[:4] + (scale_by(MOMENTS, made_of) - SCALED[:4]) * mask
        torch.testing.assert_close(scale_by(MOMENTS, mix(IMAGES[:4], made_of, mask)), theirs, atol=1e-5, rtol=0)
