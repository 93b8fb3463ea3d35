"""Trials in, a graph of unique stages out: equal work is one stage, however many trials share it."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from bench.access.attacker import shown
from bench.api import registry
from bench.api.attack import (
    Attack,
    DataSpec,
    ModelAttack,
    ModelSpec,
    PoisoningAttack,
    Threat,
    TrainingAttack,
    access_of,
)
from bench.api.defense import Defense, InputDetector, ModelDetector, Needs, kind_of
from bench.api.errors import DataMissingError, UserError
from bench.api.hashing import Backbone, Dataset, HashingMethod, Recipe
from bench.api.types import Setting
from bench.artifacts.artifact import Artifact
from bench.artifacts.inputs import (
    AttackerInputs,
    DataInputs,
    DefendInputs,
    EncodeInputs,
    EncodeTriggeredInputs,
    ImplantInputs,
    Inputs,
    LoadInputs,
    MakeTriggerInputs,
    MeasureInputs,
    ScoreBenignInputs,
    ScoreTriggeredInputs,
    SplitInputs,
    SystemInputs,
    TrainInputs,
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
    FilesSpec,
    ImplantSpec,
    LoadSpec,
    MakeTriggerSpec,
    MeasureSpec,
    ScoreTriggeredSpec,
    SettingSpec,
    SplitSpec,
)
from bench.config.expand import Skipped
from bench.config.schema import Resources
from bench.config.suite import Suite
from bench.config.trial import ComponentSpec, PlannedTrial, Spec, Trial, canonical
from bench.graph.cache_key import content_of, key_of
from hashing.train import fast_precision

S = TypeVar("S", bound=Mapping[str, Any])
A = TypeVar("A", bound=Artifact)


@dataclass(frozen=True)
class Stage:
    """One piece of work. parents: see bench.artifacts.inputs. group: stages of one group cost about the same."""

    kind: str
    key: str
    spec: Mapping[str, Any]
    parents: Mapping[str, str]
    modules: tuple[str, ...]
    code: str
    label: str
    group: str
    threads: int
    num_gpus: float
    timeout: float


@dataclass
class Plan:
    stages: dict[str, Stage] = field(default_factory=dict)
    trials: list[PlannedTrial] = field(default_factory=list)

    @cached_property
    def children(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {key: [] for key in self.stages}
        for stage in self.stages.values():
            for parent in set(stage.parents.values()):
                found[parent].append(stage.key)
        return found


def plan(suites: Iterable[Suite], *, data: Path | None, device: str) -> Plan:
    """The graph of several suites; a trial that two of them name is one."""
    made = Plan()
    seen: set[Hashable] = set()
    seeds: dict[str, int] = {}
    for suite in suites:
        planner = _Planner(made.stages, suite.resources, data, device, seeds)
        for trial in suite.trials(data):
            if isinstance(trial, Skipped):
                planned = PlannedTrial(trial.trial, None, trial.reason)
            else:
                planned = planner.planned(trial)
            # of what it stands on, the key says more than the surrogate's seed
            place = (replace(planned.trial, surrogate_seed=0).identity, planned.key)
            if place not in seen:
                seen.add(place)
                made.trials.append(planned)
    needed = ancestors(made)
    for key in [key for key in made.stages if key not in needed]:  # of a victim whose attacker lacks data
        del made.stages[key]
    return made


def ancestors(made: Plan) -> set[str]:
    """Keys of all stages that some trial stands on."""
    found: set[str] = set()
    left = [trial.key for trial in made.trials if trial.key is not None]
    while left:
        if (key := left.pop()) not in found:
            found.add(key)
            left += made.stages[key].parents.values()
    return found


def check_threat(trial: Trial, attack: Attack) -> None:
    """Refuse an attack whose kind, surrogates or foreign data go beyond the threat model that it declares."""
    threat, name = attack.threat(), trial.attack.name
    if not isinstance(threat, Threat):
        raise UserError(f"attack '{name}': threat() must return a Threat, not {threat!r}")
    for kind, flag in (
        (PoisoningAttack, Threat.TRAIN_SET),
        (ModelAttack, Threat.MODEL),
        (TrainingAttack, Threat.TRAINING),
    ):
        if isinstance(attack, kind) and flag not in threat:
            raise UserError(f"attack '{name}' is a {kind.__name__}: its threat() must declare Threat.{flag.name}")
    for wish in attack.requires(_setting_of(trial)):
        if isinstance(wish, ModelSpec) and Threat.TRAIN_SET not in threat:
            raise UserError(f"attack '{name}' trains surrogates on the victim's images: declare Threat.TRAIN_SET")
        if isinstance(wish, DataSpec) and wish.name == trial.dataset.name:
            raise UserError(f"attack '{name}' asks for the victim's own data set '{wish.name}': name another one")


def _setting_of(trial: Trial) -> Setting:
    """What is known of a setting before its data are read."""
    return Setting(
        dataset=trial.dataset.name, backbone=trial.backbone.name, method=trial.method.name, bits=trial.bits,
        classes=(), image_shape=(0, 0, 0), train_size=0,
        proxy_dataset=registry.lookup("datasets", trial.dataset.name).proxy_dataset,
    )  # fmt: skip


def _trigger_maker(spec: Spec, attack: Attack) -> tuple[Attack, ComponentSpec]:
    """The attack that makes the trigger, and its name with the parameters that the trigger depends on."""
    maker, name = attack, spec.name
    if attack.shares_trigger_with is not None:
        name = attack.shares_trigger_with
        known = {item.name for item in fields(registry.lookup("attacks", name))}
        shared = Spec(name, {key: value for key, value in spec.params.items() if key in known})
        maker = _instance("attacks", shared)
    left_out = maker.not_in_trigger - set(registry.required("attacks", name))
    params = {key: value for key, value in registry.parameters(maker).items() if key not in left_out}
    _check_derived(maker, name, params)
    return maker, {"name": name, "params": params}


def _check_derived(attack: Attack, name: str, params: Mapping[str, Any]) -> None:
    """Refuse an attack that stores a value computed from a parameter of `not_in_trigger`: its trigger could read that.

    params: those that the trigger depends on; the rest have their defaults where the trigger is made.
    """
    full = registry.parameters(attack)
    given, again, shared = (vars(registry.create("attacks", name, of)) for of in (full, full, params))
    for attribute in given.keys() - full.keys():  # of what two equal attacks have in common
        if repr(given[attribute]) == repr(again[attribute]) != repr(shared.get(attribute)):
            raise UserError(
                f"attack '{name}' computes '{attribute}' from a parameter of its not_in_trigger: remove that parameter"
                f" from not_in_trigger ({', '.join(sorted(attack.not_in_trigger))})"
            )


def _other_surrogate(trial: Trial, wish: ModelSpec) -> Trial:
    """The surrogate's setting where the axis says, for example, "backbone=resnet18" or "bits=16"."""
    part, _, value = trial.surrogate.partition("=")
    if part == "backbone" and wish.backbone is None:
        return replace(trial, backbone=_spec("backbones", value))
    if part == "method" and wish.method is None:
        return replace(trial, method=_spec("methods", value))
    if part == "bits" and wish.bits is None:
        return replace(trial, bits=int(value))
    return trial


@cache
def recipe_of(method: str, training: str, device: str) -> dict[str, Any]:
    """A method's recipe with the suite's changes (canonical JSON); "auto" precision is settled here, for the key."""
    changes: dict[str, Any] = json.loads(training)
    paper: Recipe = registry.lookup("methods", method).recipe
    try:
        recipe = Recipe(**{**asdict(paper), **changes})
    except ValidationError as error:
        raise UserError(f"training: {registry.explain(error, asdict(paper))}") from None
    return asdict(recipe) | ({"precision": fast_precision(device)} if recipe.precision == "auto" else {})


@dataclass(frozen=True)
class _Victim:
    """What all defenses of a trial stand behind.

    aim: the trigger's attack and target. clean, model: without and with the attack. implant, trigger: None for an
    attack that changes nothing. control: the clean model's codes.
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


class _Planner:
    def __init__(
        self, stages: dict[str, Stage], resources: Resources, data: Path | None, device: str, seeds: dict[str, int]
    ) -> None:
        """seeds: of models that no seed makes; one for all suites of a plan, whose boards count such a model once."""
        self._stages, self._resources, self._data, self._device = stages, resources, data, device
        self._seeds = seeds
        self._data_sets: dict[str, DataInputs] = {}  # by the data set's identity: walking a folder once is enough
        self._victims: dict[str, _Victim] = {}

    def planned(self, trial: Trial) -> PlannedTrial:
        attack: Attack = _instance("attacks", trial.attack)
        defense: Defense = _instance("defenses", trial.defense)
        check_threat(trial, attack)
        planned = PlannedTrial(
            trial, None, access=access_of(attack.threat()), targeted=attack.targeted(), defense_kind=kind_of(defense),
            threads=self._resources.threads, seed_dependent=attack.seed_dependent,
            surrogate_seed=trial.surrogate_seed if attack.requires(_setting_of(trial)) else None,
        )  # fmt: skip
        if why := self._repeated(trial, attack):
            return replace(planned, skipped=why)
        if Needs.TRAIN_SET in defense.needs and not (attack.offers_train_set or attack.is_none):
            why = f"{trial.attack.name} leaves no poisoned training set that {trial.defense.name} could look at"
            return replace(planned, skipped=why)
        backbone: Backbone = _instance("backbones", trial.backbone)
        method: HashingMethod = _instance("methods", trial.method)
        if why := defense.unsupported_reason(backbone, method):
            return replace(planned, skipped=f"{trial.defense.name}: {why}")
        try:
            return replace(planned, key=self._measure(trial, attack, defense))
        except DataMissingError as error:
            return replace(planned, skipped=str(error))

    def _repeated(self, trial: Trial, attack: Attack) -> str:
        """Why a seed is left out: a model that is one for all of them would be counted as several."""
        if attack.seed_dependent:
            return ""
        parts = (trial.dataset, trial.backbone, trial.method, trial.attack, trial.defense)
        place = repr((*(part.identity for part in parts), trial.bits, trial.target, trial.surrogate, trial.augment,
                      trial.training))  # fmt: skip
        first = self._seeds.setdefault(place, trial.seed)
        if first == trial.seed:
            return ""
        return (
            f"{trial.attack.name} is one model for all seeds: measured with {first};"
            f" --only seed={first} compares it with the others"
        )  # a mean over trials that all rows have is otherwise one over this seed, or leaves the model out

    def _measure(self, trial: Trial, attack: Attack, defense: Defense) -> str:
        victim = self._victim(trial, attack)
        model, control = victim.model, victim.control
        defended: Defended | None = None
        scored: tuple[BenignScores, TriggeredScores] | None = None
        if not defense.is_none:
            spec: DefendSpec = {**victim.spec, "defense": trial.defense.as_json()}
            defended = self._defend(spec, defense, victim.data, victim.model, victim.poison)
            if isinstance(defense, InputDetector):
                scored = self._scores(spec, victim, victim.model, defended)
                fitted = self._defend(spec, defense, victim.data, victim.clean, None)
                benign, triggered = self._scores(spec, victim, victim.clean, fitted)
                control = replace(control, benign_scores=benign, triggered_scores=triggered)
            elif not isinstance(defense, ModelDetector):
                model = defended
        measured = self._system(victim.spec, victim.aim, victim.data, model, victim.trigger)
        if scored is not None:
            measured = replace(measured, benign_scores=scored[0], triggered_scores=scored[1])
        data = victim.data
        inputs = MeasureInputs(data.load, data.split, measured, control, victim.implant, defended)
        measuring: MeasureSpec = {"bits": trial.bits, "target": list(trial.target)}
        return self._add(measuring, inputs).key

    def _victim(self, trial: Trial, attack: Attack) -> _Victim:
        """What all defenses of a trial stand behind."""
        parts = (trial.dataset, trial.backbone, trial.method, trial.attack)
        rest = (trial.bits, trial.target, trial.seed, trial.surrogate, trial.surrogate_seed, trial.augment)
        place = repr((*(part.identity for part in parts), *rest, trial.training))
        if place not in self._victims:
            self._victims[place] = self._new_victim(trial, attack)
        return self._victims[place]

    def _new_victim(self, trial: Trial, attack: Attack) -> _Victim:
        data = self._data_of(trial.dataset)
        spec = self._setting(trial)
        clean = self._add(spec, TrainInputs(data.load, data.split))
        target = list(trial.target)
        maker, trigger_spec = _trigger_maker(trial.attack, attack)
        aim: AimSpec = {"attack": trigger_spec, "target": target}
        if attack.is_none:
            return _Victim(spec, data, aim, clean, clean, control=self._system(spec, aim, data, clean, None))
        making: MakeTriggerSpec = {**spec, **aim, **_files_of(maker), "threat": shown(maker.threat())}
        seen = self._granted(trial, maker, data, clean)
        made = self._add(making, MakeTriggerInputs(data.load, data.split, seen.clean, seen.surrogates, seen.proxies))
        # what a poisoning attack brings is in its trigger
        read: FilesSpec = {} if isinstance(attack, PoisoningAttack) else _files_of(attack)
        implanting: ImplantSpec = {
            **spec, **read, "attack": trial.attack.as_json(), "target": target, "augment": trial.augment,
        }  # fmt: skip
        seen = self._granted(trial, attack, data, clean)
        implanted = self._add(
            implanting, ImplantInputs(data.load, data.split, seen.clean, seen.surrogates, seen.proxies, made)
        )
        trigger = made if isinstance(attack, PoisoningAttack) else implanted
        return _Victim(
            spec, data, aim, clean, implanted, control=self._system(spec, aim, data, clean, trigger),
            trigger=trigger, implant=implanted, poison=implanted if attack.offers_train_set else None,
        )  # fmt: skip

    def _system(
        self, setting: SettingSpec, aim: AimSpec, data: DataInputs, model: StoredModel, trigger: StoredTrigger | None
    ) -> SystemInputs:
        """Codes of benign and of triggered images under a model."""
        benign: EncodeSpec = {"setting": _names(setting)}
        triggered: EncodeTriggeredSpec = {**benign, **aim}
        return SystemInputs(
            benign=self._add(benign, EncodeInputs(data.load, data.split, model)),
            triggered=self._add(triggered, EncodeTriggeredInputs(data.load, data.split, model, trigger)),
        )

    def _scores(
        self, spec: DefendSpec, victim: _Victim, model: StoredModel, detector: Defended
    ) -> tuple[BenignScores, TriggeredScores]:
        """An input detector's scores of benign and of triggered images. spec: of the defense."""
        load, split = victim.data.load, victim.data.split
        aimed: ScoreTriggeredSpec = {**spec, **victim.aim}
        return (
            self._add(spec, ScoreBenignInputs(load, split, model, detector)),
            self._add(aimed, ScoreTriggeredInputs(load, split, model, detector, victim.trigger)),
        )

    def _data_of(self, dataset: Spec) -> DataInputs:
        """Walking a folder once is enough."""
        if dataset.identity not in self._data_sets:
            self._data_sets[dataset.identity] = self._new_data(dataset)
        return self._data_sets[dataset.identity]

    def _new_data(self, dataset: Spec) -> DataInputs:
        component: Dataset = registry.create("datasets", dataset.name, dataset.params)
        loading: LoadSpec = {
            "dataset": dataset.as_json(),
            "content": content_of(component.files(self._data)),
            "classes": list(component.classes(self._data)),
            "protocol": list(component.protocol(self._data)),
        }
        splitting: SplitSpec = {"dataset": dataset.as_json()}
        load = self._add(loading, LoadInputs())
        return DataInputs(load, self._add(splitting, SplitInputs(load)))

    def _setting(self, trial: Trial) -> SettingSpec:
        backbone: Backbone = _instance("backbones", trial.backbone)
        setting: SettingSpec = {
            "dataset": trial.dataset.as_json(),
            "backbone": trial.backbone.as_json(),
            "method": trial.method.as_json(),
            "bits": trial.bits,
            "seed": trial.seed,
            "recipe": recipe_of(trial.method.name, canonical(dict(trial.training)), self._device),
        }
        if weights := backbone.files():
            setting["weights"] = content_of(weights)
        return setting

    def _granted(self, trial: Trial, attack: Attack, data: DataInputs, clean: StoredModel) -> AttackerInputs:
        """What the threat model grants and what the attack asks for."""
        surrogates: list[StoredModel] = []
        proxies: list[DataInputs] = []
        for wish in attack.requires(_setting_of(trial)):
            if isinstance(wish, ModelSpec):
                surrogate = replace(
                    trial,
                    seed=trial.surrogate_seed,
                    bits=wish.bits or trial.bits,
                    method=_spec("methods", wish.method) if wish.method else trial.method,
                    backbone=_spec("backbones", wish.backbone) if wish.backbone else trial.backbone,
                )  # what the attack leaves open, the suite's `surrogate` axis settles
                surrogate = _other_surrogate(surrogate, wish)
                own = self._data_of(surrogate.dataset)
                surrogates.append(self._add(self._setting(surrogate), TrainInputs(own.load, own.split)))
            else:
                proxies.append(self._data_of(_spec("datasets", wish.name, wish)))
        return AttackerInputs(
            data.load, data.split, clean=clean if Threat.MODEL in attack.threat() else None,
            surrogates=tuple(surrogates), proxies=tuple(proxies),
        )  # fmt: skip

    def _defend(
        self, spec: DefendSpec, defense: Defense, data: DataInputs, model: StoredModel, poison: Implanted | None
    ) -> Defended:
        codes: BenignCodes | None = None
        if Needs.DATABASE in defense.needs:
            encoding: EncodeSpec = {"setting": _names(spec)}
            codes = self._add(encoding, EncodeInputs(data.load, data.split, model))
        poison = poison if Needs.TRAIN_SET in defense.needs else None
        return self._add(spec, DefendInputs(data.load, data.split, model, poison, codes))

    def _add(self, spec: S, inputs: Inputs[S, A]) -> A:
        """Plan a stage unless it is planned already; what it leaves."""
        kind, parents = inputs.stage, inputs.parents()
        key, modules, code = key_of(kind, spec, parents, threads=self._resources.threads, device=self._device)
        if key not in self._stages:
            self._stages[key] = Stage(
                kind=kind, key=key, spec=spec, parents=parents, modules=modules, code=code,
                label=_label(kind, spec), group=_group(kind, spec), threads=self._resources.threads,
                num_gpus=self._resources.num_gpus, timeout=self._resources.timeout,
            )  # fmt: skip
        left: A = inputs.left(key)
        return left


_instances: dict[tuple[str, str], Any] = {}


def _instance(kind: str, spec: Spec) -> Any:
    """Components are frozen, so that one instance serves every trial that names it."""
    place = (kind, spec.identity)
    if place not in _instances:
        _instances[place] = registry.create(kind, spec.name, spec.params)
    return _instances[place]


def _spec(kind: str, name: str, wish: DataSpec | None = None) -> Spec:
    instance = registry.create(kind, name, wish.params if wish else {})
    return Spec(name, registry.parameters(instance))


def _files_of(attack: Attack) -> FilesSpec:
    return {"files": content_of(files)} if (files := attack.files()) else {}


def _names(spec: SettingSpec) -> list[str | int]:
    return [spec["dataset"]["name"], spec["backbone"]["name"], spec["method"]["name"], spec["bits"]]


def _label(kind: str, spec: Mapping[str, Any]) -> str:
    """What a person reads in the progress display and in errors."""
    words = [str(spec[role]["name"]) for role in ("attack", "defense", "dataset", "backbone", "method") if role in spec]
    words += [str(part) for part in spec.get("setting", [])]
    words += [f"{spec['bits']} bits"] if "bits" in spec else []
    words += [f"target {'+'.join(spec['target'])}"] if "target" in spec else []
    words += [f"seed {spec['seed']}"] if "seed" in spec else []
    return f"{kind} {' '.join(words)}"


def _group(kind: str, spec: Mapping[str, Any]) -> str:
    roles = ("dataset", "backbone", "method", "defense", *(("attack",) if kind in {"make_trigger", "implant"} else ()))
    words = [str(spec[role]["name"]) for role in roles if role in spec]
    return " ".join(
        [kind, *words, *(str(part) for part in spec.get("setting", [])), str(spec.get("recipe", {}).get("epochs", ""))]
    )
