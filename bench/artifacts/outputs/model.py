"""The artifact of the stage `train`: a model. The artifacts of `implant` and of repairs hold a model too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bench.artifacts.artifact import Artifact, Output, prefixed, stored

if TYPE_CHECKING:
    from torch import Tensor


class StoredModel(Artifact):
    """A trained model: its state, and the blueprint of the untrained model."""

    @property
    def state(self) -> dict[str, Tensor]:
        """The model's state_dict."""
        return prefixed(self.tensors, "model.")

    @property
    def blueprint(self) -> Mapping[str, Any]:
        """See bench.artifacts.models.blueprint."""
        blueprint: Mapping[str, Any] = self.meta["model"]
        return blueprint

    @property
    def backdoored(self) -> bool:
        return bool(self.meta["backdoored"])

    @property
    def losses(self) -> tuple[float, ...]:
        """Mean training loss of each epoch; empty for a model that the victim did not train."""
        return tuple(self.meta.get("losses", ()))

    @staticmethod
    def model_output(state: Mapping[str, Tensor], blueprint: Mapping[str, Any]) -> Output:
        return Output(stored(state, "model."), {"model": dict(blueprint)})

    @staticmethod
    def training_output(losses: list[float]) -> Output:
        """losses: the mean of each epoch."""
        return Output(meta={"losses": losses})

    @staticmethod
    def backdoor_output(*, backdoored: bool) -> Output:
        return Output(meta={"backdoored": backdoored})
