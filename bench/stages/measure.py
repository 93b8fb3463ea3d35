"""Turn stored codes and scores into metrics; everything here can be computed again without training."""

from __future__ import annotations

import numpy as np

from bench import metrics
from bench.artifacts import stage_io
from bench.artifacts.codes import codes
from bench.artifacts.stage_io import Context, Inputs, Json, Output
from bench.metrics import System, Truth

REPAIRED = frozenset({"repair", "data_filter"})  # the codes are then those of the defended model, not the victim's


def run(spec: Json, inputs: Inputs, context: Context) -> Output:
    del context
    bits = spec["bits"]
    target = stage_io.target(spec, inputs.meta("load")["classes"])
    truth = Truth(
        query=stage_io.labels(inputs, "query").numpy(),
        database=stage_io.labels(inputs, "database").numpy(),
        positions=inputs.tensors("triggered")["positions"].numpy(),
        target=target.vector.numpy(),
        cutoff=inputs.meta("split")["protocol"]["cutoff"],
    )
    measured = _system(inputs, "", bits)
    clean = _system(inputs, "clean_", bits)
    found: Json = {**metrics.benign(measured, truth), **metrics.triggered(measured, truth)}
    control_benign, control = metrics.benign(clean, truth), metrics.triggered(clean, truth)
    found["map_change"] = _minus(found["map"], control_benign["map"])
    found["map_clean"] = control_benign["map"]
    repaired = inputs.has("defend") and inputs.meta("defend")["kind"] in REPAIRED
    # what an attack that trains the model itself costs is its result; only a victim's own training can fail
    trained = not inputs.has("implant") or "mask" in inputs.tensors("implant")
    found["collapsed"] = metrics.collapsed(
        found["map"] if trained and not repaired else None, control_benign["map"], control_benign["map_chance"]
    )
    found["t_map_control"] = control["t_map"]
    found["own_map_control"] = control["own_map"]
    found["t_map_posthoc_control"] = control["t_map_posthoc"]
    found["spread_control"] = control["spread"]
    found["gain"] = _minus(found["t_map"], control["t_map"])
    found |= metrics.why(measured, truth) | {f"{k}_control": v for k, v in metrics.why(clean, truth).items()}
    found |= _saturation(inputs)
    found |= _attack(inputs)
    if inputs.has("implant") and not repaired:  # a repair trains on, and nobody looked
        found |= _attention(inputs, bits)
    if inputs.has("score_benign"):
        found["detectors"] = _detectors(inputs, truth.positions)
    if inputs.has("defend"):
        found |= _defense(spec, inputs, truth.target)
    protocol = inputs.meta("split")["protocol"]
    return Output({}, {"protocol": protocol}, found)


def _system(inputs: Inputs, prefix: str, bits: int) -> System:
    return System(
        query=codes(inputs, f"{prefix}codes", "query", bits),
        database=codes(inputs, f"{prefix}codes", "database", bits),
        triggered=codes(inputs, f"{prefix}triggered", "codes", bits),
    )


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _saturation(inputs: Inputs) -> Json:
    """How sure the models are of bits; None for what an older run encoded."""
    roles = {"saturation": "codes", "saturation_triggered": "triggered", "saturation_control": "clean_codes"}
    sizes = {name: inputs.tensors(role).get("saturation") for name, role in roles.items()}
    return {name: float(size.double().mean()) if size is not None and len(size) else None
            for name, size in sizes.items()}  # fmt: skip


def _attention(inputs: Inputs, bits: int) -> Json:
    """How far triggered images are from the trigger alone, first and last; empty where no victim was trained."""
    watched = inputs.tensors("implant")["attention"]
    return {"attention_first": float(watched[0]) / bits, "attention": float(watched[-1]) / bits} if len(watched) else {}


def _attack(inputs: Inputs) -> Json:
    """Poison counts and stealth; empty for an attack that changes nothing."""
    if not inputs.has("implant"):
        return {}
    meta, tensors = inputs.meta("implant"), inputs.tensors("implant")
    found: Json = {
        name: meta[name] for name in ("poisons", "poison_rate", "target_share", "exact_share") if name in meta
    }
    stealth = tensors["stealth"].numpy()
    for name, column in zip(("linf", "psnr", "ssim"), stealth.T, strict=True):
        finite = column[np.isfinite(column)]  # PSNR of an unchanged image is infinite and says nothing
        found[name] = float(finite.mean()) if len(finite) else None
    return found


def _detectors(inputs: Inputs, positions: np.ndarray) -> Json:
    """Every score of an input detector, the headline score first, each with its control on the clean model."""

    def judge(prefix: str, name: str) -> dict[str, float | None]:
        screen, probe = inputs.tensors(f"{prefix}score_benign"), inputs.tensors(f"{prefix}score_triggered")
        benign, triggered, calibration = (
            table[f"{what}.{name}"].numpy().astype(np.float64)
            for table, what in ((screen, "benign"), (probe, "triggered"), (screen, "calibration"))
        )
        return metrics.detector(benign, positions, triggered, calibration)

    found = {}
    names = inputs.meta("score_benign")["scores"]
    for name in names:
        control = judge("clean_", name)
        found[name] = judge("", name) | {f"{key}_control": control[key] for key in ("auroc", "alarms_1", "alarms_5")}
    return {"headline": names[0], "scores": found}


def _defense(spec: Json, inputs: Inputs, target: np.ndarray) -> Json:
    meta = inputs.meta("defend")
    if meta["kind"] == "data_filter":
        tensors = inputs.tensors("defend")
        labels = stage_io.labels(inputs, "train").numpy().copy()
        mask = np.zeros(len(labels), dtype=bool)
        if inputs.has("implant"):
            mask = inputs.tensors("implant")["mask"].numpy()
            labels[mask] = inputs.tensors("implant")["poison_labels"].numpy()
        in_target = (labels & target).any(1)
        return dict(
            metrics.filtering(tensors["scores"].numpy().astype(np.float64), tensors["keep"].numpy(), mask, in_target)
        )
    if meta["kind"] == "model_detector":
        verdict = meta["verdict"]
        named = None if verdict["suspect"] is None else float(verdict["suspect"] in spec["target"])
        flagged = None if verdict["alarm_at"] is None else float(verdict["score"] > verdict["alarm_at"])
        return {"model_score": verdict["score"], "named_target": named, "flagged": flagged}
    return {}
