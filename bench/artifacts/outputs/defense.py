"""The artifacts of the stages `defend`, `score_benign` and `score_triggered`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.api.kinds import CODE_CHANGING, DefenseKind
from bench.artifacts.artifact import Artifact, Output, prefixed, stored
from bench.artifacts.outputs.model import StoredModel

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor


@dataclass(frozen=True)
class NamedVerdict:
    """A model detector's verdict (bench.api.defense.Verdict) with the suspected class by name."""

    score: float
    suspect: str | None
    alarm_at: float | None


class Defended(StoredModel):
    """The result of a defense: a model (repairs, data filters), an input detector's state, or a verdict."""

    @property
    def kind(self) -> DefenseKind:
        return DefenseKind(self.meta["kind"])

    @property
    def changes_model(self) -> bool:
        """Whether the artifact holds a model that replaces the victim's."""
        return self.kind in CODE_CHANGING

    @property
    def scores(self) -> Float[Tensor, " n"]:
        """A data filter's score of each training image; higher is more suspicious."""
        return self.tensors["scores"]

    @property
    def keep(self) -> Bool[Tensor, " n"]:
        """True for training images that a data filter keeps."""
        return self.tensors["keep"]

    @property
    def detector(self) -> dict[str, Tensor]:
        """An input detector's state."""
        return prefixed(self.tensors, "state.")

    @property
    def verdict(self) -> NamedVerdict:
        found = self.meta["verdict"]
        return NamedVerdict(found["score"], found["suspect"], found["alarm_at"])

    @staticmethod
    def filter_output(scores: Float[Tensor, " n"], keep: Bool[Tensor, " n"]) -> Output:
        return Output({"scores": scores.detach().cpu().float(), "keep": keep.cpu()})

    @staticmethod
    def detector_output(state: Mapping[str, Tensor]) -> Output:
        return Output(stored(state, "state."))

    @staticmethod
    def verdict_output(score: float, suspect: str | None, alarm_at: float | None) -> Output:
        return Output(meta={"verdict": {"score": score, "suspect": suspect, "alarm_at": alarm_at}})

    @staticmethod
    def notes_output(kind: DefenseKind, notes: Mapping[str, float]) -> Output:
        """notes: numbers that the defense records."""
        return Output(meta={"kind": str(kind), "notes": {name: float(value) for name, value in notes.items()}})


class BenignScores(Artifact):
    """An input detector's scores of benign queries and of the calibration set, by the score's name."""

    @property
    def names(self) -> list[str]:
        """The names of the scores, the headline score first."""
        return list(self.meta["scores"])

    def query(self, name: str) -> Float[Tensor, " q"]:
        return self.tensors[f"benign.{name}"]

    def calibration(self, name: str) -> Float[Tensor, " n"]:
        return self.tensors[f"calibration.{name}"]

    @staticmethod
    def output(query: Mapping[str, Float[Tensor, " q"]], calibration: Mapping[str, Float[Tensor, " n"]]) -> Output:
        return Output({**stored(query, "benign."), **stored(calibration, "calibration.")}, {"scores": list(query)})


class TriggeredScores(Artifact):
    """An input detector's scores of triggered queries, by the score's name."""

    def query(self, name: str) -> Float[Tensor, " n"]:
        return self.tensors[f"triggered.{name}"]

    @staticmethod
    def output(query: Mapping[str, Float[Tensor, " n"]]) -> Output:
        return Output(stored(query, "triggered."))
