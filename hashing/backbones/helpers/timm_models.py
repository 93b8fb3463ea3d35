"""What timm states about its models, and the models themselves. Nothing is downloaded."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.api.errors import DataCorruptError, nearest
from hashing.backbones.helpers.chain import chain_of


@dataclass(frozen=True)
class TimmModel:
    """A model of timm.

    options: arguments of `timm.create_model`. size: height and width of the images in the network. classifiers:
    prefixes of the names of tensors after the features. stages: names of modules. blocks: number of blocks of
    the chain. convolutional: whether there are convolutions after the first block, which embeds patches.
    normalisation: mean and standard deviation that published weights expect.
    """

    options: Mapping[str, Any]
    size: tuple[int, int]
    classifiers: tuple[str, ...]
    normalisation: tuple[tuple[float, ...], tuple[float, ...]]
    stages: tuple[str, ...]
    last_stage: int
    features: int
    blocks: int
    batch_norm: bool
    convolutional: bool

    def network(self) -> nn.Module:
        """The network without its classifier, with initial weights from torch's global generator."""
        return _created(self.options)

    def converted(self, network: nn.Module, state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
        """The state dict of a file, with the names and the size of this network, by timm's own function."""
        convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
        if convert is None:
            return state
        try:
            return dict(convert(state, network))
        except Exception as error:  # on a state dict of another network, it may raise anything
            raise DataCorruptError(
                f"'{path}' does not fit timm's {self.options['model_name']} ({type(error).__name__})",
                "give a state dict of this model",
            ) from error


@cache  # plans ask for each trial
def timm_model(name: str, side: int | None) -> TimmModel:
    """What timm states about a model, for images of a side. ValueError: the model cannot be used; tells why."""
    config = _config(name)
    size = (side, side) if side else (config.input_size[1], config.input_size[2])
    options: dict[str, Any] = {"model_name": name}
    if config.fixed_input_size:
        options["img_size"] = size
    with torch.device("meta"):
        try:
            network: Any = _created(options)
            if getattr(network, "dynamic_img_size", False):  # positions for one side only, as the side is fixed here
                options["dynamic_img_size"] = False
                network = _created(options)
        except Exception as error:  # a model may fail in any way on a side that it was not made for
            raise ValueError(f"timm cannot build {name} for a side of {size[0]} pixels ({error})") from error
        info = getattr(network, "feature_info", None)
        if not isinstance(info, list) or not info:
            raise ValueError(f"{name}: timm names no stages of this model")
        stages = tuple(dict.fromkeys(stage["module"] for stage in info))
        try:
            chain = chain_of(network, stages)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    classifiers = (config.classifier,) if isinstance(config.classifier, str) else (config.classifier or ())
    return TimmModel(
        options=options,
        size=size,
        classifiers=tuple(f"{layer}." for layer in classifiers),
        normalisation=(tuple(config.mean), tuple(config.std)),
        stages=stages,
        last_stage=_last_stage([stage["reduction"] for stage in info]),
        features=getattr(network, "head_hidden_size", None) or network.num_features,
        blocks=len(chain),
        batch_norm=any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules()),  # noqa: SLF001 -- all its dimensions at once
        convolutional=any(isinstance(module, nn.Conv2d) for block in chain[1:] for module in block.modules()),
    )


def _created(options: Mapping[str, Any]) -> nn.Module:
    import timm

    network: nn.Module = timm.create_model(num_classes=0, **options)
    return network


def _config(name: str) -> Any:
    """The settings of a model in timm. ValueError: there is no such model; tells the nearest name."""
    import timm

    base, _, tag = name.partition(".")
    if base not in (known := timm.list_models()):  # also a name with a source, of which timm would ask the network
        raise ValueError(f"timm has no model '{base}'. {nearest(base, known)}".strip())
    tagged = timm.list_models(f"{base}.*", include_tags=True)
    if tag and name not in tagged:
        raise ValueError(f"timm has no weights '{name}'. {nearest(name, tagged)}".strip())
    return timm.get_pretrained_cfg(name)


def _last_stage(reductions: list[int]) -> int:
    """The number of stages of the last resolution; a quarter of them if all have this one."""
    last = sum(reduction == reductions[-1] for reduction in reductions)
    return last if last < len(reductions) else max(1, last // 4)
