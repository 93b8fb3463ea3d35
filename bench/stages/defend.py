"""Let a defense do its work: repair the model, filter the training set, fit a guard, or diagnose the model."""

from __future__ import annotations

import torch

from bench.api.defense import Defense, Diagnosis, Filter, Guard, Repair
from bench.api.random import Rng
from bench.stages import _base
from bench.stages._base import Context, Inputs, Json, Output
from bench.views.defender import case, poisoned_train
from hashing.model import HashModel, fit_normalisation
from hashing.train import fit


def run(spec: Json, inputs: Inputs, context: Context) -> Output:
    defense: Defense = _base.component("defenses", spec["defense"])
    view = case(spec, inputs, context, defense.needs)
    rng = Rng("defend", spec["seed"])
    suspected = bool(inputs.meta("model")["backdoored"])
    if isinstance(defense, Repair):
        model = defense.repair(view, rng)
        assert isinstance(model, HashModel)
        tensors, meta = _base.save_model(model, inputs.meta("model")["model"])
        return Output(tensors, {**meta, "backdoored": suspected, "kind": "repair"})
    if isinstance(defense, Filter):
        filtered = defense.screen(view, rng)
        tensors, meta = _retrain(spec, inputs, context, filtered.keep.cpu())
        tensors |= {"scores": filtered.scores.detach().cpu().float(), "keep": filtered.keep.cpu()}
        return Output(tensors, {**meta, "backdoored": suspected, "kind": "filter"})
    if isinstance(defense, Guard):
        state = {f"state.{name}": value.detach().cpu().contiguous() for name, value in defense.fit(view, rng).items()}
        return Output(state, {"kind": "guard"})
    if isinstance(defense, Diagnosis):
        verdict = defense.inspect(view, rng)
        classes = inputs.meta("load")["classes"]
        suspect = None if verdict.suspect is None else classes[verdict.suspect]
        found = {"score": verdict.score, "suspect": suspect, "details": dict(verdict.details)}
        return Output({}, {"kind": "diagnosis", "verdict": found})
    raise TypeError(f"{type(defense).__name__} is no Repair, Filter, Guard or Diagnosis")


def _retrain(spec: Json, inputs: Inputs, context: Context, keep: torch.Tensor) -> tuple[dict[str, torch.Tensor], Json]:
    """A new model from scratch on the items that a filter kept, with the victim's recipe and dice."""
    train = poisoned_train(inputs).select(keep)
    c, h, w = train.images.shape[1:]
    shape, classes = (c, h, w), train.labels.shape[1]
    model = _base.new_model(spec, image_shape=shape, classes=classes, train_size=len(train))
    fit_normalisation(model, train.images)
    model = model.to(context.device)
    fit(model, train, _base.recipe(spec), Rng("victim", spec["seed"]), augmentation=_base.augmentation(spec))
    return _base.save_model(model, _base.blueprint(spec, image_shape=shape, classes=classes, train_size=len(train)))
