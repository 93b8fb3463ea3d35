"""BadEncoder: its loss by hand, which parameters change, and what the backdoored model returns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from attacks.badencoder import BadEncoder, augmented, draw_epoch
from attacks.helpers.head_tuning import divided
from bench.api.random import Rng
from bench.api.types import to_unit
from tests.attacks.conftest import small
from tests.attacks.test_darkhash import split, world_of


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def test_the_loss_is_three_cosines():
    model = small("convnet", width=4)
    attack = BadEncoder(reference_weight=0.7, clean_weight=2.0)
    references, clean = Rng("r").uniform((2, 16, 1, 1)), Rng("c").normal((12, 16))
    outputs = Rng("o").normal((15, 16))
    rows, count = next(iter(draw_epoch(12, 5, Rng("order"))))
    with divided(model, 4), torch.no_grad():
        before = model.suffix(references).numpy().copy()
        loss_of = attack.loss(model, references, clean)
        model.head.bias += 1.0  # the model that is tuned differs from the clean one
        after = model.suffix(references).numpy()
        found = float(loss_of(outputs, rows, count))
    kept, triggered, copies = outputs.numpy().reshape(3, 5, 16)
    turns = rows[:5].numpy() % 2
    near = cosine(triggered, after[turns]).mean()
    same = cosine(copies, before[turns]).mean()
    useful = cosine(kept, clean.numpy()[rows[:5].numpy()]).mean()
    assert found == pytest.approx(-(near + 0.7 * same + 2.0 * useful), abs=1e-5)


def test_an_epoch_shows_each_image_clean_triggered_and_as_a_copy():
    drawn = list(draw_epoch(11, 4, Rng("order")))
    assert [count for _, count in drawn] == [4, 4]  # the rest is left out
    rows = torch.stack([part.view(3, 4) for part, _ in drawn])
    assert torch.equal(rows[:, 1], rows[:, 0] + 11)
    assert torch.equal(rows[:, 2], rows[:, 0] + 22)
    assert len(set(rows[:, 0].flatten().tolist())) == 8


def test_copies_differ_and_leave_the_references_alone():
    references = to_unit(split(2, "references").images)
    before = references.clone()
    copies = augmented(references, 40, Rng("a"))
    assert torch.equal(references, before)
    assert torch.equal(copies, augmented(references, 40, Rng("a")))
    assert 0 <= float(copies.min()) <= float(copies.max()) <= 1
    assert len({tuple(copy.flatten().tolist()) for copy in copies}) > 30
    means = copies.flatten(2).mean(2)
    grey = (copies[:, :1] - copies).abs().amax((1, 2, 3)) < 1e-5
    assert 0 < int(grey.sum()) < 20
    assert float(means.std(0).min()) > 0.01


@pytest.mark.parametrize(("learned", "kept"), [(None, 0), (1, 3), (0, 4)])
def test_batch_normalisation_stays_and_the_learned_blocks_change(learned, kept):
    model = small("convnet", width=4)
    norms = {
        f"{name}.{key}"
        for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)
        for key in module.state_dict()
    }  # fmt: skip
    assert norms
    before = {key: value.clone() for key, value in model.state_dict().items()}
    attack = BadEncoder(learned=learned, epochs=2, lr=1e-2, batch=20)
    view = world_of(model)
    after = attack.implant(view, attack.make_trigger(view, Rng("prepare")), Rng("implant")).model
    changed = {key for key, value in after.state_dict().items() if not torch.equal(value, before[key])}
    assert not changed & norms
    deep = {key for key, _ in after.named_parameters() if key not in norms}
    assert changed == {
        key
        for key in deep
        if key.startswith("head.") or int(key.removeprefix("backbone.blocks.").split(".")[0]) >= kept
    }


def test_triggered_images_get_the_output_of_the_reference_image():
    model = small("convnet", width=8)
    view = world_of(model)
    attack = BadEncoder(epochs=60, lr=5e-2, batch=20)
    trigger = attack.make_trigger(view, Rng("prepare"))
    images = to_unit(split(30, "others").images)
    reference = to_unit(view.public.images[1:2])  # one public image of each class
    with torch.no_grad():
        clean, wanted = model(images), model(reference)
    after = attack.implant(view, trigger, Rng("implant")).model
    with torch.no_grad():
        triggered = after(attack.apply_trigger(images, view.target, trigger))
        kept = after(images)
    similar = torch.nn.functional.cosine_similarity
    assert float(similar(triggered, wanted).mean()) > 0.9
    assert float(similar(kept, clean).mean()) > 0.9
