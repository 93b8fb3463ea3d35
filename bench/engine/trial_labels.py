"""Whether trials are what their run says: axes and recipes as measured, components as installed.

The run of a stranger may say anything, and boards, reruns and lists of best results believe it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from bench.api import registry
from bench.api.attack import ModelSpec, access_of
from bench.api.defense import kind_of
from bench.api.errors import UserError
from bench.api.own_files import SIZES, OwnImages
from bench.api.registry import KIND_OF_AXIS
from bench.artifacts.inputs import EncodeInputs, ImplantInputs, MeasureInputs, TrainInputs
from bench.artifacts.outputs.model import StoredModel
from bench.config.expand import given_of
from bench.config.trial import PlannedTrial, Spec, Trial, digest
from bench.engine.record import Record
from bench.engine.record_cache import RecordCache
from bench.graph.settings import instance, public_setting, recipe_of
from bench.graph.threat_policy import surrogate_trial

NONE = {"name": "none", "params": {}}  # no attack, no defense


def misplaced(planned: PlannedTrial, record: Record, records: RecordCache) -> Iterator[str]:
    """A sentence for each part of a run's trial that is not what was measured under its key.

    record: of the trial's measurement. records: of its store.
    """
    trial = planned.trial
    measured: dict[str, Any] = {"attack": NONE, "defense": NONE}
    for made in _stages(record, records):
        measured |= made.spec
    wanted: dict[str, Any] = {axis: spec.as_json() for axis, spec in trial.components.items()}
    wanted |= {"bits": trial.bits, "target": list(trial.target), "augment": trial.augment}
    wanted |= {"seed": trial.seed} if planned.seed_dependent else {}
    for axis, value in wanted.items():
        if axis in measured and digest(measured[axis]) != digest(value):
            yield f"the run calls its {axis} {_named(value)}, measured was {_named(measured[axis])}"
    yield from _retrained(planned, record, records, named=True)


def mislabelled(planned: PlannedTrial) -> Iterator[str]:
    """A sentence for whatever a run says of a component and the component does not say of itself.

    Components that are not installed here cannot be asked.
    """
    made: dict[str, Any] = {}
    for axis, spec in planned.trial.components.items():
        try:
            made[axis] = instance(KIND_OF_AXIS[axis], spec)
        except UserError:
            continue
        if digest(dict(spec.given)) != digest(_given(spec, made[axis])):
            yield f"the run names other parameters of {axis} {spec.name} than it has"
    said: dict[str, tuple[object, object]] = {}
    if attack := made.get("attack"):
        said["access"] = (planned.access, access_of(attack.threat()))
        said["targeted"] = (planned.targeted, attack.targeted())
        said["seed_dependent"] = (planned.seed_dependent, attack.seed_dependent)
    if defense := made.get("defense"):
        said["defense_kind"] = (planned.defense_kind, kind_of(defense))
    for name, (run, component) in said.items():
        if run != component:
            yield f"the run says {name} {run}, the component says {component}"


def untold(planned: PlannedTrial, record: Record, records: RecordCache) -> Iterator[str]:
    """A sentence for each part of the trainings that follows from no word of the run: recipes, models of the attacker.

    Methods and attacks that are not installed here cannot be asked.
    """
    known = (record, *_ancestors(record, records))
    if any(records.record(key) is None for made in known for key in made.parents.values()):
        yield "the record of a stage that it follows from is missing"
    yield from _retrained(planned, record, records, named=False)
    if (implant := records.implant(record)) is not None:
        with suppress(UserError):
            yield from _surrogates(planned.trial, ImplantInputs.of(implant.parents).surrogates, records)


def _retrained(planned: PlannedTrial, record: Record, records: RecordCache, *, named: bool) -> Iterator[str]:
    """A sentence for each field of a recipe by which a model was not trained as the run says.

    named: whether the fields that the run names are compared, or those that it leaves to the method of this version.
    """
    said = planned.trial.training
    found = dict[str, None]()
    for made in _ancestors(record, records):
        if "recipe" not in made.spec and made.stage not in {TrainInputs.stage, ImplantInputs.stage}:
            continue
        recipe, method = made.spec.get("recipe"), made.spec.get("method")
        if not isinstance(recipe, Mapping) or not isinstance(method, Mapping):
            found["a recipe in its records cannot be read"] = None
            continue
        try:
            wanted = recipe_of(str(method.get("name")), said)
        except UserError:
            wanted = dict(said)
        compared = set(said) if named else wanted.keys() & recipe.keys() - said.keys()
        for field in compared - ({"precision"} if wanted.get("precision") == "auto" else set()):
            if recipe.get(field) != wanted.get(field, said.get(field)):
                who, value = ("run says", said[field]) if named else ("method's recipe has", wanted[field])
                found[f"the {who} {field} {value}, trained was with {recipe.get(field)}"] = None
    yield from sorted(found)


def _given(spec: Spec, component: Any) -> dict[str, Any]:
    """The parameters that a run must name. Sizes that a suite leaves open are counted by the plan, without a name.

    Values are those of the run, since a component of this machine completes a path that was published in part.
    """
    counted = SIZES if isinstance(component, OwnImages) else ()
    found = given_of(type(component), registry.parameters(component))
    return {
        name: spec.params.get(name, value) for name, value in found.items() if name in spec.given or name not in counted
    }


def _stages(record: Record, records: RecordCache) -> Iterator[Record]:
    """The stages that tell what was measured; later ones tell more."""
    inputs = MeasureInputs.of(record.parents)
    keys = [one.key for one in (inputs.defense, inputs.measured.purified_benign, inputs.implant) if one is not None]
    if (benign := records.record(inputs.measured.benign.key)) is not None:
        keys.insert(0, EncodeInputs.of(benign.parents).model.key)
    yield record
    yield from filter(None, map(records.record, keys))


def _ancestors(record: Record, records: RecordCache) -> Iterator[Record]:
    """All stages that a measurement follows from, as far as the store has their records."""
    left, seen = list(record.parents.values()), set[str]()
    while left:
        if (key := left.pop()) not in seen:
            seen.add(key)
            if (made := records.record(key)) is not None:
                yield made
                left += made.parents.values()


def _surrogates(trial: Trial, models: Sequence[StoredModel], records: RecordCache) -> Iterator[str]:
    """A sentence for each part of the attacker's models that is not as the run says. UserError: unknown attack."""
    wishes = instance("attacks", trial.attack).requires(public_setting(trial))
    for wish, model in zip((wish for wish in wishes if isinstance(wish, ModelSpec)), models, strict=False):
        if (made := records.record(model.key)) is None:
            continue
        one = surrogate_trial(trial, wish)
        parts = {"backbone": one.backbone.as_json(), "method": one.method.as_json(), "bits": one.bits, "seed": one.seed}
        for part, value in parts.items():
            if digest(was := made.spec.get(part)) != digest(value):
                yield f"the run calls the surrogate's {part} {_named(value)}, it was {_named(was)}"


def _named(value: Any) -> str:
    """A value of an axis in words; the parameters of a component only where they are needed."""
    return str(value["name"]) if isinstance(value, Mapping) and not value["params"] else str(value)
