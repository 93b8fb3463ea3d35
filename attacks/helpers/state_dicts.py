"""State dicts of other people: their tensors under the names of a HashDoor model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.api import registry
from bench.api.errors import DataCorruptError
from bench.api.hashing import Backbone
from hashing.model import HashModel
from hashing.pretrained import LATER

OWN = ("backbone.", "head.", "objective.")  # prefixes of HashDoor's tensor names, which other libraries do not use
WRAPPERS = ("module.", "_module.")  # of DataParallel and of Opacus
COMPILED = "_orig_mod."
WHOLE = "base_model."  # the network of torchvision, whose layers CSQ's authors name a second time
HASH_LAYER = "hash_layer."  # the last layer, or all linear ones, in DeepHash-pytorch and code that follows it
NUMBERS = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int16, torch.int32, torch.int64)
SHOWN = 3  # tensor names of each kind that an error lists


def fitted(state: Mapping[str, Tensor], model: HashModel, file: Path) -> dict[str, Tensor]:
    """The tensors of `state` under the names of `model`, ready for `load_state_dict`.

    The names in `state` are HashDoor's, with or without the prefix `model.` that HashDoor's stores use, or those of
    the library that the backbone comes from. In the second case the hash layer has the name of that network's last
    layer, or `hash_layer`, or is `fc1` to `fc3` as in the code of CSQ's authors. Prefixes of DataParallel, Opacus and
    torch.compile are ignored, and so are tensors of other names that equal a tensor with a known name, as of a module
    that is registered twice. Two kinds of tensors may be missing: memories of training images, which stay empty, and
    the mean and standard deviation where the backbone's weights fix them. DataCorruptError: another tensor is missing,
    unknown, given twice, not finite, or of another shape.
    """
    given, problems = _compared(state, model, frozenset(), model.state_dict().keys())
    if problems:
        raise DataCorruptError(_described(file, model, problems))
    return model.state_dict() | given


def misfit(state: Mapping[str, Tensor], networks: Sequence[HashModel], file: Path) -> str:
    """Why `state` fits none of the networks, as `fitted` would say; "" if it may fit one.

    networks: of one setting for images of several sizes. Names and shapes that differ between them are not compared.
    """
    shapes = [{name: value.shape for name, value in one.state_dict().items()} for one in networks]
    everywhere = frozenset.intersection(*map(frozenset, shapes))
    free = frozenset(n for one in shapes for n in one if n not in everywhere or one[n] != shapes[0][n])
    model = networks[-1]
    _, problems = _compared(state, model, free, everywhere)
    return _described(file, model, problems) if problems else ""


def _described(file: Path, model: HashModel, problems: Sequence[str]) -> str:
    return (
        f"'{file}' does not fit a {model.blueprint['backbone']['name']} with {model.blueprint['method']['name']} at"
        f" {model.blueprint['bits']} bits: {'; '.join(problems)}. Use the tensor names of this model or of torchvision,"
        " or run the setting that the model was trained in"
    )


def _compared(
    state: Mapping[str, Tensor], model: HashModel, free: frozenset[str], wanted: Collection[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """`state` under the model's names, and all that does not fit.

    free: names whose shape may be any. wanted: names that may not be missing, unless the model can do without them.
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
    wanted = {name for name in set(wanted) - memories - fixed if not name.endswith(LATER)}
    other = {name for name in own.keys() & given.keys() - free if given[name].shape != own[name].shape}
    wrong = [
        _some("missing", (f"{name} {list(own[name].shape)}" for name in own if name in wanted - given.keys())),
        _some("unknown", (name for name in given if name not in own and name not in free)),
        _some("of another shape", (f"{n} {list(given[n].shape)}, not {list(own[n].shape)}" for n in own if n in other)),
        _some("named twice", twice),
        _some("no plain numbers", (f"{n} ({given[n].dtype}, {given[n].layout})" for n in given if n in odd)),
        _some(
            "not finite",
            (n for n, v in given.items() if n in own and n not in odd and not v.float().isfinite().all()),
        ),
        _some("zero", (n for n, v in given.items() if n == "std" and n not in odd and (v == 0).any())),
    ]
    return given, [words for words in wrong if words]


def _ours(state: Mapping[str, Tensor], model: HashModel) -> tuple[dict[str, Tensor], list[str]]:
    """`state` under HashDoor's names, and the names that it holds more than once; unknown names are kept.

    Where some names begin with `model.`, as in a store, other names count only if the model has them.
    """
    known, heads = _elsewhere(model)
    bare = {name: _unwrapped(name) for name in state}
    layers = _numbered_layers(model, {name.removeprefix("model.") for name in bare.values()})

    def name_of(name: str) -> str:
        if name.startswith(OWN):
            return name
        if layers:
            name = _of_csq(name, layers)
        elif name.startswith(HASH_LAYER):
            name = _of_hash_layer(name.removeprefix(HASH_LAYER), known, heads)
        if head := next((head for head in heads if name.startswith(f"{head}.")), ""):
            return f"head.{name.removeprefix(f'{head}.')}"
        return f"backbone.{known[name]}" if known.get(name) else name

    own = model.state_dict().keys()
    stored = any(name.startswith("model.") for name in bare.values())
    found: dict[str, Tensor] = {}
    strange: dict[str, Tensor] = {}
    twice = []
    for name, value in state.items():
        plain = _unwrapped(bare[name].removeprefix("model."))
        if layers and plain.startswith(tuple(f"{WHOLE}{head}." for head in heads)):
            continue
        ours = name_of(plain)
        if ours not in own:
            if not stored or bare[name].startswith("model."):
                strange[ours] = value
            continue
        twice += [ours] if ours in found else []
        found[ours] = value
    return found | {name: value for name, value in strange.items() if not _is_copy(value, found.values())}, twice


def _unwrapped(name: str) -> str:
    """The name of a tensor before its module was wrapped."""
    name = name.replace(COMPILED, "")
    while name.startswith(WRAPPERS):
        name = name.partition(".")[2]
    return name


def _numbered_layers(model: HashModel, names: Collection[str]) -> dict[str, str]:
    """Our names of the head's linear layers by those of CSQ's authors, `fc1.` to `fc3.`; {} for other files."""
    linear = [name for name, layer in model.head.named_modules() if isinstance(layer, nn.Linear) and name]
    layers = {f"fc{number}.": f"head.{name}." for number, name in enumerate(linear, start=1)}
    return layers if len(layers) > 1 and all(f"{layer}weight" in names for layer in layers) else {}


def _of_csq(name: str, layers: Mapping[str, str]) -> str:
    """The name in HashDoor or torchvision of a tensor of CSQ's authors, whose file holds most tensors several times."""
    for theirs, ours in layers.items():
        if name.startswith(theirs):
            return f"{ours}{name.removeprefix(theirs)}"
    return name.replace("classifier.classifier", "classifier.") if name.startswith("classifier.") else name


def _of_hash_layer(rest: str, known: Mapping[str, str], heads: set[str]) -> str:
    """The library's name of a tensor in `hash_layer`, which is all linear layers or the last one only."""
    for head in heads:
        name = f"{head.partition('.')[0]}.{rest}"
        if name in known or name.startswith(f"{head}."):
            return name
    return f"head.{rest}"


def _is_copy(value: Tensor, others: Iterable[Tensor]) -> bool:
    """Whether one of the others holds the same numbers."""
    return any(
        value.shape == other.shape and value.dtype == other.dtype and value.device.type == other.device.type == "cpu"
        and value.layout is other.layout is torch.strided and torch.equal(value, other)
        for other in others
    )  # fmt: skip


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
