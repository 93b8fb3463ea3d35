"""Adds stages to a graph: each stage with its spec and with the stages whose artifacts it reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from bench.api import registry
from bench.api.defense import Defense, Needs
from bench.api.hashing import Dataset
from bench.artifacts.artifact import Artifact
from bench.artifacts.inputs import (
    DataInputs,
    DefendInputs,
    EncodeInputs,
    EncodeTriggeredInputs,
    Inputs,
    LoadInputs,
    PurifyBenignInputs,
    PurifyTriggeredInputs,
    ScoreBenignInputs,
    ScoreTriggeredInputs,
    SplitInputs,
    SystemInputs,
)
from bench.artifacts.outputs.attack import Implanted, StoredTrigger
from bench.artifacts.outputs.codes import BenignCodes
from bench.artifacts.outputs.defense import BenignScores, Defended, TriggeredScores
from bench.artifacts.outputs.model import StoredModel
from bench.artifacts.specs import (
    AimSpec,
    DefendSpec,
    EncodeSpec,
    EncodeTriggeredSpec,
    LoadSpec,
    ScoreTriggeredSpec,
    SettingSpec,
    SplitSpec,
)
from bench.config.schema import Resources
from bench.config.trial import Spec
from bench.graph.cache_key import content_of, key_of
from bench.graph.labels import cost_group_of, label_of
from bench.graph.plan import Stage

S = TypeVar("S", bound=Mapping[str, Any])
A = TypeVar("A", bound=Artifact)


class Wiring:
    """Adds stages to a graph and returns the artifacts that they will write."""

    def __init__(self, stages: dict[str, Stage], resources: Resources, data: Path | None, device: str) -> None:
        self.device, self._stages, self._resources, self._data_folder = device, stages, resources, data
        self._data_sets: dict[str, DataInputs] = {}

    def add(self, spec: S, inputs: Inputs[S, A]) -> A:
        """Add a stage unless the graph has it. Returns the stage's artifact."""
        kind, parents, resources = inputs.stage, inputs.parents(), self._resources
        key, modules, code = key_of(kind, spec, parents, threads=resources.threads, device=self.device)
        if key not in self._stages:
            self._stages[key] = Stage(
                kind=kind, key=key, spec=spec, parents=parents, modules=modules, code=code,
                label=label_of(kind, spec), cost_group=cost_group_of(kind, spec), threads=resources.threads,
                num_gpus=resources.num_gpus, timeout=resources.timeout,
            )  # fmt: skip
        artifact: A = inputs.artifact(key)
        return artifact

    def data(self, dataset: Spec) -> DataInputs:
        """A data set and its splits. The files are read once for each data set."""
        if dataset.identity not in self._data_sets:
            component: Dataset = registry.create("datasets", dataset.name, dataset.params)
            loading: LoadSpec = {
                "dataset": dataset.as_json(),
                "content": content_of(component.files(self._data_folder)),
                "classes": list(component.classes(self._data_folder)),
                "protocol": list(component.protocol(self._data_folder)),
            }
            splitting: SplitSpec = {"dataset": dataset.as_json()}
            load = self.add(loading, LoadInputs())
            self._data_sets[dataset.identity] = DataInputs(load, self.add(splitting, SplitInputs(load)))
        return self._data_sets[dataset.identity]

    def classes(self, dataset: Spec) -> list[str]:
        """The names of the classes of a data set."""
        loading: Mapping[str, Any] = self._stages[self.data(dataset).load.key].spec
        classes: list[str] = loading["classes"]
        return classes

    def benign(self, setting: SettingSpec, data: DataInputs, model: StoredModel) -> BenignCodes:
        """A model's codes of benign queries and of the database."""
        encoding: EncodeSpec = {"setting": _names(setting)}
        return self.add(encoding, EncodeInputs(data.load, data.split, model))

    def system(
        self, setting: SettingSpec, aim: AimSpec, data: DataInputs, model: StoredModel, trigger: StoredTrigger | None
    ) -> SystemInputs:
        """A model's codes of benign and of triggered images. trigger: None for images without one."""
        benign = self.benign(setting, data, model)
        known = benign if trigger is None else None
        triggered: EncodeTriggeredSpec = {"setting": _names(setting), **aim}
        return SystemInputs(
            benign, self.add(triggered, EncodeTriggeredInputs(data.load, data.split, model, trigger, known))
        )

    def defended(
        self, spec: DefendSpec, defense: Defense, data: DataInputs, model: StoredModel, poison: Implanted | None
    ) -> Defended:
        """A defense of a model. poison: the attack's training set, if there is one."""
        codes: BenignCodes | None = None
        if Needs.DATABASE in defense.needs:
            codes = self.benign(spec, data, model)
        poison = poison if Needs.TRAIN_SET in defense.needs else None
        return self.add(spec, DefendInputs(data.load, data.split, model, poison, codes))

    def scores(
        self,
        spec: DefendSpec,
        aim: AimSpec,
        data: DataInputs,
        model: StoredModel,
        detector: Defended,
        trigger: StoredTrigger | None,
    ) -> tuple[BenignScores, TriggeredScores]:
        """An input detector's scores of benign and of triggered images. spec: of the defense."""
        benign = self.add(spec, ScoreBenignInputs(data.load, data.split, model, detector))
        known = benign if trigger is None else None
        triggered: ScoreTriggeredSpec = {**spec, **aim}
        return benign, self.add(triggered, ScoreTriggeredInputs(data.load, data.split, model, detector, trigger, known))

    def purified(
        self,
        spec: DefendSpec,
        aim: AimSpec,
        data: DataInputs,
        system: SystemInputs,
        model: StoredModel,
        trigger: StoredTrigger | None,
    ) -> SystemInputs:
        """The system with the model's codes of purified benign and triggered images. spec: of the defense."""
        benign = self.add(spec, PurifyBenignInputs(data.load, data.split, model))
        known = benign if trigger is None else None
        triggered: ScoreTriggeredSpec = {**spec, **aim}
        return replace(
            system,
            purified_benign=benign,
            purified_triggered=self.add(triggered, PurifyTriggeredInputs(data.load, data.split, model, trigger, known)),
        )


def _names(spec: SettingSpec) -> list[str | int]:
    return [spec["dataset"]["name"], spec["backbone"]["name"], spec["method"]["name"], spec["bits"]]
