"""A step of training never waits for the device, and touches no tensor that lies elsewhere.

The `meta` device stands for a GPU: its tensors have no values, so every read by the host is an event that can be
counted, and an operation that mixes it with tensors of the CPU is an error.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bench.api import registry
from bench.api.hashing import Recipe
from bench.api.random import Rng
from bench.api.types import Split
from hashing.loader import Augmentation
from hashing.model import HashModel, build_model
from hashing.train import fit

pytestmark = pytest.mark.long

SHAPE, CLASSES, IMAGES = (3, 32, 32), 5, 24
METHODS = sorted(registry.catalogue("methods"))
NETWORKS = [("convnet", {"width": 4}), ("resnet18", {"frozen": 2}), ("mobilenet_v2", {"weights": "none"})]
ADAM = {"optimizer": "adam", "lr": 1e-3, "weight_decay": 1e-4, "precision": "float32"}


class HostReads(TorchDispatchMode):
    """Counts the values that the host reads from the device; each is a half or a one."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, call: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if call is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            self.count += 1
            return 0.5 if args[0].dtype.is_floating_point else 1
        return call(*args, **(kwargs or {}))


def reads(model: HashModel, batch: int, epochs: int, **recipe: Any) -> int:
    labels = torch.eye(CLASSES, dtype=torch.bool)[torch.arange(IMAGES) % CLASSES]
    split = Split(torch.zeros(IMAGES, *SHAPE, dtype=torch.uint8), labels, torch.arange(IMAGES))
    augmentation = Augmentation(flip=not model.backbone.frozen, pad=0 if model.backbone.frozen else 2)
    with HostReads() as host:
        found = Recipe(**{**ADAM, "batch": batch, "epochs": epochs, **recipe})
        fit(model, split, found, Rng("tests", "order"), augmentation=augmentation)
    return host.count


def model_of(method: str = "csq", backbone: str = "convnet", params: dict[str, Any] | None = None) -> HashModel:
    model = build_model(
        backbone=registry.create("backbones", backbone, params or {"width": 4}),
        method=registry.create("methods", method, {}),
        bits=16, image_shape=SHAPE, classes=CLASSES, train_size=IMAGES, rng=Rng("victim", 0),
    )  # fmt: skip
    return model.to("meta")


@pytest.mark.parametrize("method", METHODS)
def test_each_method_s_loss_stays_on_the_device(method: str) -> None:
    """One read per epoch, of the loss, and one at the end, of whether all weights are finite."""
    assert [reads(model_of(method), batch, epochs=2) for batch in (12, 3)] == [3, 3]


@pytest.mark.parametrize(
    ("backbone", "params", "optimizer"),
    [
        *((*network, "sgd") for network in NETWORKS),
        *((*NETWORKS[0], optimizer) for optimizer in ("adam", "adamw", "rmsprop")),
    ],
)
def test_each_network_and_optimiser_stays_on_the_device(backbone: str, params: dict[str, Any], optimizer: str) -> None:
    for batch in (12, 4):
        assert reads(model_of("csq", backbone, params), batch, epochs=1, optimizer=optimizer) == 2


def test_a_read_and_a_tensor_elsewhere_are_seen() -> None:
    model = model_of()
    with HostReads() as host:
        assert float(model(torch.zeros(2, *SHAPE, device="meta")).detach().sum()) == 0.5
    assert host.count == 1
    with pytest.raises(RuntimeError, match="device"):
        model(torch.zeros(2, *SHAPE))
