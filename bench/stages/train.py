"""Train a clean model."""

from __future__ import annotations

from bench.api.random import Rng
from bench.stages import _base
from bench.stages._base import Context, Inputs, Json, Output
from hashing.model import fit_normalisation
from hashing.train import fit


def run(spec: Json, inputs: Inputs, context: Context) -> Output:
    train = _base.split(inputs, "train")
    setting = _base.setting(spec, inputs)
    plan = _base.blueprint(
        spec, image_shape=setting.image_shape, classes=len(setting.classes), train_size=setting.train_size
    )
    model = _base.new_model(
        spec, image_shape=setting.image_shape, classes=len(setting.classes), train_size=setting.train_size
    )
    fit_normalisation(model, train.images)
    losses = fit(
        model.to(context.device),
        train,
        _base.recipe(spec),
        Rng("victim", spec["seed"]),
        augmentation=_base.augmentation(spec),
    )
    tensors, meta = _base.save_model(model, plan)
    return Output(tensors, {**meta, "losses": losses, "backdoored": False})
