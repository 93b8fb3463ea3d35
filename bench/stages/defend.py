"""Run a defense: repair the model, filter the training set, fit an input detector, or score the model."""

from __future__ import annotations

from bench.access.defender import defender_view, poisoned_train
from bench.api.defense import DataFilter, DefenderView, Defense, InputDetector, ModelDetector, Repair, kind_of
from bench.api.random import Rng
from bench.artifacts import models, stage_io
from bench.artifacts.artifact import Output
from bench.artifacts.inputs import DefendInputs
from bench.artifacts.outputs.defense import Defended
from bench.artifacts.specs import DefendSpec
from bench.artifacts.stage_io import Context
from bench.artifacts.training import train_victim
from hashing.model import HashModel


def run(spec: DefendSpec, inputs: DefendInputs, context: Context) -> Output:
    defense: Defense = stage_io.component("defenses", spec["defense"])
    view = defender_view(spec, inputs, context, defense.needs)
    return _work(defense, view, spec, inputs, context) | Defended.notes_output(kind_of(defense), view.notes)


def _work(defense: Defense, view: DefenderView, spec: DefendSpec, inputs: DefendInputs, context: Context) -> Output:
    rng = Rng("defend", spec["seed"])
    suspected = Defended.backdoor_output(backdoored=inputs.model.backdoored)
    if isinstance(defense, Repair):
        model = defense.repair(view, rng)
        assert isinstance(model, HashModel)
        return models.save_model(model) | suspected
    if isinstance(defense, DataFilter):
        filtered = defense.judge(view, rng)
        if filtered.model is None:
            made = train_victim(spec, poisoned_train(inputs).select(filtered.keep.cpu()), context)
        else:
            assert isinstance(filtered.model, HashModel)
            made = models.save_model(filtered.model)
        judged = Defended.filter_output(filtered.scores, filtered.keep)
        return made | judged | suspected
    if isinstance(defense, InputDetector):
        return Defended.detector_output(defense.fit(view, rng))
    if isinstance(defense, ModelDetector):
        verdict = defense.inspect(view, rng)
        suspect = None if verdict.suspect is None else inputs.load.classes[verdict.suspect]
        return Defended.verdict_output(verdict.score, suspect, verdict.alarm_at)
    raise TypeError(f"{type(defense).__name__} is not a Repair, DataFilter, InputDetector or ModelDetector")
