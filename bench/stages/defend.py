"""Let a defense do its work: repair the model, filter the training set, fit a guard, or diagnose the model."""

from __future__ import annotations

from bench.api.defense import Case, Defense, Diagnosis, Filter, Guard, Repair
from bench.api.random import Rng
from bench.stages import _base, _models
from bench.stages._base import Context, Inputs, Json, Output
from bench.stages._training import train_victim
from bench.views.defender import case, poisoned_train
from hashing.model import HashModel


def run(spec: Json, inputs: Inputs, context: Context) -> Output:
    defense: Defense = _base.component("defenses", spec["defense"])
    view = case(spec, inputs, context, defense.needs)
    made = _work(defense, view, spec, inputs, context)
    noted = {name: float(value) for name, value in view.notes.items()}
    return Output(made.tensors, {**made.meta, "notes": noted})


def _work(defense: Defense, view: Case, spec: Json, inputs: Inputs, context: Context) -> Output:
    rng = Rng("defend", spec["seed"])
    suspected = bool(inputs.meta("model")["backdoored"])
    if isinstance(defense, Repair):
        model = defense.repair(view, rng)
        assert isinstance(model, HashModel)
        tensors, meta = _models.save_model(model)
        return Output(tensors, {**meta, "backdoored": suspected, "kind": "repair"})
    if isinstance(defense, Filter):
        filtered = defense.screen(view, rng)
        if filtered.model is None:
            tensors, meta = train_victim(spec, poisoned_train(inputs).select(filtered.keep.cpu()), context)
        else:
            assert isinstance(filtered.model, HashModel)
            tensors, meta = _models.save_model(filtered.model)
        tensors |= {"scores": filtered.scores.detach().cpu().float(), "keep": filtered.keep.cpu()}
        return Output(tensors, {**meta, "backdoored": suspected, "kind": "filter"})
    if isinstance(defense, Guard):
        state = {f"state.{name}": value.detach().cpu().contiguous() for name, value in defense.fit(view, rng).items()}
        return Output(state, {"kind": "guard"})
    if isinstance(defense, Diagnosis):
        verdict = defense.inspect(view, rng)
        classes = inputs.meta("load")["classes"]
        suspect = None if verdict.suspect is None else classes[verdict.suspect]
        found = {"score": verdict.score, "suspect": suspect, "alarm_at": verdict.alarm_at}
        return Output({}, {"kind": "diagnosis", "verdict": found})
    raise TypeError(f"{type(defense).__name__} is no Repair, Filter, Guard or Diagnosis")
