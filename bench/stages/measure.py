"""Turn stored codes and scores into metrics; everything here can be computed again without training."""

from __future__ import annotations

import numpy as np

from bench import metrics
from bench.artifacts import stage_io
from bench.artifacts.codes import codes
from bench.artifacts.stage_io import Context, Inputs, Json, Output
from bench.metrics import DetectorScores, ModelCodes, TrialFacts, Truth
from bench.metrics.context import AttackFacts, FilterFacts, VerdictFacts

REPAIRED = frozenset({"repair", "data_filter"})  # the codes are then those of the defended model, not the victim's


def run(spec: Json, inputs: Inputs, context: Context) -> Output:
    del context
    protocol = inputs.meta("split")["protocol"]
    truth = Truth(
        query=stage_io.labels(inputs, "query").numpy(),
        database=stage_io.labels(inputs, "database").numpy(),
        positions=inputs.tensors("triggered")["positions"].numpy(),
        target=stage_io.target(spec, inputs.meta("load")["classes"]).vector.numpy(),
        cutoff=protocol["cutoff"],
    )
    trial = TrialFacts(
        model=_model(inputs, "", spec["bits"], truth),
        clean=_model(inputs, "clean_", spec["bits"], truth),
        attack=_attack(inputs),
        repaired=inputs.has("defend") and inputs.meta("defend")["kind"] in REPAIRED,
        filtered=_filtered(inputs, truth.target),
        verdict=_verdict(spec, inputs),
    )
    found: Json = {**metrics.of_trial(trial)}
    if inputs.has("score_benign"):
        names = inputs.meta("score_benign")["scores"]  # the headline score first
        scores = {
            name: metrics.of_scores(_scores(inputs, "", name, truth), _scores(inputs, "clean_", name, truth))
            for name in names
        }
        found["detectors"] = {"headline": names[0], "scores": scores}
    return Output({}, {"protocol": protocol}, found)


def _model(inputs: Inputs, prefix: str, bits: int, truth: Truth) -> ModelCodes:
    benign, triggered = f"{prefix}codes", f"{prefix}triggered"
    return ModelCodes(
        query=codes(inputs, benign, "query", bits),
        database=codes(inputs, benign, "database", bits),
        triggered=codes(inputs, triggered, "codes", bits),
        truth=truth,
        saturation=_saturation(inputs, benign),
        triggered_saturation=_saturation(inputs, triggered),
    )


def _saturation(inputs: Inputs, role: str) -> float | None:
    sizes = inputs.tensors(role).get("saturation")
    return float(sizes.double().mean()) if sizes is not None and len(sizes) else None


def _attack(inputs: Inputs) -> AttackFacts | None:
    if not inputs.has("implant"):
        return None
    meta, tensors = inputs.meta("implant"), inputs.tensors("implant")
    names = ("poisons", "poison_rate", "target_share", "exact_share")
    return AttackFacts(
        counts={name: meta[name] for name in names if name in meta},
        stealth=tensors["stealth"].numpy(),
        attention=tensors["attention"].numpy(),
        trained="mask" in tensors,
    )


def _filtered(inputs: Inputs, target: np.ndarray) -> FilterFacts | None:
    if not inputs.has("defend") or inputs.meta("defend")["kind"] != "data_filter":
        return None
    judged = inputs.tensors("defend")
    labels = stage_io.labels(inputs, "train").numpy().copy()
    mask = np.zeros(len(labels), dtype=bool)
    if inputs.has("implant"):
        mask = inputs.tensors("implant")["mask"].numpy()
        labels[mask] = inputs.tensors("implant")["poison_labels"].numpy()
    in_target = (labels & target).any(1)
    return FilterFacts(judged["scores"].numpy().astype(np.float64), judged["keep"].numpy(), mask, in_target)


def _verdict(spec: Json, inputs: Inputs) -> VerdictFacts | None:
    if not inputs.has("defend") or inputs.meta("defend")["kind"] != "model_detector":
        return None
    verdict = inputs.meta("defend")["verdict"]
    suspect = verdict["suspect"]
    return VerdictFacts(verdict["score"], verdict["alarm_at"], None if suspect is None else suspect in spec["target"])


def _scores(inputs: Inputs, prefix: str, name: str, truth: Truth) -> DetectorScores:
    benign, triggered = (inputs.tensors(f"{prefix}{stage}") for stage in ("score_benign", "score_triggered"))
    return DetectorScores(
        benign=benign[f"benign.{name}"].numpy().astype(np.float64),
        positions=truth.positions,
        triggered=triggered[f"triggered.{name}"].numpy().astype(np.float64),
        calibration=benign[f"calibration.{name}"].numpy().astype(np.float64),
    )
