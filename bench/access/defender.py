"""Builds the defender's view: the model, the trusted set, and the data that the defense declares in `needs`."""

from __future__ import annotations

import copy
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from bench.api import registry
from bench.api.defense import Database, DefenderView, Needs
from bench.api.errors import UserError
from bench.api.hashing import Backbone, Hook, Recipe
from bench.api.random import Rng
from bench.api.types import Split
from bench.artifacts import stage_io
from bench.artifacts.inputs import DataInputs, DefendInputs
from bench.artifacts.models import new_model, without_memory
from bench.artifacts.specs import SettingSpec
from bench.artifacts.stage_io import Context
from bench.artifacts.training import recipe
from hashing.loader import augmentation_of
from hashing.model import HashModel
from hashing.train import fit


def signs(words: Int64[Tensor, "w m"], bits: int) -> Float[Tensor, "m b"]:
    """Codes as +1 and -1 from packed words. Bit j of a code is bit j % 64 of word j // 64."""
    position = torch.arange(bits)
    return ((words[position // 64] >> (position % 64)[:, None]) & 1).T.float() * 2 - 1


def trusted_halves(spec: SettingSpec, data: DataInputs) -> tuple[Split, Split]:
    """Two halves of the trusted set: for fitting and for calibration. UserError if the set has one image.

    Images with equal labels are dealt in turn, so that each class has as many images in one half as in the other.
    """
    trusted = stage_io.split(data, "trusted")
    if len(trusted) < 2:
        raise UserError(
            "the trusted set has one image, and fitting and calibration need one each",
            "set `trusted` of the data set to 2 or more",
        )
    order = Rng("trusted", spec["dataset"]["name"]).permutation(len(trusted))
    _, label_set = torch.unique(trusted.labels[order], dim=0, return_inverse=True)
    for_fitting = torch.zeros(len(order), dtype=torch.bool)
    for_fitting[label_set.argsort(stable=True)[1::2]] = True
    return trusted.select(order[for_fitting]), trusted.select(order[~for_fitting])


def defender_view(spec: SettingSpec, inputs: DefendInputs, context: Context, needs: Needs) -> DefenderView:
    """The view of a defense. needs: decides whether the view has the training set and the database."""
    model = without_memory(inputs.model, context.device)
    fit_set, calibration_set = trusted_halves(spec, inputs)
    granted: dict[str, Any] = {}
    if Needs.TRAIN_SET in needs:
        granted["train"] = poisoned_train(inputs)
    if Needs.DATABASE in needs:
        assert inputs.codes is not None, "the planner adds codes if the defense needs the database"
        stored = signs(inputs.codes.database, spec["bits"]).to(context.device)
        granted["database"] = Database(stored, stage_io.labels(inputs, "database").to(context.device))
    return DefenderView(
        setting=stage_io.setting(spec, inputs),
        model=model,
        objective=model.objective,
        recipe=recipe(spec),
        fit_set=fit_set.to(context.device),
        calibration_set=calibration_set.to(context.device),
        train_model=train_copy,
        untrained=UntrainedFactory(model, Rng("victim", spec["seed"])),
        granted=granted,
    )


def poisoned_train(inputs: DefendInputs) -> Split:
    """The victim's training set, which is clean if no attack poisons it."""
    train = stage_io.split(inputs, "train")
    poison = inputs.poison
    if poison is None:
        return train
    assert poison.mask is not None, "an attack with offers_train_set poisons images"
    images, labels = train.images.clone(), train.labels.clone()
    images[poison.mask], labels[poison.mask] = poison.poison_images, poison.poison_labels
    if poison.cover is not None:
        images[poison.cover] = poison.cover_images
    return Split(images, labels, train.ids)


def train_copy(model: nn.Module, split: Split, recipe: Recipe, rng: Rng, *, hook: Hook | None = None) -> nn.Module:
    """The function `view.train_model`: trains a copy of a model with the victim's training loop."""
    assert isinstance(model, HashModel)
    tuned = copy.deepcopy(model)
    kept = tuned.objective
    tuned.objective = kept.reset_for(len(split))
    fit(tuned, split, recipe, rng, augmentation=augmentation_of(recipe), hook=hook)
    tuned.objective = kept
    return tuned


class UntrainedFactory:
    """The function `view.untrained`: the victim's network before training, with the same initial weights."""

    def __init__(self, model: HashModel, rng: Rng) -> None:
        self._blueprint, self._mean, self._std = dict(model.blueprint), model.mean.clone(), model.std.clone()
        self._rng = rng

    def __call__(self, *, per_image: bool = False) -> nn.Module:
        plan = self._blueprint
        if per_image:
            name = plan["backbone"]["name"]
            backbone: Backbone = registry.create("backbones", name, plan["backbone"]["params"])
            twin = backbone.per_image()
            if twin is None:
                raise UserError(f"backbone '{name}' has no variant without batch statistics")
            plan = {**plan, "backbone": {"name": name, "params": registry.parameters(twin)}}
        model = new_model(plan, self._rng).to(self._mean.device)
        model.mean.copy_(self._mean)
        model.std.copy_(self._std)
        return model
