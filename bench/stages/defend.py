"""Run a defense: repair the model, filter the training set, fit an input detector, or score the model."""

from __future__ import annotations

from bench.access.defender import defender_view, poisoned_train
from bench.api.defense import DataFilter, DefenderView, Defense, InputDetector, ModelDetector, Repair
from bench.api.random import Rng
from bench.artifacts import models, stage_io
from bench.artifacts.stage_io import Context, Inputs, Json, Output
from bench.artifacts.training import train_victim
from hashing.model import HashModel


def run(spec: Json, inputs: Inputs, context: Context) -> Output:
    defense: Defense = stage_io.component("defenses", spec["defense"])
    view = defender_view(spec, inputs, context, defense.needs)
    made = _work(defense, view, spec, inputs, context)
    noted = {name: float(value) for name, value in view.notes.items()}
    return Output(made.tensors, {**made.meta, "notes": noted})


def _work(defense: Defense, view: DefenderView, spec: Json, inputs: Inputs, context: Context) -> Output:
    rng = Rng("defend", spec["seed"])
    suspected = bool(inputs.meta("model")["backdoored"])
    if isinstance(defense, Repair):
        model = defense.repair(view, rng)
        assert isinstance(model, HashModel)
        tensors, meta = models.save_model(model)
        return Output(tensors, {**meta, "backdoored": suspected, "kind": "repair"})
    if isinstance(defense, DataFilter):
        filtered = defense.judge(view, rng)
        if filtered.model is None:
            tensors, meta = train_victim(spec, poisoned_train(inputs).select(filtered.keep.cpu()), context)
        else:
            assert isinstance(filtered.model, HashModel)
            tensors, meta = models.save_model(filtered.model)
        tensors |= {"scores": filtered.scores.detach().cpu().float(), "keep": filtered.keep.cpu()}
        return Output(tensors, {**meta, "backdoored": suspected, "kind": "data_filter"})
    if isinstance(defense, InputDetector):
        state = {f"state.{name}": value.detach().cpu().contiguous() for name, value in defense.fit(view, rng).items()}
        return Output(state, {"kind": "input_detector"})
    if isinstance(defense, ModelDetector):
        verdict = defense.inspect(view, rng)
        classes = inputs.meta("load")["classes"]
        suspect = None if verdict.suspect is None else classes[verdict.suspect]
        found = {"score": verdict.score, "suspect": suspect, "alarm_at": verdict.alarm_at}
        return Output({}, {"kind": "model_detector", "verdict": found})
    raise TypeError(f"{type(defense).__name__} is no Repair, DataFilter, InputDetector or ModelDetector")
