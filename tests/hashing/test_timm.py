"""The backbone timm against timm's own forward pass, and what it says about models, files and a missing package."""

from __future__ import annotations

import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bench.api import registry
from bench.api.errors import DataCorruptError, DataMissingError, UserError
from bench.api.random import Rng
from bench.conformance import checks
from bench.conformance.kit import ComponentUnderTest
from hashing.backbones.helpers.chain import chain_of
from hashing.inference import Inference
from hashing.model import HashModel
from tests.hashing.networks import built, images_of

timm = pytest.importorskip("timm", reason="needs timm: pip install 'hashdoor[timm]'")

# model, side (None: timm's own), blocks, blocks of the last stage, has batch norm, has maps of convolutions
MODELS = [
    ("test_resnet", None, 6, 1, True, True),
    ("resnet10t", 64, 6, 1, True, True),
    ("test_efficientnet", 64, 6, 1, True, True),
    ("test_convnext", 64, 5, 1, False, True),
    ("convnext_atto", 64, 5, 1, False, True),
    ("test_vit", 64, 7, 1, False, False),  # positions for any side in timm, for one side here
    ("vit_tiny_patch16_224", 64, 13, 3, False, False),
    ("vit_small_patch14_dinov2", 56, 13, 3, False, False),
    pytest.param("vit_small_patch16_dinov3", 64, 13, 3, False, False, marks=pytest.mark.long),
    ("vit_xsmall_patch16_clip_224", 64, 11, 2, False, False),
    pytest.param("swin_tiny_patch4_window7_224", None, 5, 1, False, False, marks=pytest.mark.long),
]
SMALL = ["test_efficientnet", "test_convnext", "test_vit"]


def made(model: str, **params):
    return registry.create("backbones", "timm", {"model": model, **params})


def theirs(model: str, side: int | None, **options):
    """Timm's own network, its size given in timm's way."""
    config = timm.get_pretrained_cfg(model)
    if side and config.fixed_input_size:
        options["img_size"] = side
    with Rng("network", 0).ambient():
        return timm.create_model(model, num_classes=0, **options)


def hash_model(model: str, shape: tuple[int, int, int], **params) -> HashModel:
    """A model with 16 bits whose batch norms have seen images."""
    method = registry.create("methods", "csq", {})
    body = built(made(model, **params), shape)
    objective = method.objective(bits=16, classes=4, train_size=8, rng=Rng("objective"))
    network = HashModel(body, method.head(body.features, 16), objective, method, shape[0])
    for _ in range(3):
        network.train()(images_of(16, shape))
    return network.eval()


@pytest.mark.parametrize(("model", "side", "blocks", "last", "norm", "maps"), MODELS)
@torch.no_grad()
def test_features_are_timms(model, side, blocks, last, norm, maps):
    backbone, reference = made(model, size=side), theirs(model, side).eval()
    height = side or timm.get_pretrained_cfg(model).input_size[1]
    body = built(backbone, (3, height, height)).eval()  # the same random weights
    images = images_of(2, (3, height, height))
    expected = reference.forward_head(reference.forward_features(images))
    assert body(images).shape == (2, body.features) == expected.shape
    assert bool(expected.std() > 1e-3)
    torch.testing.assert_close(body(images), expected, rtol=1e-5, atol=1e-5)
    assert (len(body.blocks), body.last_stage) == (blocks, last)
    assert (backbone.batch_norm(), backbone.convolutional()) == (norm, maps)
    assert backbone.per_image() is (None if norm else backbone)
    assert sum(p.numel() for p in body.parameters()) == sum(p.numel() for p in reference.parameters())


@torch.no_grad()
def test_images_are_enlarged_to_timms_side_and_grey_ones_get_three_colours():
    images = images_of(2, (1, 20, 16))
    enlarged = nn.functional.interpolate(images, size=(160, 160), mode="bilinear", align_corners=False)
    expected = theirs("test_convnext", None).eval()(enlarged.repeat(1, 3, 1, 1))
    torch.testing.assert_close(built(made("test_convnext"), (1, 20, 16)).eval()(images), expected)


@pytest.mark.parametrize("check", checks("backbones"), ids=lambda check: check.name)
@pytest.mark.parametrize("model", SMALL)
def test_promises_of_backbones(model, check):
    outcome = check.on(ComponentUnderTest.of("backbones", "timm", {"model": model, "size": 32}))
    assert outcome.passed, outcome.detail


@pytest.mark.parametrize(("model", "inner"), [("test_convnext", "stages"), ("test_vit", "blocks")])
def test_frozen_blocks_are_the_first_stages_and_the_others_learn(model, inner):
    body = built(made(model, size=32, frozen=2), (3, 32, 32))
    after, whole = theirs(model, 32), dict(built(made(model, size=32), (3, 32, 32)).named_parameters())
    still = {name for name, value in body.named_parameters() if not value.requires_grad}
    assert still < set(whole)
    later = tuple(f"{inner}.{i}." for i in range(2, 10))
    ends = ("norm.", "norm_pre.", "fc_norm.", "head.")
    assert {name.partition("network.")[2] for name in still} == {
        name for name, _ in after.named_parameters() if not name.startswith((*later, *ends))
    }
    body.train()(images_of(8, (3, 32, 32))).square().sum().backward()
    assert {name for name, value in body.named_parameters() if value.grad is None} == still
    assert not any(module.training for block in body.blocks[:2] for module in block.modules())


@pytest.mark.parametrize("model", ["test_resnet", "test_efficientnet"])
@torch.no_grad()
def test_codes_without_gradients_are_those_of_the_model(model):
    network, images = hash_model(model, (3, 16, 16), size=32), images_of(40, (3, 16, 16))
    asked = Inference(network, (3, 16, 16))
    folded = sum(isinstance(module, nn.BatchNorm2d) for module in asked._model.modules())
    assert folded < sum(isinstance(module, nn.BatchNorm2d) for module in network.modules()) or model != "test_resnet"
    expected = network(images)
    torch.testing.assert_close(asked.logits(images), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@torch.no_grad()
def test_weights_of_a_file_come_with_timms_normalisation_and_without_the_classifier(suffix, tmp_path):
    with Rng("file").ambient():
        whole = timm.create_model("vit_xsmall_patch16_clip_224", num_classes=7, img_size=64).eval()
    path = tmp_path / f"clip{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(whole.state_dict(), path)
    body = built(made("vit_xsmall_patch16_clip_224", size=64, weights=str(path)), (3, 64, 64)).eval()
    images = images_of(2, (3, 64, 64))
    torch.testing.assert_close(body(images), whole.forward_head(whole.forward_features(images), pre_logits=True))
    config = timm.get_pretrained_cfg("vit_xsmall_patch16_clip_224")
    assert body.normalisation == (config.mean, config.std) != ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert built(made("test_vit", size=32), (3, 32, 32)).normalisation is None


@torch.no_grad()
def test_positions_of_a_file_are_interpolated_by_timm(tmp_path):
    with Rng("file").ambient():
        large = timm.create_model("vit_small_patch14_dinov2", img_size=112)
    torch.save(large.state_dict(), tmp_path / "dino.pth")
    body = built(made("vit_small_patch14_dinov2", size=56, weights=str(tmp_path / "dino.pth")), (3, 56, 56))
    positions = next(value for name, value in body.named_parameters() if name.endswith("pos_embed"))
    grid = large.pos_embed[:, 1:].unflatten(1, (8, 8)).permute(0, 3, 1, 2)
    expected = nn.functional.interpolate(grid, size=(4, 4), mode="bicubic", antialias=True).flatten(2).transpose(1, 2)
    torch.testing.assert_close(positions[:, 1:], expected)
    torch.testing.assert_close(positions[:, :1], large.pos_embed[:, :1])


def test_a_tag_chooses_the_normalisation_of_other_weights(tmp_path):
    torch.save(timm.create_model("vit_tiny_patch16_224").state_dict(), tmp_path / "vit.pth")
    name, weights = "vit_base_patch16_224", str(tmp_path / "vit.pth")
    tags = [made(f"{name}.{tag}", weights=weights)._known().normalisation for tag in ("dino", "augreg_in1k")]
    assert tags[0] != tags[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("stages.0.blocks.0.conv_dw.weight"), r"missing, expected \(24, 1, 7, 7\)"),
        (lambda state: state.update(more=torch.zeros(2)), r"first 'more' \(\(2,\), expected none\)"),
        (lambda state: [state.pop(name) for name in list(state)[:-1]], "test_convnext"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line(change, message, tmp_path):
    state = dict(timm.create_model("test_convnext").state_dict())
    change(state)
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(DataCorruptError, match=message) as caught:
        made("test_convnext", weights=str(tmp_path / "odd.pth")).build((3, 32, 32))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_leaves_the_trial_out(tmp_path):
    with pytest.raises(DataMissingError, match="not a file"):
        made("test_vit", weights=str(tmp_path / "none.pth")).files()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"model": "convnext_tiy"}, "timm has no model 'convnext_tiy'.*did you mean 'convnext_tiny'"),
        ({"model": "hf-hub:timm/convnext_tiny"}, "timm has no model"),  # timm would ask the network
        ({"model": "vit_base_patch16_224.dinoo"}, "did you mean 'vit_base_patch16_224.dino'"),
        ({"model": "test_convnext", "frozen": 6}, "test_convnext has 5 blocks"),
        ({"model": "test_vit", "weights": "imagenet"}, "expected 'none' or the path"),
        ({"model": "xcit_nano_12_p16_224"}, "more than one tensor"),
        ({"model": "twins_svt_small"}, "depends on values"),
    ],
)
def test_wrong_parameters_are_one_line(params, message):
    with pytest.raises(UserError, match=message) as caught:
        registry.create("backbones", "timm", params)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("defense", "refused"),
    [
        ("anp", {"test_convnext", "test_vit"}),
        ("ibd_psc", {"test_convnext", "test_vit"}),
        ("clp", {"test_vit"}),
        ("nad", {"test_vit"}),
        ("sentinet", {"test_vit"}),
        ("strip", set()),
    ],
)
def test_defenses_say_where_they_cannot_run(defense, refused):
    method, component = registry.create("methods", "csq", {}), registry.create("defenses", defense, {})
    reasons = {model: component.unsupported_reason(made(model), method) for model in SMALL}
    assert {model for model, reason in reasons.items() if reason} == refused


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 16, 16)])
@pytest.mark.parametrize("model", SMALL)
def test_timms_names_of_tensors_are_known(model, shape):
    backbone = made(model, size=32)
    aliases, whole = backbone.state_dict_aliases(shape), timm.create_model(model)
    assert aliases.keys() == whole.state_dict().keys()
    assert sorted(our for our in aliases.values() if our) == sorted(built(backbone, shape).state_dict())


class Dropping(nn.Module):
    """Drops values between its stages by a plain function, which a tracer records as it is at that moment."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.norm = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4)
        self.norm.eval()

    def forward(self, images):
        hidden = nn.functional.dropout(self.one(images), 0.5, self.training)
        return self.norm(self.two(hidden)).mean((2, 3))


@torch.no_grad()
def test_no_dropout_stays_active_and_modes_stay():
    network, images = Dropping(), images_of(2, (3, 8, 8))
    blocks = nn.Sequential(*chain_of(network, ["one", "two"]))
    assert len(blocks) == 3
    assert network.one.training
    assert not network.norm.training
    torch.testing.assert_close(blocks.eval()(images), network.eval()(images))


def test_without_timm_the_network_cannot_be_built(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)  # as where the extra is not installed
    with pytest.raises(DataMissingError, match=r"hashdoor\[timm\]"):
        made("a_model_of_the_future").build((3, 32, 32))
