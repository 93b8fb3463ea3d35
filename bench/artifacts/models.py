"""Models as tensors of an artifact. Kept apart from `_base`, so that work on models leaves data stages alone."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.api.random import Rng
from bench.artifacts.stage_io import Inputs, Json, component
from hashing.model import HashModel, build_model


def blueprint(spec: Json, *, image_shape: tuple[int, ...], classes: int, train_size: int) -> Json:
    """All that building an untrained model of a setting and repetition takes."""
    names = ("backbone", "method", "bits", "seed")
    return {name: spec[name] for name in names} | {
        "image_shape": list(image_shape),
        "classes": classes,
        "train_size": train_size,
    }


def new_model(plan: Json) -> HashModel:
    """The untrained model of a blueprint."""
    c, h, w = plan["image_shape"]
    model = build_model(
        backbone=component("backbones", plan["backbone"]),
        method=component("methods", plan["method"]),
        bits=plan["bits"],
        image_shape=(c, h, w),
        classes=plan["classes"],
        train_size=plan["train_size"],
        rng=Rng("victim", plan["seed"]),
    )
    model.blueprint = plan
    return model


def save_model(model: HashModel) -> tuple[dict[str, Tensor], Json]:
    """Tensors (prefixed `model.`) and the metadata that `open_model` rebuilds the model from."""
    tensors = {f"model.{name}": value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    return tensors, {"model": dict(model.blueprint)}


def without_memory(inputs: Inputs, role: str, device: torch.device) -> HashModel:
    """A trained model for a view: the loss's centres stay, its memory of training codes and labels does not."""
    model = open_model(inputs, role, device)
    model.objective = model.objective.reset_for(inputs.meta(role)["model"]["train_size"])
    return model


def open_model(inputs: Inputs, role: str, device: torch.device) -> HashModel:
    """A trained model from a parent's artifact, in evaluation mode on the device."""
    model = new_model(inputs.meta(role)["model"])
    state = {
        name.removeprefix("model."): value for name, value in inputs.tensors(role).items() if name.startswith("model.")
    }
    model.load_state_dict(state)
    return model.to(device).eval()
