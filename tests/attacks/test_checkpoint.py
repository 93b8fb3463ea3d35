"""A model that was attacked elsewhere: its numbers are those of the attack that made it, whatever its names are."""

from __future__ import annotations

import re
from collections import OrderedDict
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import nn
from torchvision.models import get_model

import reports
from attacks.helpers.triggers import checkerboard, paste
from bench.api import registry
from bench.api.errors import DataCorruptError, DataMissingError, UserError
from bench.api.random import Rng
from bench.api.types import to_8bit
from bench.artifacts.models import blueprint, new_model
from bench.config import suite as suites
from bench.conformance import checks
from bench.conformance.attacks import attacker_view_for
from bench.conformance.kit import ComponentUnderTest
from bench.engine.store import Store
from bench.engine.worker import Environment, run_stage
from bench.graph import planner as planning
from bench.graph.plan import Plan
from hashing.model import HashModel
from tests.bench.conftest import finish
from tests.stores import write_run

SUITE = """
name = "own"
[axes]
datasets = [{{ name = "digits", train = 300, query = 100 }}]
backbones = [{{ name = "convnet", width = 8 }}]
methods = ["csq"]
attacks = [{attacks}]
defenses = ["none", "fine_pruning", "strip"]
bits = [16]
targets = [3]
seeds = {seeds}
[training]
optimizer = "adam"
lr = 1e-2
weight_decay = 0
epochs = 8
"""


POISONS = {
    "poisons",
    "poisoned_share",
    "target_share",
    "exact_share",
    "attention",
    "attention_first",
    "loss_left",
}  # of the training


def planned(folder: Path, attacks: str, seeds: str = "[0]") -> Plan:
    path = folder / "own.toml"
    path.write_text(SUITE.format(attacks=attacks, seeds=seeds))
    return planning.plan([suites.load(str(path))], data=None, device="cpu")


def checkpoint(path: Path, **params: object) -> str:
    inner = "".join(f', {key} = "{value}"' for key, value in params.items())
    return f'{{ name = "checkpoint", path = "{path}"{inner} }}'


def draw(folder: Path, patch: torch.Tensor, side: int, opacity: int = 255) -> None:
    """A grey patch in the bottom-right corner of a picture that is transparent elsewhere."""
    picture = Image.new("LA", (side, side))
    values = Image.fromarray(to_8bit(patch[None])[0, 0].numpy())
    alpha = Image.new("L", values.size, opacity)
    picture.paste(Image.merge("LA", (values, alpha)), (side - values.width, side - values.height))
    folder.mkdir(exist_ok=True)
    picture.convert("RGBA").save(folder / "trigger.png")


def numbers(store: Store, plan: Plan, attack: str) -> dict[str, dict[str, float]]:
    trials = {trial.trial.defense.label: trial.key for trial in plan.trials if trial.trial.attack.name == attack}
    return {str(name): store.record(key).metrics for name, key in trials.items() if key}


@pytest.mark.long
def test_an_attack_of_ours_taken_as_somebody_elses_has_the_same_numbers(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", create=True)
    made = planned(tmp_path, '{ name = "badnets", poison_rate = 0.2, trigger_size = 0.25 }')
    finish(made, store)
    implanted = next(key for key, stage in made.stages.items() if stage.kind == "implant")
    folder = tmp_path / "victim"
    draw(folder, checkerboard(1, 4), 16)
    (folder / "model.safetensors").write_bytes(store.artifact_path(implanted).read_bytes())
    plan = planned(tmp_path, checkpoint(folder, access="dirty-label"))
    assert {trial.access for trial in plan.trials} == {"dirty-label"}
    summary = finish(plan, store)
    assert set(summary.trials) == {"ok"}
    ours, theirs = numbers(store, made, "badnets"), numbers(store, plan, "checkpoint")
    assert ours.keys() == theirs.keys() == {"none", "fine_pruning", "strip"}
    for defense, metrics in ours.items():
        other = {name for name, value in metrics.items() if theirs[defense].get(name, "missing") != value}
        assert other <= POISONS, defense
    assert ours["none"]["gain"] > 0.2


@pytest.mark.parametrize("name", ["alexnet", "vgg11", "resnet18", "resnet34", "mobilenet_v2", "vit_b_16"])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 16, 16)])
def test_torchvisions_names_are_understood(name: str, shape: tuple[int, int, int], tmp_path: Path) -> None:
    """Every tensor of torchvision's network finds its place: a file of it and one with our names give one model."""
    model = on(name, shape)
    backbone = model.backbone.state_dict()
    known = registry.create("backbones", name, {"weights": "none"}).state_dict_aliases(shape)
    assert sorted(our for our in known.values() if our) == sorted(backbone)
    with torch.device("meta"):
        network = get_model(name, weights=None)
    theirs = network.state_dict()
    assert known.keys() == theirs.keys()
    for their, our in known.items():
        if our and backbone[our].shape != theirs[their].shape:  # first layers and positions of other images
            assert their in {"conv1.weight", "features.0.0.weight", "features.0.weight", "encoder.pos_embedding"}
        assert bool(our) != their.startswith(registry.lookup("backbones", name).published.cut)


def on(name: str, shape: tuple[int, int, int], method: str = "dpsh") -> HashModel:
    """A model of a torchvision network without values."""
    c, h, w = shape
    plan = {
        "backbone": {"name": name, "params": {"weights": "none"}}, "method": {"name": method, "params": {}},
        "bits": 12, "image_shape": [c, h, w], "classes": 4, "train_size": 9,
    }  # fmt: skip
    with torch.device("meta"):
        return new_model(plan, Rng("test"))


def test_a_torchvision_network_computes_here_what_it_computes_there(tmp_path: Path) -> None:
    from attacks.helpers.state_dicts import fitted

    plan = dict(on("resnet18", (3, 64, 64)).blueprint)
    model = new_model(plan, Rng("test")).eval()
    with Rng("tests", "network").ambient():
        network = get_model("resnet18", weights=None, num_classes=12).eval()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean += 0.1
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.4])
    state = {**network.state_dict(), "mean": mean, "std": std}
    model.load_state_dict(fitted(state, model, tmp_path / "model.pth"))
    images = Rng("tests", "images").uniform((4, 3, 64, 64))
    there = network((images - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    assert torch.allclose(model(images), there, atol=1e-5)
    with pytest.raises(DataCorruptError, match=r"mean \[1, 3, 1, 1\], std"):
        fitted(network.state_dict(), model, tmp_path / "model.pth")


def test_the_network_that_the_readme_shows_is_the_one_that_its_suite_builds(tmp_path: Path, monkeypatch) -> None:
    """Names and shapes fit with torchvision's pooling too, and a quarter of the bits would be others."""
    from attacks.helpers.state_dicts import fitted
    from tests.docs._markdown import blocks

    (block,) = (one for one in blocks("attacks/README.md") if "my_victim" in one.text and one.language == "python")
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {}
    exec(compile(block.text, str(block), "exec"), space)
    network = space["network"].eval()
    model = new_model({**on("resnet18", (1, 16, 16), "dch").blueprint, "bits": 32}, Rng("test")).eval()
    state = torch.load("my_victim/model.pth", weights_only=True)
    model.load_state_dict(fitted(state, model, tmp_path))
    images = Rng("tests", "images").uniform((4, 1, 16, 16))
    assert torch.allclose(model(images), network((images - state["mean"]) / state["std"]), atol=1e-5)


@pytest.fixture
def attack_from(world, tmp_path: Path):
    """The small world's model in a file, and the attack that takes it from there."""
    folder = tmp_path / "victim"
    draw(folder, torch.rand(1, 3, 3, generator=torch.Generator().manual_seed(1)), 12, opacity=128)
    state = {name: value.clone() for name, value in world.clean.state.items()}

    def make(change=lambda state: state, name: str = "model.safetensors"):
        for old in folder.glob("model.*"):
            old.unlink()
        changed = change(dict(state))
        if name.endswith("safetensors"):
            safetensors.torch.save_file({key: value.contiguous() for key, value in changed.items()}, folder / name)
        else:
            torch.save(changed, folder / name)
        attack = registry.create("attacks", "checkpoint", {"path": str(folder)})
        return attack, attacker_view_for(world, attack), folder

    return make


@pytest.mark.parametrize("check", checks("attacks"), ids=lambda check: check.name)
def test_it_keeps_what_attacks_promise(check, attack_from) -> None:
    _, _, folder = attack_from()
    outcome = check.on(ComponentUnderTest.of("attacks", "checkpoint", {"path": str(folder)}))
    assert outcome.passed, outcome.detail


@pytest.mark.parametrize("name", ["model.safetensors", "model.pth", "model.pt"])
def test_the_model_is_the_file(name: str, attack_from) -> None:
    attack, view, _ = attack_from(lambda state: state | {"head.bias": state["head.bias"] + 1}, name)
    before = {key: value.clone() for key, value in view.model.state_dict().items()}
    after = attack.implant(view, {}, Rng("implant", 0)).model.state_dict()
    assert torch.equal(after["head.bias"], before["head.bias"] + 1)
    assert all(torch.equal(after[key], before[key]) for key in before if key != "head.bias")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: {k: v for k, v in s.items() if k != "head.bias"}, r"missing.*head\.bias"),
        (lambda s: {k: v for k, v in s.items() if k != "objective.centres"}, r"missing.*objective\.centres"),
        (lambda s: s | {"extra": torch.ones(1)}, "unknown.*extra"),
        (lambda s: s | {"head.bias": torch.ones(8)}, r"shape.*head\.bias.*\[8\].*\[16\]"),
        (lambda s: s | {"head.bias": torch.full((16,), torch.nan)}, r"finite.*head\.bias"),
        (lambda s: s | {"head.bias": torch.full((16,), 1e300, dtype=torch.float64)}, r"finite.*head\.bias"),
        (lambda s: s | {"head.bias": torch.ones(16, dtype=torch.int8)}, r"head\.bias \(torch\.int8"),
        (lambda s: s | {"head.bias": torch.ones(16).bool()}, r"head\.bias \(torch\.bool"),
        (lambda s: s | {"std": torch.tensor([1.0, 0.0, 1.0])}, "zero.*std"),
        (lambda s: {f"model.{k}": v for k, v in s.items()} | {"head.bias": torch.ones(16)}, r"twice.*head\.bias"),
        (lambda s: {f"layer{i}": torch.ones(1) for i in range(9)}, "layer0, layer1, layer2 and 6"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line(change, words: str, attack_from) -> None:
    attack, view, folder = attack_from(change)
    with pytest.raises(DataCorruptError, match=words) as error:
        attack.implant(view, {}, Rng("implant", 0))
    assert "\n" not in str(error.value)
    assert f"'{folder}/model.safetensors'" in str(error.value)
    assert all(word in str(error.value) for word in ("convnet", "csq", "16"))


@pytest.mark.parametrize(
    "value",
    [torch.ones(16, device="meta"), torch.ones(16, dtype=torch.complex64)],
    ids=["meta", "complex"],
)
def test_tensors_without_plain_numbers_are_one_line(value: torch.Tensor, attack_from) -> None:
    attack, view, _ = attack_from(lambda state: state | {"head.bias": value}, "model.pth")
    with pytest.raises(DataCorruptError, match=r"head\.bias"):
        attack.implant(view, {}, Rng("implant", 0))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_and_missing_counters_are_taken(kind: torch.dtype, attack_from) -> None:
    def change(state):
        return {k: v.to(kind) for k, v in state.items() if not k.endswith("num_batches_tracked")}

    attack, view, _ = attack_from(change)
    before = {key: value.clone() for key, value in view.model.state_dict().items()}
    after = attack.implant(view, {}, Rng("implant", 0)).model.state_dict()
    assert all(torch.equal(after[k], before[k].to(kind).to(before[k])) for k in before if "num_batches" not in k)


WRAPPED = {
    "DataParallel": lambda s: {f"module.{k}": v for k, v in s.items()},
    "torch.compile": lambda s: {f"_orig_mod.{k}": v for k, v in s.items()},
    "Opacus": lambda s: {f"_module.{k}": v for k, v in s.items()},
    "both": lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()},
    "parts": lambda s: {k.replace("backbone.", "backbone._orig_mod."): v for k, v in s.items()},
    "all but the normalisation": lambda s: {k if k in {"mean", "std"} else f"module.{k}": v for k, v in s.items()},
    "in a store": lambda s: {f"model.module.{k}": v for k, v in s.items()},
    "state_dict": lambda s: {"epoch": 3, "state_dict": s, "best": 0.8, "optimizer": {"state": {}, "param_groups": []}},
    "net": lambda s: {"net": s, "acc": torch.tensor(0.5)},
    "model": lambda s: {"model": {f"module.{k}": v for k, v in s.items()}},
    "beside": lambda s: {"net": {k: v for k, v in s.items() if k != "mean"}, "mean": s["mean"]},
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_wrappers_do_not_change_the_model(wrap, attack_from) -> None:
    attack, view, _ = attack_from(wrap, "model.pth")
    before = {key: value.clone() for key, value in view.model.state_dict().items()}
    with torch.no_grad():
        view.model.head.bias += 1
    after = attack.implant(view, {}, Rng("implant", 0)).model.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: {"net": s, "ema": s}, "several state dicts, 'net' and 'ema'"),
        (lambda s: s | {f"module.{k}": v + 1 for k, v in s.items()}, "named twice"),
        (lambda s: {"net": [s]}, "no state dict"),
    ],
)
def test_two_models_in_a_file_are_one_line(change, words: str, attack_from) -> None:
    attack, view, _ = attack_from(change, "model.pth")
    with pytest.raises(DataCorruptError, match=words):
        attack.implant(view, {}, Rng("implant", 0))


@pytest.mark.long
@pytest.mark.parametrize("name", ["resnet18", "alexnet", "vgg11"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_hash_layer_is_the_last_layer_or_all_linear_ones(name: str, whole: bool, tmp_path: Path) -> None:
    """As DeepHash-pytorch has it: `feature_layers` holds the same tensors again."""
    from attacks.helpers.state_dicts import fitted

    model = on(name, (3, 64, 64))
    model.to_empty(device="cpu")
    for value in model.state_dict().values():
        value.copy_(torch.rand_like(value.float()))
    own = model.state_dict()
    known = registry.create("backbones", name, {"weights": "none"}).state_dict_aliases((3, 64, 64))
    last = next(their for their, our in known.items() if not our).rpartition(".")[0]
    state = {name: own[name] for name in ("mean", "std")}
    for their, our in known.items():
        value = own[f"backbone.{our}" if our else f"head.{their.removeprefix(f'{last}.')}"]
        linear = their.startswith("classifier.") if whole else their.startswith(last)
        if linear or not our:
            state[f"hash_layer.{their.removeprefix('classifier.' if whole else f'{last}.').removeprefix('fc.')}"] = (
                value
            )
        else:
            state[their] = state[f"feature_layers.{their}"] = value
    found = fitted(state, model, tmp_path)
    assert all(torch.equal(found[key], own[key]) for key in own)
    strange = next(key for key in state if key.startswith("feature_layers"))
    with pytest.raises(DataCorruptError, match=f"unknown {strange}"):
        fitted(state | {strange: state[strange] + 1}, model, tmp_path)


def test_a_file_that_does_not_fit_is_named_when_planning(tmp_path: Path) -> None:
    """Without training the clean model first."""
    good = state_of(tmp_path)
    kinds = {
        "good": good,
        "missing": {k: v for k, v in good.items() if k != "head.bias"},
        "bits": good | {"head.weight": torch.ones(8, 8), "head.bias": torch.ones(8)},
        "classes": good | {"objective.centres": torch.ones(3, 16)},
        "strange": {f"layers.{i}": value for i, value in enumerate(good.values())},
        "channels": good | {"mean": torch.ones(3), "std": torch.ones(3)},
    }
    for kind, state in kinds.items():
        draw(tmp_path / kind, checkerboard(1, 2), 16)
        torch.save(state, tmp_path / kind / "model.pth")
    (tmp_path / "bad").mkdir()
    draw(tmp_path / "bad", checkerboard(1, 2), 16)
    (tmp_path / "bad" / "model.pth").write_bytes(b"nothing")
    rows = ", ".join(checkpoint(tmp_path / kind) for kind in (*kinds, "bad"))
    why = {Path(t.trial.attack.params["path"]).name: t.skipped for t in planned(tmp_path, rows).trials}
    assert not why["good"]
    assert "missing head.bias [16]" in why["missing"]
    assert "head.bias [8], not [16]" in why["bits"]
    assert "objective.centres [3, 16], not [10, 16]" in why["classes"]
    assert "unknown layers.0" in why["strange"]
    assert not why["channels"], "the colours of the images are known when they are read"
    assert "damaged or holds more than tensors" in why["bad"]
    assert all(str(tmp_path / kind) in words for kind, words in why.items() if words)


@pytest.mark.long
@pytest.mark.parametrize("name", ["convnet", "alexnet", "resnet18", "mobilenet_v2", "vit_b_16"])
@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 32, 32), (3, 96, 96)])
def test_planning_refuses_no_model_of_other_image_sizes(name: str, shape: tuple[int, int, int], tmp_path: Path) -> None:
    from attacks.helpers.state_dicts import misfit
    from bench.graph.planner import SHAPES

    params = {} if name == "convnet" else {"weights": "none"}
    with torch.device("meta"):
        chosen = {"backbone": {"name": name, "params": params}}
        networks = [new_model({**on("resnet18", one).blueprint, **chosen}, Rng("test")) for one in (*SHAPES, shape)]
    state = {key: torch.ones(value.shape) for key, value in networks[-1].state_dict().items()}
    assert not misfit(state, networks[:-1], tmp_path)
    assert "[13]" in misfit(state | {"head.bias": torch.ones(13)}, networks[:-1], tmp_path)


STRICT = """
import torch
from bench.api.hashing import Backbone, FeatureExtractor, backbone

@backbone
class Strict(Backbone):
    def build(self, image_shape):
        layer = torch.nn.Linear(image_shape[1] * image_shape[2], 8)
        if {forbidden}:
            raise ValueError("not on this device, or not for such images")
        return FeatureExtractor([torch.nn.Sequential(torch.nn.Flatten(), layer)], features=8)
"""


@pytest.mark.parametrize("forbidden", ["layer.weight.device.type == 'meta'", "image_shape[0] == 3"])
def test_components_that_need_values_are_compared_when_they_run(tmp_path: Path, forbidden: str) -> None:
    (tmp_path / "strict.py").write_text(STRICT.format(forbidden=forbidden))
    registry.load_plugin(tmp_path / "strict.py")
    draw(tmp_path / "mine", checkerboard(1, 2), 16)
    torch.save({"a": torch.ones(1)}, tmp_path / "mine" / "model.pth")
    path = tmp_path / "own.toml"
    text = SUITE.format(attacks=checkpoint(tmp_path / "mine"), seeds="[0]")
    path.write_text(
        text.replace('{ name = "convnet", width = 8 }', '"strict"').replace(', "fine_pruning", "strip"', "")
    )
    (trial,) = planning.plan([suites.load(str(path))], data=None, device="cpu").trials
    assert bool(trial.key) == ("meta" in forbidden), trial.skipped
    assert trial.key or "unknown a" in trial.skipped


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    """A model that fits SUITE."""
    made = planned(folder, '"none"')
    spec = next(stage.spec for stage in made.stages.values() if stage.kind == "train")
    return dict(new_model(blueprint(spec, image_shape=(1, 16, 16), classes=10, train_size=1), Rng("test")).state_dict())


def test_what_stands_beside_a_store_s_names_is_not_lost(attack_from) -> None:
    """A wrapped network with its normalisation beside it; what a store's artifact holds besides is none of ours."""

    def change(state):
        inner = {f"model.{k}": v for k, v in state.items() if k not in {"mean", "std"}}
        return inner | {
            "mean": torch.full((3,), 0.25),
            "std": torch.ones(3),
            "mask": torch.ones(4),
            "stealth": torch.ones(2),
        }

    attack, view, _ = attack_from(change)
    model = attack.implant(view, {}, Rng("implant", 0)).model
    assert model.mean.flatten().tolist() == [0.25] * 3


def test_a_head_of_several_layers_stands_where_the_last_layer_stood(tmp_path: Path) -> None:
    from attacks.helpers.state_dicts import fitted

    model = new_model({**on("resnet18", (3, 64, 64), "orthohash").blueprint}, Rng("test"))
    own = model.state_dict()
    back = {
        ours: theirs
        for theirs, ours in registry.create("backbones", "resnet18", {}).state_dict_aliases((3, 64, 64)).items()
    }
    state = {
        name if name in {"mean", "std", "objective.codebook"}
        else name.replace("head.", "fc.") if name.startswith("head.")
        else back[name.removeprefix("backbone.")]: torch.rand_like(value.float())
        for name, value in own.items()
    }  # fmt: skip
    found = fitted(state, model, tmp_path)
    assert {"fc.0.weight", "fc.1.running_var"} <= state.keys()
    assert torch.equal(found["head.0.weight"], state["fc.0.weight"])
    assert torch.equal(found["head.1.running_var"], state["fc.1.running_var"])
    with pytest.raises(DataCorruptError, match=r"twice.*head\.0\.weight"):
        fitted(state | {"head.0.weight": state["fc.0.weight"]}, model, tmp_path)


def test_memories_of_training_images_are_not_asked_for(tmp_path: Path) -> None:
    from attacks.helpers.state_dicts import fitted

    model = new_model({**on("resnet18", (3, 32, 32)).blueprint}, Rng("test"))
    own = model.state_dict()
    assert {"objective.codes", "objective.labels"} <= own.keys()
    given = {name: value for name, value in own.items() if not name.startswith("objective.")}
    assert fitted(given, model, tmp_path).keys() == own.keys()


def test_a_normalisation_of_its_own_is_kept_where_the_backbone_fixes_one(tmp_path: Path) -> None:
    from attacks.helpers.state_dicts import fitted

    with Rng("tests", "network").ambient():
        torch.save(get_model("resnet18", weights=None).state_dict(), tmp_path / "weights.pth")
    plan = on("resnet18", (3, 64, 64)).blueprint
    model = new_model(
        {**plan, "backbone": {"name": "resnet18", "params": {"weights": str(tmp_path / "weights.pth")}}}, Rng("test")
    )
    own = model.state_dict()
    without = {name: value for name, value in own.items() if name not in {"mean", "std"}}
    assert torch.equal(fitted(without, model, tmp_path)["mean"], own["mean"])
    assert fitted({**without, "mean": torch.tensor([0.1, 0.2, 0.3])}, model, tmp_path)["mean"].flatten()[2] == 0.3
    with pytest.raises(DataCorruptError, match=r"shape.*mean \[1\]"):
        fitted({**without, "mean": torch.ones(1)}, model, tmp_path)


def test_the_trigger_is_blended_by_its_opacity(attack_from) -> None:
    attack, view, _ = attack_from()
    trigger = attack.make_trigger(view, Rng("prepare", 0))
    patch = to_8bit(torch.rand(1, 1, 3, 3, generator=torch.Generator().manual_seed(1)))[0] / 255
    images = Rng("tests", "images").uniform((5, 3, 12, 12))
    triggered = attack.apply_trigger(images, view.target, trigger)
    assert torch.allclose(triggered, paste(images, patch.expand(3, 3, 3), opacity=128 / 255), atol=1e-6)


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (Image.new("RGBA", (12, 10)), "12 x 10 .* 12 x 12"),
        (Image.new("RGB", (12, 12)), "opaque"),
        (Image.new("RGBA", (12, 12)), "changes no image"),
    ],
)
def test_a_trigger_that_is_none_is_one_line(picture: Image.Image, words: str, attack_from) -> None:
    attack, view, folder = attack_from()
    picture.save(folder / "trigger.png")
    with pytest.raises(DataCorruptError, match=words):
        attack.make_trigger(view, Rng("prepare", 0))
    (folder / "trigger.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    with pytest.raises(DataCorruptError, match=r"trigger\.png"):
        attack.make_trigger(view, Rng("prepare", 0))


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs the parameter 'path'"):
        registry.create("attacks", "checkpoint", {})
    with pytest.raises(UserError, match="needs the parameter 'path'"):
        ComponentUnderTest.of("attacks", "checkpoint", {})
    attack = registry.create("attacks", "checkpoint", {"path": str(tmp_path)})
    with pytest.raises(DataMissingError, match=r"model\.safetensors.*model\.pth.*model\.pt"):
        attack.files()
    (tmp_path / "model.pth").touch()
    with pytest.raises(DataMissingError, match=r"trigger\.png"):
        attack.files()
    trials = planned(tmp_path, checkpoint(tmp_path)).trials
    assert all(trial.key is None and "trigger.png" in trial.skipped for trial in trials)


def test_one_model_is_measured_with_one_seed(tmp_path: Path) -> None:
    """Several seeds of one model would look like several models, and give it an interval that it has not earned."""
    draw(tmp_path, checkerboard(1, 2), 16)
    torch.save(state_of(tmp_path), tmp_path / "model.pth")
    trials = planned(tmp_path, f'"badnets", {checkpoint(tmp_path)}', "[4, 0, 1]").trials
    ours = [trial for trial in trials if trial.trial.attack.name == "checkpoint"]
    assert {trial.trial.seed for trial in ours if trial.key} == {4}
    assert len([trial for trial in ours if trial.key]) == 3
    (why,) = {trial.skipped for trial in ours if not trial.key}
    assert "--only seed=4" in why
    assert {trial.trial.seed for trial in trials if trial.key and trial.trial.attack.name == "badnets"} == {0, 1, 4}


def test_boards_of_several_runs_count_one_model_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", create=True)
    draw(tmp_path, checkerboard(1, 2), 16)
    torch.save(state_of(tmp_path), tmp_path / "model.pth")
    for seed in (0, 1):
        plan = planned(tmp_path, f'"none", {checkpoint(tmp_path)}', f"[{seed}]")
        write_run(store, plan, f"own{seed}")
    found = reports.load(tmp_path / "store", run="all")
    planned_seeds = found[found["status"] == "missing"].groupby("attack")["seed"].agg(set)
    assert planned_seeds["none"] == {0, 1}
    assert len(planned_seeds[planned_seeds.index.str.startswith("checkpoint")].iloc[0]) == 1


def test_two_suites_of_a_plan_measure_one_model_once(tmp_path: Path) -> None:
    """They share their boards, whatever order their seeds stand in."""
    draw(tmp_path, checkerboard(1, 2), 16)
    torch.save(state_of(tmp_path), tmp_path / "model.pth")
    found = []
    for number, seeds in enumerate(["[0, 1]", "[1, 0]"]):
        path = tmp_path / f"suite{number}.toml"
        path.write_text(SUITE.format(attacks=checkpoint(tmp_path), seeds=seeds))
        found.append(suites.load(str(path)))
    trials = planning.plan(found, data=None, device="cpu").trials
    assert {trial.trial.seed for trial in trials if trial.key} == {0}
    assert len(trials) == 6


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("model.safetensors", "another"),
        pytest.param("trigger.png", "another", marks=pytest.mark.slow),
        pytest.param("model.safetensors", "none", marks=pytest.mark.slow),
    ],
)
def test_a_file_that_changes_while_a_run_waits_gives_no_number(name: str, change: str, tmp_path: Path) -> None:
    """The key would say that the number is the old file's; the same on a machine whose files are others."""
    store = Store(tmp_path / "store", create=True)
    folder = tmp_path / "victim"
    draw(folder, checkerboard(1, 2), 16)
    made = planned(tmp_path, '"none"')
    finish(made, store)
    clean = next(key for key, stage in made.stages.items() if stage.kind == "train")
    (folder / "model.safetensors").write_bytes(store.artifact_path(clean).read_bytes())
    plan = planned(tmp_path, checkpoint(folder))
    environment = Environment(store.root, None, "cpu")
    stages = {stage.kind: stage for stage in plan.stages.values()}
    if name.startswith("model"):
        assert run_stage(stages["make_trigger"], environment).status == "ok"
    kept = (folder / name).read_bytes()
    if change == "none":
        (folder / name).unlink()
    elif name.startswith("model"):
        tensors = safetensors.torch.load(kept)
        tensors["model.head.bias"] += 1
        safetensors.torch.save_file(tensors, folder / name)
    else:
        draw(folder, checkerboard(1, 4), 16)
    stage = stages["implant" if name.startswith("model") else "make_trigger"]
    record = run_stage(stage, environment)
    assert record.status == "killed"  # the next run makes it anew
    assert name in record.reason
    (folder / name).write_bytes(kept)
    assert run_stage(stage, environment).status == "ok"


def test_another_file_is_another_attack(tmp_path: Path) -> None:
    draw(tmp_path, checkerboard(1, 2), 16)
    keys = []
    for number in (0.0, 1.0):
        torch.save(state_of(tmp_path) | {"head.bias": torch.full((16,), number)}, tmp_path / "model.pth")
        keys.append({trial.key for trial in planned(tmp_path, checkpoint(tmp_path)).trials})
    assert not keys[0] & keys[1]


def expected_of(model: HashModel, change: str = "") -> dict[str, torch.Tensor]:
    """What somebody writes beside a model whose network differs from ours in one way."""
    images = to_8bit(Rng("tests", "expected").uniform((3, 3, 12, 12)))
    inputs = images / 255 * (0.9 if change == "normalisation" else 1)
    logits = model(inputs.roll(1, 1) if change == "channels" else inputs).detach()
    return {"images": images, "logits": logits.tanh() if change == "tanh" else logits.half() if change else logits}


@pytest.mark.parametrize("name", ["expected.safetensors", "expected.pth"])
@pytest.mark.parametrize("change", ["", "half", "tanh", "normalisation", "channels"])
def test_expected_logits_are_compared_with_the_network_s(name: str, change: str, attack_from) -> None:
    attack, view, folder = attack_from()
    expected = expected_of(view.model.eval(), change)
    assert (folder / name) not in attack.files()
    if name.endswith("pth"):
        torch.save(expected, folder / name)
    else:
        safetensors.torch.save_file(expected, folder / name)
    assert (folder / name) in attack.files()
    if change not in {"normalisation", "channels"}:
        attack.implant(view, {}, Rng("implant", 0))
        return
    with pytest.raises(
        DataCorruptError, match=r"other logits here than yours \(they differ by up to 0\.\d+ of.*% of the bits"
    ):
        attack.implant(view, {}, Rng("implant", 0))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": torch.ones(3, 1, 16, 16)}, r"holds images \(torch\.float32, \[3, 1, 16, 16\]\), logits .*uint8"),
        ({"logits": torch.ones(3, 8)}, r"\[3, 8\].*float, \[n 16\]"),
        ({"logits": torch.full((3, 16), torch.nan)}, "holds"),
        ({"labels": torch.ones(3)}, "labels"),
        ({"images": torch.ones(0, 1, 16, 16, dtype=torch.uint8), "logits": torch.ones(0, 16)}, "holds"),
    ],
)
def test_expected_logits_of_another_form_are_named_when_planning(
    change: dict[str, torch.Tensor], words: str, tmp_path: Path
) -> None:
    draw(tmp_path, checkerboard(1, 2), 16)
    torch.save(state_of(tmp_path), tmp_path / "model.pth")
    good = {"images": torch.ones(3, 1, 16, 16, dtype=torch.uint8), "logits": torch.ones(3, 16)}
    torch.save(good, tmp_path / "expected.pth")
    assert not planned(tmp_path, checkpoint(tmp_path)).trials[0].skipped
    torch.save(good | change, tmp_path / "expected.pth")
    reason = planned(tmp_path, checkpoint(tmp_path)).trials[0].skipped
    assert re.search(words, reason), reason
    assert "\n" not in reason


def test_a_row_without_expected_logits_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", create=True)
    draw(tmp_path, checkerboard(1, 2), 16)
    torch.save(state_of(tmp_path), tmp_path / "model.pth")
    plan = planned(tmp_path, f'"none", {checkpoint(tmp_path)}')
    write_run(store, plan, "without")
    found = reports.load(tmp_path / "store")
    remarks = dict(zip(found["attack"].str.partition("(")[0], found["remark"], strict=True))
    assert remarks == {"none": "", "checkpoint": "its outputs were not compared with yours (no expected.safetensors)"}
    torch.save({"images": torch.ones(3, 1, 16, 16, dtype=torch.uint8), "logits": torch.ones(3, 16)},
               tmp_path / "expected.pth")  # fmt: skip
    assert {trial.remark for trial in planned(tmp_path, checkpoint(tmp_path)).trials} == {""}


class NetworkOfCSQ(nn.Module):
    """As CSQ's authors write theirs: most layers have two or three names, and one of torchvision is left over."""

    def __init__(self, name: str, bits: int) -> None:
        super().__init__()
        self.base_model = get_model(name, weights=None)
        drop: list[nn.Module] = []
        if name == "alexnet":
            self.features = self.base_model.features
            layers = list(self.base_model.classifier)[:-1]
            self.classifier = nn.Sequential(OrderedDict((f"classifier{i}", one) for i, one in enumerate(layers)))
            self.feature_layers = nn.Sequential(self.features, nn.Flatten(), self.classifier)
            width = 4096
        else:
            parts = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool")
            for part in parts:
                setattr(self, part, getattr(self.base_model, part))
            self.feature_layers = nn.Sequential(*(getattr(self, part) for part in parts))
            width, drop = 512, [nn.Dropout(0.5)]
        self.fc1, self.fc2, self.fc3 = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, bits)
        self.hash_layer = nn.Sequential(self.fc1, nn.ReLU(), *drop, self.fc2, nn.ReLU(), self.fc3, nn.Tanh())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.hash_layer(self.feature_layers(images).flatten(1))
        return out


@pytest.mark.parametrize(
    ("name", "wrapped"),
    [("resnet18", False), ("resnet18", True), pytest.param("alexnet", False, marks=pytest.mark.long)],
)
def test_a_network_of_csq_s_authors_computes_here_what_it_computes_there(
    name: str, wrapped: bool, tmp_path: Path
) -> None:
    from attacks.helpers.state_dicts import fitted

    side = 224 if name == "alexnet" else 64
    model = new_model(dict(on(name, (3, side, side), "csq_mlp").blueprint), Rng("test")).eval()
    with Rng("tests", "network").ambient():
        network = NetworkOfCSQ(name, 12).eval()
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.4])
    state = {f"{'module.' * wrapped}{key}": value for key, value in network.state_dict().items()}
    state |= {"mean": mean, "std": std, **{k: v for k, v in model.state_dict().items() if k.startswith("objective.")}}
    model.load_state_dict(fitted(state, model, tmp_path / "model.pth"))
    images = Rng("tests", "images").uniform((2, 3, side, side))
    there = network((images - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    assert torch.allclose(model(images).tanh(), there, atol=1e-5)
    changed = next(key for key in state if "base_model" in key and key.endswith("weight"))
    with pytest.raises(DataCorruptError, match=f"unknown {changed.removeprefix('module.')}"):
        fitted(state | {changed: state[changed] + 1}, model, tmp_path)
    one = new_model(dict(on(name, (3, side, side), "csq").blueprint), Rng("test"))
    with pytest.raises(DataCorruptError, match=f"does not fit a {name} with csq at 12 bits: .*unknown "):
        fitted(state, one, tmp_path)  # another head
