"""Attacks that were carried out elsewhere: the attacked model is read from a file."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass as validated
from torch import Tensor

from bench.api import registry
from bench.api.attack import Access, AttackerView, Backdoor, ModelAttack, Rng, Threat, Trigger
from bench.api.errors import DataCorruptError, DataMissingError
from bench.api.hashing import Backbone
from bench.api.untrusted import own_path
from hashing.model import HashModel
from hashing.pretrained import LATER
from hashing.weight_files import read_weights

MODELS = ("model.safetensors", "model.pth", "model.pt")
OWN = (
    "backbone.",
    "head.",
    "objective.",
)  # prefixes of HashDoor's tensor names; names of other libraries have none of these
NUMBERS = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int16, torch.int32, torch.int64)
SHOWN = 3  # tensor names of each kind that an error lists
REACHES = {
    Access.TRAINING_CONTROLLED: Threat.TRAINING,
    Access.DIRTY_LABEL: Threat.TRAIN_SET | Threat.LABELS,
    Access.CLEAN_LABEL: Threat.TRAIN_SET,
    Access.MODEL_ONLY: Threat.MODEL,
}

Folder = Annotated[str, Field(min_length=1), AfterValidator(own_path)]


@validated(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ExternalModel(ModelAttack, ABC):
    """An attack whose result is a file.

    path: the folder with the model. access: the threat model, by which boards group; by default the strongest one.
    """

    seed_dependent: ClassVar[bool] = False

    path: Folder
    """Folder with the file of the model and the files of the trigger."""
    access: Literal["training-controlled", "dirty-label", "clean-label", "model-only"] = "training-controlled"
    """Access of the attacker; boards group attacks by access."""

    def threat(self) -> Threat:
        return REACHES[Access(self.access)] | Threat.MODEL  # the attack replaces the clean model

    def files(self) -> tuple[Path, ...]:
        return (self.find(*MODELS),)

    def find(self, *names: str) -> Path:
        """The first of these files that exists in the folder; DataMissingError if none does."""
        for name in names:
            if (file := Path(self.path) / name).is_file():
                return file
        raise DataMissingError(f"'{self.path}' has no {' or '.join(names)}: put it there, or give another path")

    def implant(self, view: AttackerView, trigger: Trigger, rng: Rng) -> Backdoor:
        del trigger, rng
        model, file = view.model, self.find(*MODELS)
        assert isinstance(model, HashModel)
        model.load_state_dict(fitted(read_weights(file), model, file))
        return Backdoor(model)


def fitted(state: Mapping[str, Tensor], model: HashModel, file: Path) -> dict[str, Tensor]:
    """The tensors of `state` under the names of `model`, ready for `load_state_dict`.

    The names in `state` are HashDoor's, with or without the prefix `model.` that HashDoor's stores use, or those of
    the library that the backbone comes from. In the second case the hash layer has the name of that network's last
    layer. Two kinds of tensors may be missing: memories of training images, which stay empty, and the mean and standard
    deviation where the backbone's weights fix them. DataCorruptError: another tensor is missing, unknown, given twice,
    of another shape, or not finite.
    """
    own = model.state_dict()
    sizes = [model.objective.reset_for(n).state_dict() for n in (1, 2)]
    memories = {f"objective.{name}" for name, value in sizes[0].items() if value.shape != sizes[1][name].shape}
    fixed = {"mean", "std"} if model.backbone.normalisation is not None else set()
    named, twice = _ours(state, model)
    given = {name: value for name, value in named.items() if name not in memories}
    odd = {name for name, value in given.items() if name in own and not _taken(value, own[name])}
    given |= {name: value.reshape(own[name].shape) for name, value in given.items()
              if name in {"mean", "std"} and value.numel() == own[name].numel()}  # fmt: skip
    wanted = {name for name in own.keys() - memories - fixed if not name.endswith(LATER)}
    other = {name for name in own.keys() & given.keys() if given[name].shape != own[name].shape}
    wrong = [
        _some("missing", (f"{name} {list(own[name].shape)}" for name in own if name in wanted - given.keys())),
        _some("unknown", (name for name in given if name not in own)),
        _some("of another shape", (f"{n} {list(given[n].shape)}, not {list(own[n].shape)}" for n in own if n in other)),
        _some("named twice", twice),
        _some("no plain numbers", (f"{n} ({given[n].dtype}, {given[n].layout})" for n in given if n in odd)),
        _some(
            "not finite",
            (n for n, v in given.items() if n in own and n not in odd and not v.float().isfinite().all()),
        ),
        _some("zero", (n for n, v in given.items() if n == "std" and n not in odd and (v == 0).any())),
    ]
    if any(wrong):
        raise DataCorruptError(
            f"'{file}' does not fit a {model.blueprint['backbone']['name']} with {model.blueprint['method']['name']} at"
            f" {model.blueprint['bits']} bits: {'; '.join(filter(None, wrong))}. Use the tensor names of this model or"
            " of torchvision, or run the setting that the model was trained in"
        )
    return own | given


def _ours(state: Mapping[str, Tensor], model: HashModel) -> tuple[dict[str, Tensor], list[str]]:
    """`state` under HashDoor's names, and the names that it holds more than once; unknown names are kept.

    Where some names begin with `model.`, as in a store, other names count only if the model has them.
    """
    known, heads = _elsewhere(model)

    def name_of(name: str) -> str:
        if name.startswith(OWN):
            return name
        if head := next((head for head in heads if name.startswith(f"{head}.")), ""):
            return f"head.{name.removeprefix(f'{head}.')}"
        return f"backbone.{known[name]}" if known.get(name) else name

    own, stored = model.state_dict().keys(), any(name.startswith("model.") for name in state)
    found: dict[str, Tensor] = {}
    twice = []
    for name, value in state.items():
        ours = name_of(name.removeprefix("model."))
        if stored and not name.startswith("model.") and ours not in own:
            continue
        twice += [ours] if ours in found else []
        found[ours] = value
    return found, twice


def _elsewhere(model: HashModel) -> tuple[Mapping[str, str], set[str]]:
    """The other library's names of the backbone's tensors, and of the layer that the hash layer replaces."""
    plan = model.blueprint
    backbone: Backbone = registry.create("backbones", plan["backbone"]["name"], plan["backbone"]["params"])
    c, h, w = plan["image_shape"]
    known = backbone.state_dict_aliases((c, h, w))
    return known, {name.rpartition(".")[0] for name, ours in known.items() if not ours}


def _taken(value: Tensor, own: Tensor) -> bool:
    """Whether `own` can hold the numbers: dense ones on the CPU, not quantised, complex or sparse."""
    kinds = value.dtype in {own.dtype, *NUMBERS}
    return kinds and value.layout is torch.strided and value.device.type == "cpu"


def _some(what: str, names: Iterable[str]) -> str:
    found = list(names)
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f"{what} {', '.join(found[:SHOWN])}{more}" if found else ""
