"""Trains a victim from scratch, in the same way for clean, poisoned and filtered training sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from jaxtyping import Bool
from torch import Tensor

from bench.api import registry
from bench.api.attack import StepHook
from bench.api.hashing import Recipe
from bench.api.random import Rng
from bench.api.types import Split
from bench.artifacts.artifact import Output
from bench.artifacts.models import blueprint, new_model, save_model
from bench.artifacts.outputs.model import StoredModel
from bench.artifacts.specs import SettingSpec
from bench.artifacts.stage_io import Context
from hashing.loader import augmentation_of
from hashing.model import HashModel, fit_normalisation
from hashing.train import fit


def recipe(spec: SettingSpec) -> Recipe:
    """The training recipe of a spec. Augmentation that the recipe leaves open is that of the data set."""
    wanted, dataset = Recipe(**spec["recipe"]), registry.lookup("datasets", spec["dataset"]["name"])
    return replace(
        wanted,
        flip=dataset.flip if wanted.flip is None else wanted.flip,
        pad=dataset.pad if wanted.pad is None else wanted.pad,
    )


def train_victim(
    spec: SettingSpec,
    train: Split,
    context: Context,
    *,
    unaugmented: Bool[Tensor, " n"] | None = None,
    hook: StepHook | None = None,
    after_epoch: Callable[[HashModel], None] | None = None,
) -> Output:
    """Train the victim with the victim's seed. Returns the model and the mean loss of each epoch.

    unaugmented: images that are not augmented. hook: called in each step. after_epoch: called after each epoch.
    """
    plan = blueprint(
        spec, image_shape=tuple(train.images.shape[1:]), classes=train.labels.shape[1], train_size=len(train)
    )
    model = new_model(plan, Rng("victim", spec["seed"]))
    fit_normalisation(model, train.images)
    model = model.to(context.device)
    losses = fit(
        model,
        train,
        recipe(spec),
        Rng("victim", spec["seed"]),
        augmentation=augmentation_of(recipe(spec)),
        unaugmented=unaugmented,
        hook=hook,
        after_epoch=after_epoch,
    )
    return save_model(model) | StoredModel.training_output(losses)
