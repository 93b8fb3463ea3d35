"""Compute metrics from stored codes and scores, without training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from bench import metrics
from bench.api.kinds import DefenseKind
from bench.artifacts import stage_io
from bench.artifacts.artifact import Output
from bench.artifacts.code_tensors import codes_of
from bench.artifacts.inputs import MeasureInputs, SystemInputs
from bench.artifacts.outputs.attack import Implanted
from bench.artifacts.specs import MeasureSpec
from bench.artifacts.stage_io import Context, Json
from bench.metrics import DetectorScores, ModelCodes, TrialFacts, Truth
from bench.metrics.context import AttackFacts, FilterFacts, VerdictFacts


def run(spec: MeasureSpec, inputs: MeasureInputs, context: Context) -> Output:
    del context
    truth = Truth(
        query=stage_io.labels(inputs, "query").numpy(),
        database=stage_io.labels(inputs, "database").numpy(),
        positions=inputs.measured.triggered.positions.numpy(),
        target=stage_io.target(spec["target"], inputs.load.classes).vector.numpy(),
        cutoff=inputs.split.cutoff,
    )
    bits, purified = spec["bits"], inputs.measured.purified_benign is not None
    model = _model(inputs.measured, bits, truth)
    stored = None if inputs.stored is None else codes_of(inputs.stored.database, bits)
    trial = TrialFacts(
        model=model,
        clean=_model(inputs.control, bits, truth),
        unpurified_model=_model(_unpurified(inputs.measured), bits, truth) if purified else None,
        unpurified_clean=_model(_unpurified(inputs.control), bits, truth) if purified else None,
        attack=None if inputs.implant is None else _attack(inputs.implant),
        repaired=inputs.defense is not None and inputs.defense.changes_model,
        filtered=_filtered(inputs, truth.target),
        verdict=_verdict(spec, inputs),
        stored=None if stored is None else replace(model, database=stored),
    )
    found: Json = {**metrics.of_trial(trial)}
    if inputs.measured.benign_scores is not None:
        names = inputs.measured.benign_scores.names  # the main score is first
        scores = {
            name: metrics.of_scores(_scores(inputs.measured, name, truth), _scores(inputs.control, name, truth))
            for name in names
        }
        found["detectors"] = {"headline": names[0], "scores": scores}
    return Output({}, {"protocol": inputs.split.protocol}, found)


def _model(system: SystemInputs, bits: int, truth: Truth) -> ModelCodes:
    benign, triggered = system.purified_benign or system.benign, system.purified_triggered or system.triggered
    return ModelCodes(
        query=codes_of(benign.query, bits),
        database=codes_of(system.benign.database, bits),  # as stored: a purification changes queries only
        triggered=codes_of(triggered.codes, bits),
        truth=truth,
        saturation=_mean(benign.saturation),
        triggered_saturation=_mean(triggered.saturation),
    )


def _unpurified(system: SystemInputs) -> SystemInputs:
    """The same system, which encodes queries as they are."""
    return replace(system, purified_benign=None, purified_triggered=None)


def _mean(sizes: Float[Tensor, " n"] | None) -> float | None:
    return float(sizes.double().mean()) if sizes is not None and len(sizes) else None


def _attack(implant: Implanted) -> AttackFacts:
    return AttackFacts(
        counts=implant.poison_amounts,
        stealth=implant.stealth.numpy(),
        attention=implant.attention.numpy(),
        losses=implant.losses,
        trained=implant.mask is not None,
    )


def _filtered(inputs: MeasureInputs, target: Bool[np.ndarray, " k"]) -> FilterFacts | None:
    judged = inputs.defense
    if judged is None or judged.kind is not DefenseKind.DATA_FILTER:
        return None
    labels = stage_io.labels(inputs, "train").numpy().copy()
    mask = np.zeros(len(labels), dtype=bool)
    if inputs.implant is not None:
        assert inputs.implant.mask is not None, "an attack with offers_train_set poisons images"
        mask = inputs.implant.mask.numpy()
        labels[mask] = inputs.implant.poison_labels.numpy()
    in_target = (labels & target).any(1)
    return FilterFacts(judged.scores.numpy().astype(np.float64), judged.keep.numpy(), mask, in_target)


def _verdict(spec: MeasureSpec, inputs: MeasureInputs) -> VerdictFacts | None:
    if inputs.defense is None or inputs.defense.kind is not DefenseKind.MODEL_DETECTOR:
        return None
    verdict = inputs.defense.verdict
    named = None if verdict.suspect is None else verdict.suspect in spec["target"]
    return VerdictFacts(verdict.score, verdict.alarm_at, named)


def _scores(system: SystemInputs, name: str, truth: Truth) -> DetectorScores:
    assert system.benign_scores is not None, "the planner gives both kinds of scores, or none"
    assert system.triggered_scores is not None, "the planner gives both kinds of scores, or none"
    return DetectorScores(
        benign=system.benign_scores.query(name).numpy().astype(np.float64),
        positions=truth.positions,
        triggered=system.triggered_scores.query(name).numpy().astype(np.float64),
        calibration=system.benign_scores.calibration(name).numpy().astype(np.float64),
    )
