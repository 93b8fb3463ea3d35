"""Model detection: the result of a model detector for one model."""

from __future__ import annotations

import math
from collections.abc import Mapping

from bench.metrics.context import TrialFacts
from bench.metrics.registry import Metric, Number, metrics_of

DETECTION = "Model detection"


@metrics_of(
    Metric("model_score", "model score", "score of the model from a model detector; a higher score is more suspicious",
           DETECTION, direction=0, low=-math.inf, high=math.inf),
    Metric("flagged", "flagged", "1 if the score is above the threshold that the detector's paper gives", DETECTION,
           methodology="model-rates", whole=True),
    Metric("named_target", "named target", "1 if the class that the detector suspects is a label of the target",
           DETECTION, methodology="model-rates", whole=True),
)  # fmt: skip
def verdict(trial: TrialFacts) -> Mapping[str, Number] | None:
    said = trial.verdict
    if said is None:
        return None
    return {
        "model_score": said.score,
        "named_target": None if said.names_target is None else float(said.names_target),
        "flagged": None if said.alarm_at is None else float(said.score > said.alarm_at),
    }


# For `bench explain`; no result depends on it.
EXPLAINED = {
    "model_score": {
        "formula": "defined by the detector",
        "example": "a clean model 1.2 and an attacked one 3.4",
        "silent": "anything across detectors: scales differ",
    },
    "flagged": {
        "formula": "1 if the score exceeds the threshold of the paper",
        "example": "3/9: three of nine models",
        "silent": "how often clean models are flagged: see row none",
    },
    "named_target": {
        "formula": "1 if the suspected class is a target label",
        "example": "2/3",
        "silent": "that the model is flagged: both are needed",
    },
}
