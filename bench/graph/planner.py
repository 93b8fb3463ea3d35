"""The planner: turns the trials of suites into a graph of stages. Trials share equal stages."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from bench.access.attacker import shown
from bench.api.attack import Attack, ModelSpec, PoisoningAttack, Threat, access_of
from bench.api.defense import Defense, InputDetector, Needs, Purification, kind_of
from bench.api.errors import DataMissingError, UserError
from bench.api.hashing import Backbone, HashingMethod
from bench.api.kinds import CODE_CHANGING
from bench.api.random import Rng
from bench.artifacts import stage_io
from bench.artifacts.inputs import (
    AttackerInputs,
    DataInputs,
    ImplantInputs,
    MakeTriggerInputs,
    MeasureInputs,
    SystemInputs,
    TrainInputs,
)
from bench.artifacts.models import blueprint, new_model
from bench.artifacts.outputs.attack import Implanted, StoredTrigger
from bench.artifacts.outputs.codes import BenignCodes
from bench.artifacts.outputs.defense import BenignScores, Defended, TriggeredScores
from bench.artifacts.outputs.model import StoredModel
from bench.artifacts.specs import (
    AimSpec,
    DefendSpec,
    FilesSpec,
    ImplantSpec,
    MakeTriggerSpec,
    MeasureSpec,
    SettingSpec,
)
from bench.config.expand import Skipped
from bench.config.schema import Resources
from bench.config.trial import PlannedTrial, Trial
from bench.graph.cache_key import content_of
from bench.graph.plan import Plan
from bench.graph.settings import instance, public_setting, setting_spec, spec_of
from bench.graph.threat_policy import check_threat, surrogate_trial, trigger_maker
from bench.graph.wiring import Wiring
from hashing.model import HashModel

# Shapes of images, for networks whose images are not read yet: grey and in colour, enlarged and not.
SHAPES = ((1, 16, 16), (1, 224, 224), (3, 16, 16), (3, 64, 64), (3, 224, 224))


@runtime_checkable
class TrialSource(Protocol):
    """Trials that run with the same limits, for example those of a suite."""

    @property
    def resources(self) -> Resources:
        """Limits of a stage."""

    def trials(self, data: Path | None) -> Iterator[Trial | Skipped]:
        """The trials. data: the folder of data sets."""


def plan(suites: Iterable[TrialSource], *, data: Path | None, device: str) -> Plan:
    """The graph of several suites. A trial that several suites name is in the plan once.

    data: the folder of data sets. device: "cpu" or "cuda", a part of the keys. UserError: an attack or a training
    recipe is invalid.
    """
    made = Plan()
    seen: set[Hashable] = set()
    seeds: dict[str, int] = {}
    for suite in suites:
        planner = _Planner(Wiring(made.stages, suite.resources, data, device), suite.resources.threads, seeds)
        for trial in suite.trials(data):
            if isinstance(trial, Skipped):
                planned = PlannedTrial(trial.trial, None, trial.reason)
            else:
                planned = planner.planned(trial)
            # the surrogates' seed is no part of the identity: the key already depends on the surrogates
            place = (replace(planned.trial, surrogate_seed=0).identity, planned.key)
            if place not in seen:
                seen.add(place)
                made.trials.append(planned)
    needed = made.ancestors()
    for key in [key for key in made.stages if key not in needed]:  # of trials whose data turned out to be missing
        del made.stages[key]
    return made


@dataclass(frozen=True)
class _Victim:
    """A model after its attack: the starting point of all defenses and of the stage `measure`.

    aim: the trigger's attack and target. clean, model: the models before and after the attack. control: the clean
    model's codes. trigger, implant: None without an attack. poison: None for an attack that offers no training set.
    """

    spec: SettingSpec
    data: DataInputs
    aim: AimSpec
    clean: StoredModel
    model: StoredModel
    control: SystemInputs
    trigger: StoredTrigger | None = None
    implant: Implanted | None = None
    poison: Implanted | None = None


class _NoSourceError(UserError):
    """The attack misleads no class of the data set. The trial is left out with this message."""


class _Planner:
    """Plans the trials of one suite."""

    def __init__(self, wiring: Wiring, threads: int, seeds: dict[str, int]) -> None:
        """seeds: for models that do not depend on the seed, the seed that is planned. All suites of a plan share it."""
        self._wiring, self._threads, self._seeds = wiring, threads, seeds
        self._victims: dict[str, _Victim] = {}
        self._misfits: dict[str, str] = {}

    def planned(self, trial: Trial) -> PlannedTrial:
        """The trial with its key or, if the trial cannot run, with the reason."""
        attack: Attack = instance("attacks", trial.attack)
        defense: Defense = instance("defenses", trial.defense)
        check_threat(trial, attack)
        planned = PlannedTrial(
            trial, None, access=access_of(attack.threat()), targeted=attack.targeted(), defense_kind=kind_of(defense),
            threads=self._threads, seed_dependent=attack.seed_dependent, remark=attack.remark(),
            surrogate_seed=trial.surrogate_seed if attack.requires(public_setting(trial)) else None,
        )  # fmt: skip
        try:
            reason = self._repeated(trial, attack) or _unsupported(trial, attack, defense)
            if reason := reason or self._misfit(trial, attack):
                return replace(planned, skipped=reason)
            return replace(planned, key=self._measure(trial, attack, defense))
        except (DataMissingError, _NoSourceError) as error:
            return replace(planned, skipped=str(error))

    def _repeated(self, trial: Trial, attack: Attack) -> str:
        """The reason to leave out a seed, "" if there is none: one model of all seeds must not count as several."""
        if attack.seed_dependent:
            return ""
        parts = (trial.dataset, trial.backbone, trial.method, trial.attack, trial.defense)
        place = repr((*(part.identity for part in parts), trial.bits, trial.target, trial.surrogate, trial.augment,
                      trial.training))  # fmt: skip
        first = self._seeds.setdefault(place, trial.seed)
        if first == trial.seed:
            return ""
        # boards average over trials that all rows have, so that other attacks may lose seeds too
        return (
            f"{trial.attack.name} gives the same model for all seeds: only seed {first} is measured;"
            f" --only seed={first} compares it with the others"
        )

    def _misfit(self, trial: Trial, attack: Attack) -> str:
        """Why the attack, for example its files, does not fit the setting; "" if it does."""
        if type(attack).unsupported_reason is Attack.unsupported_reason:
            return ""
        parts = (trial.dataset, trial.backbone, trial.method, trial.attack)
        place = repr((*(part.identity for part in parts), trial.bits))
        if place not in self._misfits:
            attack.files()  # missing ones come first
            spec, classes = setting_spec(trial, self._wiring.device), len(self._wiring.classes(trial.dataset))
            plans = [blueprint(spec, image_shape=shape, classes=classes, train_size=1) for shape in SHAPES]
            networks = [network for network in map(_without_values, plans) if network is not None]
            self._misfits[place] = attack.unsupported_reason(networks) if networks else ""
        return self._misfits[place]

    def _sources(self, trial: Trial, attack: Attack) -> list[str]:
        """The classes that the attack misleads; empty: all. _NoSourceError: it has none in this data set."""
        classes = self._wiring.classes(trial.dataset)
        try:
            names = list(attack.sources(stage_io.target(list(trial.target), classes), classes))
        except UserError as error:
            raise _NoSourceError(f"{trial.attack.name}: {error}") from None
        if unknown := [name for name in names if name not in classes]:
            raise _NoSourceError(
                f"{trial.attack.name}: sources() names '{unknown[0]}', which is no class of {trial.dataset.name}"
            )
        return names

    def _measure(self, trial: Trial, attack: Attack, defense: Defense) -> str:
        """The key of the trial's `measure` stage."""
        victim, wiring = self._victim(trial, attack), self._wiring
        data, model, control = victim.data, victim.model, victim.control
        defended: Defended | None = None
        scored: tuple[BenignScores, TriggeredScores] | None = None
        stored: BenignCodes | None = None
        spec: DefendSpec = {**victim.spec, "defense": trial.defense.as_json()}
        if not (defense.is_none or isinstance(defense, Purification)):  # a purification is not fitted
            defended = wiring.defended(spec, defense, data, victim.model, victim.poison)
            if isinstance(defense, InputDetector):
                scored = wiring.scores(spec, victim.aim, data, victim.model, defended, victim.trigger)
                fitted = wiring.defended(spec, defense, data, victim.clean, None)
                benign, triggered = wiring.scores(spec, victim.aim, data, victim.clean, fitted, victim.trigger)
                control = replace(control, benign_scores=benign, triggered_scores=triggered)
            elif kind_of(defense) in CODE_CHANGING:
                model, stored = defended, wiring.benign(victim.spec, data, victim.model)
        measured = wiring.system(victim.spec, victim.aim, data, model, victim.trigger)
        if scored is not None:
            measured = replace(measured, benign_scores=scored[0], triggered_scores=scored[1])
        if isinstance(defense, Purification):
            measured = wiring.purified(spec, victim.aim, data, measured, model, victim.trigger)
            control = wiring.purified(spec, victim.aim, data, control, victim.clean, victim.trigger)
        inputs = MeasureInputs(data.load, data.split, measured, control, victim.implant, defended, stored)
        measuring: MeasureSpec = {"bits": trial.bits, "target": list(trial.target)}
        return wiring.add(measuring, inputs).key

    def _victim(self, trial: Trial, attack: Attack) -> _Victim:
        """The victim of a trial. Trials that differ only in their defense share it."""
        parts = (trial.dataset, trial.backbone, trial.method, trial.attack)
        rest = (trial.bits, trial.target, trial.seed, trial.surrogate, trial.surrogate_seed, trial.augment)
        place = repr((*(part.identity for part in parts), *rest, trial.training))
        if place not in self._victims:
            self._victims[place] = self._new_victim(trial, attack)
        return self._victims[place]

    def _new_victim(self, trial: Trial, attack: Attack) -> _Victim:
        wiring = self._wiring
        data = wiring.data(trial.dataset)
        spec = setting_spec(trial, wiring.device)
        clean = wiring.add(spec, TrainInputs(data.load, data.split))
        target = list(trial.target)
        maker, trigger_spec = trigger_maker(trial.attack, attack)
        sources = self._sources(trial, attack)
        aim: AimSpec = {"attack": trigger_spec, "target": target, "sources": sources}
        if attack.is_none:
            return _Victim(spec, data, aim, clean, clean, control=wiring.system(spec, aim, data, clean, None))
        making: MakeTriggerSpec = {
            **spec, **_files_of(maker), "attack": trigger_spec, "target": target, "threat": shown(maker.threat()),
        }  # fmt: skip
        seen = self._granted(trial, maker, data, clean)
        made = wiring.add(making, MakeTriggerInputs(data.load, data.split, seen.clean, seen.surrogates, seen.proxies))
        implanting: ImplantSpec = {
            **spec, **_files_of(attack), "attack": trial.attack.as_json(), "target": target, "sources": sources,
            "augment": trial.augment,
        }  # fmt: skip
        seen = self._granted(trial, attack, data, clean)
        implanted = wiring.add(
            implanting, ImplantInputs(data.load, data.split, seen.clean, seen.surrogates, seen.proxies, made)
        )
        trigger = made if isinstance(attack, PoisoningAttack) else implanted
        return _Victim(
            spec, data, aim, clean, implanted, control=wiring.system(spec, aim, data, clean, trigger),
            trigger=trigger, implant=implanted, poison=implanted if attack.offers_train_set else None,
        )  # fmt: skip

    def _granted(self, trial: Trial, attack: Attack, data: DataInputs, clean: StoredModel) -> AttackerInputs:
        """The attacker's inputs: the clean model if the threat model grants it, and required surrogates and data."""
        surrogates: list[StoredModel] = []
        proxies: list[DataInputs] = []
        for wish in attack.requires(public_setting(trial)):
            if isinstance(wish, ModelSpec):
                surrogate = surrogate_trial(trial, wish)
                own = self._wiring.data(surrogate.dataset)
                training = setting_spec(surrogate, self._wiring.device)
                surrogates.append(self._wiring.add(training, TrainInputs(own.load, own.split)))
            else:
                proxies.append(self._wiring.data(spec_of("datasets", wish.name, wish.params)))
        return AttackerInputs(
            data.load, data.split, clean=clean if Threat.MODEL in attack.threat() else None,
            surrogates=tuple(surrogates), proxies=tuple(proxies),
        )  # fmt: skip


def _without_values(plan: dict[str, Any]) -> HashModel | None:
    """The untrained model of a blueprint, without values; None if a component cannot build it."""
    try:
        with warnings.catch_warnings(action="ignore"), torch.device("meta"):
            return new_model(plan, Rng("without values"))
    except Exception:  # noqa: BLE001 -- a plugin's may need values or other images; the attack step compares them
        return None


def _unsupported(trial: Trial, attack: Attack, defense: Defense) -> str:
    """The reason why the trial's defense cannot work on the trial's model; "" if it can."""
    if Needs.TRAIN_SET in defense.needs and not (attack.offers_train_set or attack.is_none):
        return f"{trial.defense.name} needs a poisoned training set, and the attack makes none"
    backbone: Backbone = instance("backbones", trial.backbone)
    method: HashingMethod = instance("methods", trial.method)
    reason = defense.unsupported_reason(backbone, method)
    return f"{trial.defense.name}: {reason}" if reason else ""


def _files_of(attack: Attack) -> FilesSpec:
    return {"files": content_of(files)} if (files := attack.files()) else {}
