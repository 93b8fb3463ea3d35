"""What the stage `train` leaves, and `implant` and repairs beside other things: a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bench.artifacts.artifact import Artifact, Output, prefixed, stored

if TYPE_CHECKING:
    from torch import Tensor


class StoredModel(Artifact):
    """A trained model: its state and what the untrained model is built from."""

    @property
    def state(self) -> dict[str, Tensor]:
        """The state_dict."""
        return prefixed(self.tensors, "model.")

    @property
    def blueprint(self) -> Mapping[str, Any]:
        blueprint: Mapping[str, Any] = self.meta["model"]
        return blueprint

    @property
    def backdoored(self) -> bool:
        return bool(self.meta["backdoored"])

    @staticmethod
    def model_output(state: Mapping[str, Tensor], blueprint: Mapping[str, Any]) -> Output:
        return Output(stored(state, "model."), {"model": dict(blueprint)})

    @staticmethod
    def training_output(losses: list[float]) -> Output:
        """losses: mean of each epoch."""
        return Output(meta={"losses": losses})

    @staticmethod
    def backdoor_output(*, backdoored: bool) -> Output:
        return Output(meta={"backdoored": backdoored})
