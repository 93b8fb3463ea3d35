"""The training loop."""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.overrides import TorchFunctionMode

from bench.api import registry
from bench.api.attack import StepHook
from bench.api.errors import DivergedError
from bench.api.hashing import Backbone, FeatureExtractor, Objective, Recipe
from bench.api.random import Rng
from bench.api.types import Split
from hashing.loader import Augmentation
from hashing.model import HashModel, build_model
from hashing.train import fast_precision, fit, optimizer_of

RECIPE = Recipe(optimizer="sgd", lr=0.05, weight_decay=0.0, batch=8, epochs=2, precision="float32")
N = 20


def new_model(method: str = "csq") -> HashModel:
    return build_model(
        backbone=registry.create("backbones", "convnet", {"width": 4}),
        method=registry.create("methods", method, {}),
        bits=8,
        image_shape=(3, 8, 8),
        classes=2,
        train_size=N,
        rng=Rng("victim", 0),
    )


def split_of() -> Split:
    labels = torch.eye(2, dtype=torch.bool)[torch.arange(N) % 2]
    images = Rng("tests", "train").integers(100, (N, 3, 8, 8)).to(torch.uint8)
    images[labels[:, 1], :, :4] += 150
    return Split(images, labels, torch.arange(N))


def trained(recipe: Recipe = RECIPE, seed: int = 0, model: HashModel | None = None, **more):
    model = model or new_model()
    losses = fit(model, split_of(), recipe, Rng("fit", seed), augmentation=Augmentation(True, 1), **more)
    return model, losses


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop"])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "onecycle"])
def test_equal_streams_give_equal_weights_and_the_loss_falls(optimizer, schedule, untouched_rng):
    recipe = replace(RECIPE, optimizer=optimizer, schedule=schedule, epochs=4, momentum=0.9, lr=0.02)
    with untouched_rng():
        (one, losses), (same, again) = trained(recipe), trained(recipe)
    assert equal(weights(one), weights(same))
    assert losses == again
    assert len(losses) == 4
    assert losses[-1] < losses[0]
    assert not one.training


def test_the_stream_decides_the_order_of_the_images():
    assert not equal(weights(trained()[0]), weights(trained(seed=1)[0]))


@pytest.mark.parametrize("method", sorted(registry.catalogue("methods")))
def test_every_method_trains(method):
    model, losses = trained(replace(RECIPE, optimizer="adam", lr=0.01, epochs=6), model=new_model(method))
    assert losses[-1] < losses[0]
    assert all(bool(torch.isfinite(value).all()) for value in weights(model).values())


def test_no_epochs_change_nothing():
    model = new_model()
    before = weights(model)
    for schedule in ("constant", "cosine", "onecycle"):
        _, losses = trained(replace(RECIPE, epochs=0, schedule=schedule), model=model)
        assert losses == []
    assert equal(weights(model), before)
    assert not model.training


def test_a_loss_that_is_not_finite_is_a_failure_not_a_weak_model():
    class Broken(Objective):
        def forward(self, logits, labels, ids, progress):
            return logits.sum() * (float("nan") if progress >= 0.5 else 1.0)

    model = new_model()
    model.objective = Broken()
    with pytest.raises(DivergedError, match="epoch 2 "):
        trained(model=model)


def test_a_learning_rate_that_explodes_is_a_failure():
    with pytest.raises(DivergedError, match="rate"):
        trained(replace(RECIPE, lr=1e30))


class _Once:
    """Its gradient is beyond float32 once the learning rate multiplies it."""

    def before_step(self, model, images, labels, ids, progress):
        return images, labels, model.head.bias.sum() * 1e30

    def after_step(self) -> None: ...

    def trigger(self):
        return {}


def test_weights_that_the_last_step_made_infinite_are_a_failure():
    """Its loss was taken before the step, so that only the weights show it."""
    with pytest.raises(DivergedError, match="weights"):
        trained(replace(RECIPE, lr=1e10, epochs=1, backbone_lr=0.0, batch=100), hook=_Once())


def test_the_backbone_has_its_own_learning_rate():
    model = new_model()
    before = weights(model)
    trained(replace(RECIPE, backbone_lr=0.0), model=model)
    after = weights(model)
    parameters = [f"backbone.{key}" for key, _ in model.backbone.named_parameters()]
    assert all(torch.equal(before[key], after[key]) for key in parameters)
    assert not torch.equal(before["head.weight"], after["head.weight"])


@pytest.mark.parametrize(("linear_lr", "after"), [(None, 1e-4), (1.0, 1e-3), (0.0, 0.0)])
def test_the_backbones_linear_layers_may_have_a_rate_of_their_own(linear_lr, after):
    model = new_model()
    whole = torch.nn.ModuleList([*model.backbone.blocks, nn.Linear(4, 4)])
    model.backbone.blocks, model.backbone.linear = whole, 1
    optimizer = optimizer_of(model, replace(RECIPE, lr=1e-3, backbone_lr=0.1, linear_lr=linear_lr))
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for part, wanted in ((whole[:-1], 1e-4), (whole[-1], after), (model.head, 1e-3)):
        assert [rate[id(p)] for p in part.parameters()] == pytest.approx([wanted] * len(list(part.parameters())))


def test_parameters_of_the_objective_are_trained():
    class Scaled(Objective):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, logits, labels, ids, progress):
            return (self.scale * logits - 1).square().mean()

    model = new_model()
    model.objective = Scaled()
    trained(model=model)
    assert float(model.objective.scale.detach()) != 1


def test_frozen_parameters_stay():
    model = new_model()
    model.head.bias.requires_grad_(False)
    trained(replace(RECIPE, weight_decay=0.1), model=model)
    assert torch.equal(model.head.bias, new_model().head.bias)


@pytest.fixture
def rates() -> Iterator[list[list[float]]]:
    """The optimizer's groups, which schedules go on to change, then the rates (backbone, head) that each step used."""
    seen: list = []

    def note(optimizer, *_):
        if not seen:
            seen.append(optimizer.param_groups)
        seen.append([group["lr"] for group in optimizer.param_groups])

    handle = register_optimizer_step_pre_hook(note)
    yield seen
    handle.remove()


@pytest.mark.parametrize("schedule", ["constant", "cosine", "onecycle"])
def test_schedules_go_by_steps_and_end_near_zero(schedule, rates):
    trained(replace(RECIPE, schedule=schedule, epochs=10, backbone_lr=0.5, lr=0.04))
    groups, *steps = rates
    assert len(steps) == 30
    head = [rate[1] for rate in steps]
    assert [rate[0] for rate in steps] == pytest.approx([rate / 2 for rate in head])
    left = groups[1]["lr"]
    if schedule == "constant":
        assert {*head, left} == {0.04}
        return
    assert max(head) == pytest.approx(0.04, rel=0.01)
    assert left < 1e-4 * 0.04
    assert head[-1] < 0.02 * 0.04
    peak = head.index(max(head))
    assert peak == 0 if schedule == "cosine" else 7 <= peak <= 10
    assert head[peak:] == sorted(head[peak:], reverse=True)


def test_weight_decay_shrinks_weights():
    decayed, _ = trained(replace(RECIPE, weight_decay=1.0))
    plain, _ = trained()
    assert float(decayed.head.weight.detach().norm()) < 0.95 * float(plain.head.weight.detach().norm())


def test_progress_runs_from_zero_to_one_and_epochs_are_reported():
    seen, epochs = [], []

    class Watched(Objective):
        def forward(self, logits, labels, ids, progress):
            seen.append((progress, tuple(ids.tolist())))
            return logits.square().mean()

    model = new_model()
    model.objective = Watched()

    def after_epoch(trained_model: HashModel) -> None:
        assert trained_model is model
        trained_model.eval()  # as encoding does; training goes on in training mode
        epochs.append(len(seen))

    modes = []
    model.register_forward_pre_hook(lambda module, inputs: modes.append(module.training))
    trained(model=model, after_epoch=after_epoch)
    assert [progress for progress, _ in seen] == pytest.approx([i / 6 for i in range(6)])
    assert epochs == [3, 6]
    assert all(modes)
    for part in (seen[:3], seen[3:]):
        assert sorted(i for _, ids in part for i in ids) == list(range(N))


class Spy:
    """A StepHook that inverts images, moves all labels to class 0 and adds a term on a parameter of its own."""

    def __init__(self) -> None:
        self.steps, self.ids, self.own = 0, [], nn.Parameter(torch.zeros(()))

    def before_step(self, model, images, labels, ids, progress):
        assert isinstance(model, HashModel)
        assert self.own.grad is None or self.steps == len(self.ids)
        self.ids.append((progress, ids.tolist()))
        only = torch.zeros_like(labels)
        only[:, 0] = True
        return 1 - images, only, 3 * (self.own - 1) ** 2

    def after_step(self) -> None:
        assert self.own.grad is not None, "called before backward"
        self.steps += 1

    def trigger(self):
        return {}


def test_a_hook_changes_the_batch_and_the_loss_and_steps_after_the_victim():
    seen = []

    class Watched(Objective):
        def forward(self, logits, labels, ids, progress):
            seen.append(bool(labels[:, 0].all()) and not bool(labels[:, 1].any()))
            return 0 * logits.sum()

    model, hook = new_model(), Spy()
    assert isinstance(hook, StepHook)
    model.objective = Watched()
    shown = []
    model.register_forward_pre_hook(lambda module, inputs: shown.append(float(inputs[0].max())))
    _, losses = trained(model=model, hook=hook)
    assert hook.steps == len(hook.ids) == 6
    assert all(seen)
    assert losses == [3.0, 3.0]
    assert max(shown) == 1.0  # the padding's zeros, inverted
    assert float(hook.own.detach()) == 0  # its optimiser is its own


def test_bf16_is_for_the_forward_pass_alone():
    seen = {}

    class Watched(Objective):
        def forward(self, logits, labels, ids, progress):
            seen["objective"] = (logits.dtype, torch.is_autocast_enabled("cpu"))
            return logits.square().mean()

    model = new_model()
    model.objective = Watched()
    model.head.register_forward_hook(lambda m, i, o: seen.update(head=(o.dtype, torch.is_autocast_enabled("cpu"))))
    trained(replace(RECIPE, precision="bf16", epochs=1), model=model)
    assert seen == {"head": (torch.bfloat16, True), "objective": (torch.float32, False)}
    assert {value.dtype for value in weights(model).values() if value.is_floating_point()} == {torch.float32}
    trained(replace(RECIPE, precision="float32", epochs=1), model=model)
    assert seen["head"] == (torch.float32, False)
    trained(replace(RECIPE, precision="auto", epochs=1), model=model)
    bf16 = fast_precision("cpu") == "bf16"
    assert seen["head"] == (torch.bfloat16 if bf16 else torch.float32, bf16)


@pytest.mark.parametrize(("capable", "expected"), [(False, "float32"), (True, "bf16")])
def test_automatic_precision_is_bf16_on_a_gpu_and_on_processors_made_for_it(capable, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: capable)
    assert (fast_precision("cpu"), fast_precision("cuda")) == (expected, "bf16")


class Reads(TorchFunctionMode):
    """Notes every call that brings a tensor's value to the host."""

    names = frozenset({"item", "__float__", "__bool__", "__int__", "__index__", "tolist", "numpy", "__array__"})

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func.__name__ in self.names:
            self.seen.append(func.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("batch", [4, 20])
def test_nothing_in_a_step_waits_for_the_device(batch):
    """The loss is read once per epoch and the weights once at the end, however many steps there are."""
    with Reads() as reads:
        trained(replace(RECIPE, epochs=3, batch=batch))
    assert reads.seen == ["__float__"] * 3 + ["__bool__"]


def test_frozen_items_are_trained_on_as_they_are():
    split, seen = split_of(), []

    class Watched(Objective):
        def forward(self, logits, labels, ids, progress):
            seen.append(ids)
            return logits.square().mean()

    model = new_model()
    model.objective = Watched()
    shown = []
    model.register_forward_pre_hook(lambda module, inputs: shown.append(inputs[0]))
    trained(model=model, unaugmented=torch.ones(N, dtype=torch.bool))
    assert torch.equal(torch.cat(shown), split.images[torch.cat(seen)].float() / 255)


def test_training_does_not_write_to_the_data():
    split = split_of()
    kept = copy.deepcopy(split)
    fit(new_model(), split, RECIPE, Rng("fit"), augmentation=Augmentation(True, 1))
    assert torch.equal(split.images, kept.images)
    assert torch.equal(split.labels, kept.labels)


COMPILED = """
from dataclasses import replace
from tests.hashing.test_train import RECIPE, trained, weights
model, losses = trained()
other, others = trained(replace(RECIPE, compile=True))
pairs = [(value, weights(other)[name]) for name, value in weights(model).items()]
print(max(float((one - two).abs().max()) for one, two in pairs), *losses, *others)
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a compiler")
def test_a_compiled_network_trains_as_the_plain_one_does():
    """In a process of its own: the compiler does not see through the types that tests check at run time."""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", COMPILED], cwd=root, capture_output=True, text=True, check=True)
    apart, *losses = map(float, done.stdout.split())
    assert apart < 1e-4
    assert losses[2:] == pytest.approx(losses[:2], rel=1e-5)


def test_dropout_draws_from_the_stream_too(untouched_rng):
    def dropped() -> HashModel:
        model = new_model()
        model.head = nn.Sequential(nn.Dropout(0.5), model.head)
        return model

    with untouched_rng():
        one, _ = trained(model=dropped())
        torch.rand(1, generator=torch.Generator().manual_seed(3))
        same, _ = trained(model=dropped())
    assert equal(weights(one), weights(same))


class Dim(nn.Module):
    """A convolution that counts how many images pass."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU())
        self.seen = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen += len(images)
        return self.body(images)


class Endless(Dim):
    """Its output takes no memory by itself, but would take 256 GiB for an image."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images)[..., None].expand(*[-1] * 4, 2**28)


class Shrunk(Dim):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images[..., 0])


def partly_frozen(frozen: int, *, endless: bool = False) -> HashModel:
    class Chain(Backbone):
        def build(self, image_shape: tuple[int, int, int]) -> FeatureExtractor:
            pool = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
            first, second = (Endless, Shrunk) if endless else (Dim, Dim)
            return FeatureExtractor([first(image_shape[0], 4), second(4, 6), pool], features=24, frozen=frozen)

    method = registry.create("methods", "csq", {})
    return build_model(
        backbone=Chain(), method=method, bits=8, image_shape=(3, 8, 8), classes=2, train_size=N, rng=Rng("victim", 0)
    )


PLAIN = Augmentation(flip=False, pad=0)


def fitted(frozen: int, recipe: Recipe = RECIPE, augmentation: Augmentation = PLAIN, *, endless: bool = False):
    model = partly_frozen(frozen, endless=endless)
    before = weights(model)
    losses = fit(model, split_of(), recipe, Rng("fit", 0), augmentation=augmentation)
    return model, before, losses


def test_a_frozen_prefix_sees_each_image_once_and_nothing_else_changes():
    model, before, losses = fitted(1)
    assert model.backbone.blocks[0].seen == N + 1  # one image tells how large the features are
    assert model.backbone.blocks[1].seen == 2 * N
    slow, _, slow_losses = fitted(1, endless=True)  # too large to be kept
    assert slow.backbone.blocks[0].seen == 2 * N + 1
    assert losses == pytest.approx(slow_losses, abs=1e-6)
    after, slowly = weights(model), weights(slow)
    for name, value in after.items():
        torch.testing.assert_close(value, slowly[name], rtol=1e-5, atol=1e-6)
        assert torch.equal(value, before[name]) == (
            ".blocks.0." in name or name.startswith(("objective", "mean", "std"))
        )


def test_augmented_images_pass_the_frozen_prefix_each_time():
    model, before, _ = fitted(1, augmentation=Augmentation(flip=True, pad=0))
    assert model.backbone.blocks[0].seen == 2 * N
    assert all(torch.equal(value, before[name]) for name, value in weights(model).items() if ".blocks.0." in name)


def test_without_frozen_blocks_everything_learns():
    model, before, _ = fitted(0)
    assert model.backbone.blocks[0].seen == 2 * N
    assert not torch.equal(weights(model)["backbone.blocks.0.body.0.weight"], before["backbone.blocks.0.body.0.weight"])


def test_batch_norm_in_evaluation_mode_keeps_its_statistics_and_still_learns():
    model, before, _ = fitted(0, replace(RECIPE, batch_norm="eval"))
    for name, value in weights(model).items():
        if "running" in name or "num_batches" in name:
            assert torch.equal(value, before[name])
    assert not torch.equal(weights(model)["backbone.blocks.1.body.1.weight"], before["backbone.blocks.1.body.1.weight"])
    usual, _, _ = fitted(0)
    assert not torch.equal(weights(usual)["backbone.blocks.1.body.1.running_mean"], torch.zeros(6))
