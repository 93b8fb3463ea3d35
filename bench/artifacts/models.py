"""Builds, saves and loads models. These functions are not in `stage_io`, so that their changes repeat no data stage."""

from __future__ import annotations

import torch

from bench.api.random import Rng
from bench.artifacts.artifact import Output
from bench.artifacts.outputs.model import StoredModel
from bench.artifacts.specs import SettingSpec
from bench.artifacts.stage_io import Json, component
from hashing.model import HashModel, build_model


def blueprint(spec: SettingSpec, *, image_shape: tuple[int, ...], classes: int, train_size: int) -> Json:
    """The arguments from which `new_model` builds an untrained model of a setting, as JSON.

    The seed is not among them, because models in a defender's view keep their blueprint.
    """
    return {
        "backbone": spec["backbone"],
        "method": spec["method"],
        "bits": spec["bits"],
        "image_shape": list(image_shape),
        "classes": classes,
        "train_size": train_size,
    }


def new_model(plan: Json, rng: Rng) -> HashModel:
    """The untrained model of a blueprint. rng: for the first weights; `Rng("victim", seed)` for those of a victim."""
    c, h, w = plan["image_shape"]
    model = build_model(
        backbone=component("backbones", plan["backbone"]),
        method=component("methods", plan["method"]),
        bits=plan["bits"],
        image_shape=(c, h, w),
        classes=plan["classes"],
        train_size=plan["train_size"],
        rng=rng,
    )
    model.blueprint = plan
    return model


def save_model(model: HashModel) -> Output:
    """The output of a stage that trained a model, for `open_model`."""
    return StoredModel.model_output(model.state_dict(), model.blueprint)


def without_memory(stored: StoredModel, device: torch.device) -> HashModel:
    """A trained model for a view. The loss keeps its centres, but not the codes and labels of training images."""
    model = open_model(stored, device)
    model.objective = model.objective.reset_for(stored.blueprint["train_size"])
    return model


def open_model(stored: StoredModel, device: torch.device) -> HashModel:
    """A trained model, in evaluation mode on the device."""
    model = new_model(dict(stored.blueprint), Rng("stored"))  # every value is replaced by the stored one
    model.load_state_dict(stored.state)
    return model.to(device).eval()
