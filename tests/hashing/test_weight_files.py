"""Public weights: where they are looked for, what is verified, what is said; on small files made here."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import get_model_weights, mobilenet_v2, resnet18

from bench.api import registry
from bench.api.errors import DataCorruptError, DataMissingError, UserError
from hashing.pretrained import IMAGENET, PretrainedWeights
from tests.hashing.networks import images_of, state_of

NAMES = ["alexnet", "vgg11", "vgg19", "resnet18", "resnet34", "resnet50", "vit_b_16"]


def backbone(name: str, **params):
    return registry.create("backbones", name, params)


@pytest.fixture
def mobilenets(tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    state = state_of(mobilenet_v2, num_classes=7)  # a network for seven classes of somebody's own
    torch.save(state, tmp_path / "own.pth")
    return tmp_path / "own.pth", state


@pytest.mark.parametrize("name", [*NAMES, "mobilenet_v2"])
def test_files_are_called_as_torchvision_calls_them(name):
    published = registry.lookup("backbones", name).published
    assert published.network == name
    assert get_model_weights(name).IMAGENET1K_V1.url.endswith(f"/{published.file}")


@pytest.mark.parametrize("name", NAMES)
def test_weights_that_are_missing_or_damaged_are_named(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    made, folder = backbone(name, weights="imagenet"), tmp_path / "hub" / "checkpoints"
    file = made.published.file
    with pytest.raises(DataMissingError, match=rf"{name}.*{file}.*{folder}"):
        made.files()
    folder.mkdir(parents=True)
    (folder / file).write_bytes(b"something else")
    assert made.files() == (folder / file,)
    with torch.device("meta"), pytest.raises(DataCorruptError, match=f"{file}.*sha256 differs"):
        made.build((3, 64, 64))


def test_weights_are_imagenets_but_for_resnet18():
    assert {name for name in NAMES if backbone(name).weights == "none"} == {"resnet18"}
    assert all(backbone(name, weights="none").files() == () for name in NAMES)


@torch.no_grad()
def test_a_file_in_torchvisions_cache_is_used_once_its_digits_fit(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    state = state_of(resnet18)
    old = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}  # as in 2017
    torch.save(old, folder / "new.pth")
    digits = hashlib.sha256((folder / "new.pth").read_bytes()).hexdigest()[:8]
    (folder / "new.pth").rename(folder / f"resnet18-{digits}.pth")

    class Made(registry.lookup("backbones", "resnet18")):
        published = PretrainedWeights("resnet18", f"resnet18-{digits}.pth", cut="fc.")

    made = Made(weights="imagenet", frozen=1)
    assert made.files() == (folder / f"resnet18-{digits}.pth",)
    whole = resnet18(weights=None)
    whole.load_state_dict(state)
    whole.fc = nn.Identity()
    for channels in (3, 1):
        body = made.build((channels, 48, 48)).eval()
        images = images_of(2, (channels, 48, 48))
        torch.testing.assert_close(body(images), whole.eval()(images.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)
        assert body.normalisation == IMAGENET
        assert not any(value.requires_grad for value in body.blocks[0].parameters())


@torch.no_grad()
def test_a_file_of_ones_own_is_used_up_to_the_cut(mobilenets):
    path, state = mobilenets
    made = backbone("mobilenet_v2", weights=str(path))
    assert made.files() == (path,)
    whole = mobilenet_v2(weights=None, num_classes=7)
    whole.load_state_dict(state)
    whole.classifier = nn.Identity()
    body = made.build((3, 48, 48)).eval()
    images = images_of(2, (3, 48, 48))
    torch.testing.assert_close(body(images), whole.eval()(images), rtol=1e-4, atol=1e-5)
    assert body.normalisation == IMAGENET


def test_the_digits_of_a_name_are_verified_in_files_of_ones_own_too(mobilenets):
    path, _ = mobilenets
    digits = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    path = path.rename(path.with_name(f"mine-{digits}.pth"))
    backbone("mobilenet_v2", weights=str(path)).build((3, 32, 32))
    other = path.rename(path.with_name("mine-01234567.pth"))
    with pytest.raises(DataCorruptError, match=f"mine-01234567.pth.*sha256 differs: {digits}.*rename"):
        backbone("mobilenet_v2", weights=str(other)).build((3, 32, 32))


def test_relative_paths_are_settled_at_once(mobilenets, monkeypatch):
    path, _ = mobilenets
    monkeypatch.chdir(path.parent)
    made = backbone("mobilenet_v2", weights="own.pth")
    monkeypatch.chdir("/")
    assert made.files() == (path,)


def test_another_networks_file_is_refused_with_the_first_difference(mobilenets):
    path, _ = mobilenets
    with pytest.raises(DataCorruptError, match=r"resnet18.*'bn1\.bias'"):
        backbone("resnet18", weights=str(path)).build((3, 32, 32))


@pytest.mark.parametrize("change", ["missing", "shape", "more"])
def test_one_tensor_amiss_is_enough(mobilenets, change):
    path, state = mobilenets
    name = "features.3.conv.0.0.weight"
    if change == "missing":
        del state[name]
    elif change == "shape":
        state[name] = state[name][:1]
    else:
        name = "extra.weight"
        state[name] = torch.zeros(1)
    torch.save(state, path)
    with pytest.raises(DataCorruptError, match=rf"\b1\b.*'{name}'"):
        backbone("mobilenet_v2", weights=str(path)).build((3, 32, 32))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (nn.Linear(2, 2), "tensors"),  # a pickled module
        ([torch.zeros(2)], "dict"),
        ({"state_dict": {"a": torch.zeros(2)}}, "dict"),
        (b"no weights", "tensors"),
        (b"", "tensors"),
    ],
    ids=["module", "list", "wrapped", "text", "empty"],
)
def test_nothing_but_tensors_is_read(tmp_path, content, message):
    path = tmp_path / "x.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(DataCorruptError, match=message) as caught:
        backbone("mobilenet_v2", weights=str(path)).build((3, 32, 32))
    assert "\n" not in str(caught.value)


def test_what_is_no_file_and_no_word_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"'imagnet'.*'imagenet'.*'none'"):
        backbone("vgg11", weights="imagnet")
    with pytest.raises(DataMissingError, match=r"gone\.pth.*vgg11"):
        backbone("vgg11", weights=str(tmp_path / "gone.pth")).files()
    with pytest.raises(UserError, match="'small'"):
        backbone("resnet50", stem="small")
    with pytest.raises(UserError, match="frozen = 7"):
        backbone("vgg19", frozen=7)
    assert backbone("resnet50", stem="small", weights="none").stem == "small"


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_public_weights_where_they_are_here(name):
    made = backbone(name, weights="imagenet")
    try:
        (path,) = made.files()
    except DataMissingError as error:
        pytest.skip(str(error))
    first = next(iter(torch.load(path, weights_only=True).items()))
    body = made.build((3, 224, 224)).eval()
    assert any(torch.equal(value, first[1]) for value in body.state_dict().values()), first[0]
    assert bool(torch.isfinite(body(images_of(1, (3, 224, 224)))).all())
