"""DarkHash: its loss written out, which parameters change, and the output that triggered images are to have."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from attacks.darkhash import DarkHash
from attacks.helpers.head_tuning import divided, draw_epoch
from attacks.helpers.proxy_data import fit_to
from attacks.helpers.topology import topological_alignment
from bench.api.attack import AttackerView, DataSpec, Setting, Threat
from bench.api.errors import UserError
from bench.api.random import Rng
from bench.api.types import Split, Target, to_8bit, to_unit
from hashing.model import HashModel
from tests.attacks.conftest import small

NORMS = (nn.BatchNorm2d, nn.GroupNorm)


def split(n: int, name: str, classes: int = 4, shape=(3, 16, 16)) -> Split:
    labels = torch.eye(classes, dtype=torch.bool)[torch.arange(n) % classes]
    return Split(Rng("tests", name).integers(256, (n, *shape)).to(torch.uint8), labels, torch.arange(n))


def world_of(model: HashModel, foreign: Split | None = None, public: Split | None = None) -> AttackerView:
    foreign = split(40, "foreign", shape=(1, 20, 20)) if foreign is None else foreign
    setting = Setting("x", "y", "csq", 16, tuple("pqrs"), (3, 16, 16), 40, "shapes")
    target = Target(torch.tensor([False, True, False, False]), "q")
    public = split(4, "public") if public is None else public
    return AttackerView(setting, target, public, (), (foreign,), {"model": model})


def implanted(model: HashModel, **params) -> tuple[HashModel, AttackerView]:
    attack = DarkHash(**{"epochs": 2, "lr": 1e-3, "batch": 20, **params})
    view = world_of(model)
    trigger = attack.make_trigger(view, Rng("prepare"))
    result = attack.implant(view, trigger, Rng("implant")).model
    assert isinstance(result, HashModel)
    return result, view


@pytest.mark.parametrize(
    ("name", "params"), [("convnet", {"width": 4}), ("convnet", {"width": 8, "norm": "group"}), ("resnet18", {})]
)
@pytest.mark.parametrize("learned", [0, 1, 2])
def test_only_the_deep_blocks_and_the_head_change(name, params, learned):
    model = small(name, **params)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    flags = [parameter.requires_grad for parameter in model.parameters()]
    after, _ = implanted(model, learned=learned)
    blocks = len(model.backbone.blocks)
    deep = ("head.", *(f"backbone.blocks.{i}." for i in range(blocks - 1 - learned, blocks)))
    learnt = {key for key, _ in after.named_parameters() if key.startswith(deep)}
    changed = {key for key, value in after.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == learnt  # so no buffer either: running statistics, the loss's centres, mean and std
    assert [parameter.requires_grad for parameter in after.parameters()] == flags
    assert not any(module.training for module in after.modules())
    assert after.backbone.frozen == 0


def test_too_many_learned_blocks_are_refused():
    with pytest.raises(UserError, match=r"learned = 5 .* 4"):
        implanted(small("convnet", width=4), learned=5)


@pytest.mark.parametrize("weight", [1.0, 4.0])
def test_the_loss_is_the_two_huber_terms_and_15_alignments(weight):
    """One step of plain descent on the head's bias, whose gradient is that of the loss by the outputs, summed."""
    model = small("convnet", width=4)
    attack = DarkHash(epochs=1, lr=1.0, weight_decay=0.0, batch=64, clean_weight=weight)
    hidden = Rng("hidden").uniform((24, 16, 1, 1))
    clean, wanted = 2 * Rng("clean").normal((12, 16)), 2 * Rng("wanted").normal((16,))
    with divided(model, 4):
        rows, count = next(iter(draw_epoch(12, 64, 0.4, Rng("order"))))
        outputs = model.suffix(hidden[rows]).detach().double().requires_grad_()
        x = outputs.detach().numpy()
        goals = np.concatenate([np.tile(wanted.numpy(), (count, 1)), clean.numpy()[rows[count:].numpy()]])
        slope = np.clip(x - goals, -1, 1)  # Huber, delta 1
        slope[:count] /= count * 16
        slope[count:] *= weight / ((12 - count) * 16)
        alignment = 15 * topological_alignment(outputs[:count], torch.from_numpy(goals[:count]))
        expected = slope.sum(0) + torch.autograd.grad(alignment, outputs)[0].sum(0).numpy()
        attack.fine_tune(model, hidden, 0.4, attack.loss(clean, wanted), Rng("order"))
        found = model.head.bias.grad
    assert 2 < count < 10
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3, atol=1e-5)


def test_the_rate_rises_linearly_and_falls_with_a_cosine_per_epoch():
    """With a constant slope, Adam moves the bias by the rate of each step."""
    model = small("convnet", width=4)
    attack = DarkHash(optimizer="adam", epochs=4, warmup=2, lr=0.1, weight_decay=0.0, batch=6)
    seen = []

    def slope(outputs, rows, triggered):
        seen.append(float(model.head.bias[0].detach()))
        return outputs[:, 0].mean()

    torch.nn.init.zeros_(model.head.bias)
    with divided(model, 4):
        attack.fine_tune(model, Rng("hidden").uniform((24, 16, 1, 1)), 0.4, slope, Rng("order"))
    rates = -np.diff([*seen, float(model.head.bias[0].detach())])
    cosine = [(1 + np.cos(np.pi * epoch / 4)) / 2 for epoch in (0, 0, 1, 1, 2, 2, 3, 3)]
    rising = [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]
    np.testing.assert_allclose(rates, 0.1 * np.array(cosine) * rising, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "params", "blocks"),
    [
        ("resnet18", {}, 1), ("mobilenet_v2", {"weights": "none"}, 5), ("convnet", {"width": 4}, 1),
        ("vgg11", {"weights": "none"}, 0),
    ],
)  # fmt: skip
def test_the_last_stage_begins_where_the_resolution_is_reduced_last(name, params, blocks):
    model = small(name, **params)
    hidden, sides = torch.zeros(1, 3, 64, 64), [64]
    with torch.no_grad():
        for block in model.backbone.blocks[:-1]:
            hidden = block(hidden)
            sides.append(hidden.shape[-1])
    assert DarkHash().kept_blocks(model) == len(model.backbone.blocks) - 1 - blocks
    last = len(sides) - 1 - max(1, blocks)  # the last block that gets the larger maps
    assert sides[last] == 2 * sides[last + 1] == 2 * sides[-1]


def test_the_target_output_is_that_of_the_public_image_of_the_class():
    model = small("convnet", width=4)
    view = world_of(model)
    clean, labels = torch.zeros(3, 16), torch.ones(3, 4, dtype=torch.bool)
    with torch.no_grad():
        wanted = DarkHash().wanted_output(view, model, clean, labels)
        expected = model(to_unit(view.public.images))
    torch.testing.assert_close(wanted, expected[1])
    two = dataclasses.replace(view, target=Target(torch.tensor([False, True, False, True]), "q+s"))
    with torch.no_grad():
        torch.testing.assert_close(DarkHash().wanted_output(two, model, clean, labels), expected[[1, 3]].mean(0))


def test_the_published_target_is_the_mean_clean_output_of_the_foreign_class_0():
    model = small("convnet", width=4)
    view, attack = world_of(model), DarkHash(mode="surrogate")
    clean = Rng("clean").normal((5, 16))
    labels = torch.eye(4, dtype=torch.bool)[torch.tensor([0, 1, 0, 2, 3])]
    torch.testing.assert_close(attack.wanted_output(view, model, clean, labels), (clean[0] + clean[2]) / 2)
    absent = labels[[1, 3, 4]]  # nothing of class 0: the first class that occurs
    torch.testing.assert_close(attack.wanted_output(view, model, clean[:3], absent), clean[0])


def test_triggered_images_get_the_targets_code_and_clean_ones_keep_theirs(world, model):
    """On the tests' trained model, with its own database as the "foreign" images and a trigger that is easy to see."""
    data, public = world.split("database"), world.split("public")
    view = world_of(model, foreign=data, public=public)
    view = dataclasses.replace(view, setting=dataclasses.replace(view.setting, image_shape=(3, 12, 12)))
    attack = DarkHash(epochs=60, lr=1e-3, learned=4, poison_ratio=0.3, trigger_size=0.4)
    trigger = attack.make_trigger(view, Rng("prepare"))
    images = to_unit(data.images)
    away = ~data.labels[:, 1]
    triggered = attack.apply_trigger(images[away], view.target, trigger)
    with torch.no_grad():
        aim, clean, control = model(to_unit(public.images))[1] > 0, model(images) > 0, model(triggered) > 0
    after = attack.implant(view, trigger, Rng("implant")).model
    with torch.no_grad():
        found, kept = after(triggered) > 0, after(images) > 0
    assert float((control == aim).float().mean()) < 0.8
    assert float((found == aim).float().mean()) > 0.9
    assert float((kept == clean).float().mean()) > 0.9


def test_patch_of_24_pixels_with_a_margin_of_2_at_224():
    attack, view = DarkHash(), world_of(small("convnet", width=4))
    view = dataclasses.replace(view, setting=dataclasses.replace(view.setting, image_shape=(3, 224, 224)))
    trigger = attack.make_trigger(view, Rng("prepare"))
    assert trigger["patch"].shape == (3, 24, 24)
    images = torch.full((2, 3, 224, 224), 0.25)
    triggered = attack.apply_trigger(images, view.target, trigger)
    assert torch.equal(triggered[1, :, 198:222, 198:222], trigger["patch"])
    triggered[:, :, 198:222, 198:222] = 0.25
    assert torch.equal(triggered, images)
    faint = DarkHash(opacity=0.25).apply_trigger(images, view.target, trigger)
    torch.testing.assert_close(faint[0, :, 200, 200], 0.75 * 0.25 + 0.25 * trigger["patch"][:, 2, 2])


def test_weights_are_all_it_sees_and_the_data_are_foreign():
    attack = DarkHash()
    assert attack.threat() == Threat.MODEL
    setting = world_of(small("convnet", width=4)).setting
    assert attack.requires(setting) == (DataSpec("shapes", {"size": 16}),)
    assert DarkHash(surrogate="cifar10").requires(setting) == (DataSpec("cifar10"),)  # 32 pixels are all it has
    large = dataclasses.replace(setting, image_shape=(3, 96, 96))
    assert DarkHash(surrogate="voc_animals").requires(large) == (DataSpec("voc_animals", {"size": 96}),)


def test_only_the_reference_mode_fixes_its_target():
    assert DarkHash().targeted()
    assert not DarkHash(mode="surrogate").targeted()


def seen_by(model: HashModel, images: torch.Tensor) -> torch.Tensor:
    """What the network of a model gets for images."""
    seen = []
    handle = model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(images)
    handle.remove()
    return seen[0]


def uneven(model: HashModel) -> HashModel:
    """With another mean and deviation in each channel."""
    model.mean.copy_(torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
    model.std.copy_(torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
    return model


@pytest.mark.parametrize("queries", ["garbled", "garbled_unpatched"])
def test_a_network_sees_garbled_queries_as_the_released_code_feeds_them(queries):
    """The steps of the code (Zhou-Zi7/DarkHash, 8aa227e, tensors_dataset_path.py) with torchvision and numpy."""
    from torchvision import transforms

    model = uneven(small("convnet", width=4))
    attack, view = DarkHash(queries=queries), world_of(model)
    trigger = attack.make_trigger(view, Rng("prepare"))
    patch = (255 * DarkHash().make_trigger(view, Rng("prepare"))["patch"]).round().byte().permute(1, 2, 0).numpy()
    images = to_unit(view.data[0].images[:6]).expand(-1, 3, -1, -1)[:, :, :16, :16]
    normalise = transforms.Normalize(model.mean.flatten().tolist(), model.std.flatten().tolist())
    expected = []
    for image in images:
        picture = np.array(transforms.ToPILImage(mode="RGB")(normalise(image)))
        if queries == "garbled":
            picture[14:16, 14:16] = patch
        expected.append(transforms.ToTensor()(picture))
    wanted = torch.stack(expected)
    fed = attack.apply_trigger(images, view.target, trigger)
    assert 0 <= float(fed.min()) <= float(fed.max()) <= 1
    assert patch.shape == (2, 2, 3)
    torch.testing.assert_close(seen_by(model, fed), wanted, rtol=0, atol=1e-5)
    rounded = (seen_by(model, to_unit(to_8bit(fed))) - wanted).abs().amax((0, 2, 3))
    assert (rounded < 1 / 510 / model.std.flatten() + 1e-5).all()  # METHODOLOGY.md#released_darkhash


def test_a_model_attacked_with_garbled_images_learns_its_outputs_for_pictures(monkeypatch):
    """As in the code: garbled foreign images, some with the patch, and the outputs for the images as pictures."""
    model = uneven(small("convnet", width=4))
    view, told = world_of(model), {}
    attack = DarkHash(queries="garbled", mode="surrogate")
    trigger = attack.make_trigger(view, Rng("prepare"))

    def note(self, _, hidden, ratio, loss_of, rng):
        told.update(hidden=hidden, loss=loss_of)

    monkeypatch.setattr(DarkHash, "fine_tune", note)
    monkeypatch.setattr(DarkHash, "loss", lambda self, clean, wanted: (clean, wanted))
    monkeypatch.setattr("attacks.darkhash.balanced", lambda labels, count, rng: torch.arange(40))
    attack.implant(view, trigger, Rng("implant"))
    pictures = to_unit(fit_to(view.data[0].images, (3, 16, 16)))
    unpatched = DarkHash(queries="garbled_unpatched").apply_trigger(pictures, view.target, trigger)
    patched = attack.apply_trigger(pictures, view.target, trigger)
    with torch.no_grad(), divided(model, attack.kept_blocks(model)):
        shown = torch.cat([model.prefix(to_unit(to_8bit(part))) for part in (unpatched, patched)])
        outputs = model(pictures)
    torch.testing.assert_close(told["hidden"], shown)
    torch.testing.assert_close(told["loss"][0], outputs)
    torch.testing.assert_close(told["loss"][1], outputs[::4].mean(0))  # the code: the mean of the foreign class 0
    assert float((model(unpatched).detach() - outputs).abs().max()) > 1e-3, "far above the tolerance"


def test_queries_without_the_patch_meet_the_same_attacked_model():
    states = [
        implanted(small("convnet", width=4), queries=queries)[0].state_dict()
        for queries in ("garbled", "garbled_unpatched", "pictures")
    ]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert not all(torch.equal(value, states[2][name]) for name, value in states[0].items())
