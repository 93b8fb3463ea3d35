"""Attacker and defender get what they declared, and find nothing else however they look."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from bench.access.attacker import attacker_view, shown, threat_of
from bench.access.defender import defender_view, poisoned_train, signs
from bench.api import registry
from bench.api.attack import AttackerView, Threat
from bench.api.defense import Needs, Repair
from bench.api.errors import ThreatError
from bench.api.random import Rng
from bench.api.types import Poisoned, Target, to_unit
from bench.artifacts.artifact import Artifact, Output
from bench.artifacts.inputs import AttackerInputs
from bench.artifacts.outputs.attack import Implanted
from bench.artifacts.training import train_victim
from hashing.codes import PackedCodes, pack


@dataclass
class Loot:
    """What a walk found. memory: the whole storages of tensors, so that a view on hidden data counts as reached."""

    memory: list[bytes] = field(default_factory=list)
    tensors: list[torch.Tensor] = field(default_factory=list)
    objects: list[Any] = field(default_factory=list)

    def holds(self, secret: torch.Tensor) -> bool:
        wanted = secret.contiguous().numpy().tobytes()
        return any(wanted in memory for memory in self.memory)


LEAVES = (str, bytes, int, float, complex, bool, type(None), type, ModuleType, BuiltinFunctionType, torch.Generator,
          torch.dtype, torch.device, torch.layout, torch.Size)  # fmt: skip


def children(thing: Any) -> list[Any]:
    """Everything that an object leads to: attributes (private ones too), properties, items, closures and bound selves.

    Not the globals of functions: through them Python reaches anything, and a view is no sandbox.
    """
    if isinstance(thing, MethodType):
        return [thing.__self__, thing.__func__]
    if isinstance(thing, FunctionType):
        trials = [trial.cell_contents for trial in thing.__closure__ or ()]
        return [*trials, *(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).values()]
    found: list[Any] = []
    if isinstance(thing, functools.partial):
        found += [thing.func, *thing.args, *thing.keywords.values()]
    if isinstance(thing, Mapping):
        found += [*thing.keys(), *thing.values()]
    if isinstance(thing, list | tuple | set | frozenset):
        found += thing
    found += getattr(thing, "__dict__", {}).values()
    for name in dir(type(thing)):
        if isinstance(getattr(type(thing), name, None), property) or (
            not name.startswith("_") and callable(getattr(type(thing), name, None))
        ):
            try:
                found.append(getattr(thing, name))
            except (ThreatError, AttributeError, RuntimeError):
                continue
    return found


def plunder(root: Any) -> Loot:
    loot, seen, open_ = Loot(), {}, [root]
    while open_:
        thing = open_.pop()
        if isinstance(thing, LEAVES) or id(thing) in seen:
            continue
        seen[id(thing)] = thing  # kept alive, so that no id is used twice
        loot.objects.append(thing)
        if isinstance(thing, torch.Tensor):
            loot.tensors.append(thing)
            loot.memory.append(bytes(thing.untyped_storage().tolist()))
        elif isinstance(thing, np.ndarray):
            loot.memory.append(thing.tobytes())
            open_.append(thing.base)
        else:
            open_ += children(thing)
    return loot


class Cheat(Repair):
    """A defense that goes through its pockets instead of working."""

    def repair(self, case, rng):
        self.loot = plunder((case, rng))
        return case.model


@pytest.fixture
def attacked(world):
    """The world after a poisoning attack: target of two labels, a secret in every place."""
    world.spec["target"] = ["bell", "drum"]
    rng = Rng("tests", "attacked")
    mask = torch.zeros(120, dtype=torch.bool)
    mask[rng.permutation(120)[:13]] = True
    trigger = {"trigger.pattern": rng.uniform((3, 12, 12))}
    poison = {
        "mask": mask,
        "poison_images": rng.integers(256, (13, 3, 12, 12)).to(torch.uint8),
        "poison_labels": torch.tensor([[False, True, False, True]]).expand(13, 4).clone(),
        "stealth": rng.uniform((9, 5)),
        "gallery_triggered": rng.integers(256, (8, 3, 12, 12)).to(torch.uint8),
        **trigger,
        **world.clean.tensors,
    }
    world.suspect = world.poison = Implanted("implant", world.memory)
    world.memory.put("implant", Output(poison, {**world.clean.meta, "poisons": 13}))
    world.memory.put("make_trigger", Output(trigger))
    return world


def secrets(world) -> dict[str, torch.Tensor]:
    """What no view may lead to, whatever is declared."""
    query, database = world.split("query"), world.split("database")
    found = {f"{name} image {i}": part.images[i]
             for name, part in (("query", query), ("database", database)) for i in (0, 7, 39)}  # fmt: skip
    found["query labels"] = query.labels
    if world.poison is not None:
        for stage in ("make_trigger", "implant"):
            tensors = world.memory.tensors(stage)
            found |= {f"{stage} {key}": v for key, v in tensors.items() if not key.startswith(("model.", "poison_l"))}
    return found


def loot_of(world, needs: Needs) -> Loot:
    cheat = Cheat()
    cheat.repair(defender_view(world.spec, world.defender_inputs(), world.context, needs), Rng("defend", 0))
    return cheat.loot


@pytest.mark.parametrize("needs", [Needs.NONE, Needs.TRAIN_SET, Needs.DATABASE, Needs.TRAIN_SET | Needs.DATABASE])
def test_a_cheating_defense_finds_nothing(attacked, needs):
    loot = loot_of(attacked, needs)
    hidden = secrets(attacked)
    if Needs.TRAIN_SET in needs:
        del hidden["implant poison_images"]
        assert loot.holds(attacked.poison.poison_images[0])
    assert [name for name, secret in hidden.items() if loot.holds(secret)] == []
    assert not any(isinstance(thing, Target | Poisoned) for thing in loot.objects)
    target = torch.tensor([False, True, False, True])
    assert not any(t.dtype == torch.bool and torch.equal(t, target) for t in loot.tensors)
    assert attacked.memory not in loot.objects
    assert not any(isinstance(thing, Artifact) for thing in loot.objects)
    assert loot.holds(attacked.split("database").labels) == (Needs.DATABASE in needs)
    untouched = attacked.split("train").images[~attacked.poison.mask]
    assert loot.holds(untouched[0]) == (Needs.TRAIN_SET in needs)


def test_nothing_in_the_view_tells_the_seed(attacked):
    """With the seed and the public names of streams a defender could draw the attacker's choices again."""
    attacked.spec["seed"] = 918273
    view = defender_view(attacked.spec, attacked.defender_inputs(), attacked.context, ~Needs.NONE)
    everything = plunder((view, Rng("defend", attacked.spec["seed"]), view.untrained(), view.untrained(per_image=True)))
    leaves = [leaf for thing in everything.objects for leaf in children(thing) if isinstance(leaf, str | int)]
    assert "convnet" in leaves  # of the blueprint: the search reaches such places
    assert not [leaf for leaf in leaves if "918273" in str(leaf)]


@pytest.mark.parametrize("hide", ["closure", "attribute", "mapping", "view", "bound method", "partial", "default"])
def test_the_search_is_thorough(world, hide):
    """The test above would see a leak: each of these places is found."""
    view = defender_view(world.spec, world.defender_inputs(), world.context, Needs.NONE)
    secret = world.data.load.images[world.data.split.positions("query")]
    assert not plunder(view).holds(secret[0])
    match hide:
        case "closure":
            view = replace(view, train_model=lambda *_: secret)
        case "attribute":
            view.model.backbone._notes = {"later": [secret]}
        case "mapping":
            view.granted["other"] = secret
        case "view":
            whole = torch.cat([secret, view.fit_set.images])
            view = replace(view, fit_set=replace(view.fit_set, images=whole[len(secret) :]))
        case "bound method":
            view = replace(view, train_model=view.fit_set.replace(torch.arange(30), images=to_unit(secret[:30])).select)
        case "partial":
            view = replace(view, train_model=functools.partial(print, secret))
        case "default":
            view = replace(view, train_model=lambda *_, images=secret: images)
    assert plunder(view).holds(secret[0])


def _victim(world, threat: Threat) -> AttackerView:
    """The view of an attack that declares this threat and asks for a surrogate, whatever the plan holds for it."""
    inputs = AttackerInputs(world.data.load, world.data.split, world.clean, (world.surrogate,))
    return attacker_view(world.spec, inputs, world.context, threat)


@pytest.mark.parametrize("threat", [Threat.NONE, Threat.TRAIN_SET, Threat.MODEL, Threat.TRAIN_SET | Threat.LABELS])
def test_a_cheating_attack_finds_what_its_threat_grants_and_nothing_else(world, threat):
    loot = plunder(_victim(world, threat))
    assert [name for name, secret in secrets(world).items() if loot.holds(secret)] == []
    for i in (0, 59):
        assert not loot.holds(world.split("trusted").images[i])
    assert loot.holds(world.split("public").images[2])
    assert loot.holds(world.split("train").images[3]) == (Threat.TRAIN_SET in threat)
    assert loot.holds(world.clean.state["head.weight"]) == (Threat.MODEL in threat)
    assert loot.holds(world.surrogate.state["head.weight"])
    assert world.memory not in loot.objects
    assert not any(isinstance(thing, Artifact) for thing in loot.objects)


def test_what_a_make_trigger_stage_keeps_of_a_threat_shows_the_same_view():
    for threat in (Threat.NONE, *Threat, ~Threat.NONE):
        kept = threat_of(shown(threat))
        assert kept in threat
        assert [flag in kept for flag in (Threat.TRAIN_SET, Threat.MODEL)] == [
            flag in threat for flag in (Threat.TRAIN_SET, Threat.MODEL)
        ]


@pytest.mark.parametrize(("field_", "flag"), [("train", "TRAIN_SET"), ("model", "MODEL")])
def test_victim_refuses_what_is_not_declared_and_names_the_flag(world, field_, flag):
    others = [threat for threat in (Threat.NONE, Threat.LABELS, *Threat) if Threat[flag] not in threat]
    for threat in others:
        with pytest.raises(ThreatError, match=rf"view\.{field_}.*Threat\.{flag}"):
            getattr(_victim(world, threat), field_)
    assert getattr(_victim(world, Threat[flag]), field_) is not None


@pytest.mark.parametrize(("field_", "flag"), [("train", "TRAIN_SET"), ("database", "DATABASE")])
def test_case_refuses_what_is_not_declared_and_names_the_flag(world, field_, flag):
    for needs in (Needs.NONE, *(need for need in Needs if need != Needs[flag])):
        with pytest.raises(ThreatError, match=rf"view\.{field_}.*Needs\.{flag}"):
            getattr(defender_view(world.spec, world.defender_inputs(), world.context, needs), field_)
    assert getattr(defender_view(world.spec, world.defender_inputs(), world.context, Needs[flag]), field_) is not None


def test_victim_sees_its_target_and_the_public_image_of_each_class(world):
    world.spec["target"] = ["bell", "drum"]
    view = _victim(world, Threat.NONE)
    assert view.target.vector.tolist() == [False, True, False, True]
    assert view.target.name == "bell+drum"
    assert torch.equal(view.public.labels, torch.eye(4, dtype=torch.bool))
    assert view.setting.train_size == 120
    assert view.setting.image_shape == (3, 12, 12)


def test_surrogates_and_data_come_in_the_order_they_were_asked_for(world):
    surrogates = (world.surrogate, world.clean)
    inputs = AttackerInputs(world.data.load, world.data.split, None, surrogates, (world.data,))
    view = attacker_view(world.spec, inputs, world.context, Threat.NONE)
    wanted = [stored.state["head.weight"] for stored in surrogates]
    assert all(torch.equal(s.head.weight, w) for s, w in zip(view.surrogates, wanted, strict=True))
    assert len(view.data) == 1
    assert len(view.data[0]) == 120  # the training part


def test_the_trusted_set_is_halved_the_same_way_every_time_without_overlap(world):
    one, same = (defender_view(world.spec, world.defender_inputs(), world.context, Needs.NONE) for _ in range(2))
    assert torch.equal(one.fit_set.ids, same.fit_set.ids)
    assert len(one.fit_set) == len(one.calibration_set) == 30
    both = torch.cat([one.fit_set.ids, one.calibration_set.ids]).sort().values
    assert torch.equal(both, world.data.split.positions("trusted").sort().values)
    assert not one.fit_set.ids.diff().gt(0).all()  # in random order, not by class
    numbers = [half.labels.sum(0) for half in (one.fit_set, one.calibration_set)]
    assert min(numbers[0].tolist()) > 1
    assert int((numbers[0] - numbers[1]).abs().max()) <= 1


def test_the_model_of_a_case_is_a_copy(world):
    before = world.memory.copies()
    view = defender_view(world.spec, world.defender_inputs(), world.context, Needs.TRAIN_SET | Needs.DATABASE)
    with torch.no_grad():
        for value in view.model.state_dict().values():
            value.zero_()
    view.train.images.zero_()
    view.fit_set.images.zero_()
    view.database.labels.zero_()
    assert all(torch.equal(before[key], value) for key, value in world.memory.copies().items())


def test_train_model_trains_a_copy_and_keeps_the_objectives_memory(world):
    view = defender_view(world.spec, world.defender_inputs(), world.context, Needs.NONE)
    before = {key: value.clone() for key, value in view.model.state_dict().items()}
    recipe = replace(view.recipe, epochs=1)
    tuned = view.train_model(view.model, view.fit_set, recipe, Rng("d", 0))
    again = view.train_model(view.model, view.fit_set, recipe, Rng("d", 0))
    assert all(torch.equal(before[key], value) for key, value in view.model.state_dict().items())
    assert not torch.equal(tuned.state_dict()["head.weight"], before["head.weight"])
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in tuned.state_dict().items())
    assert all(torch.equal(before[key], v) for key, v in tuned.state_dict().items() if key.startswith("objective."))


def test_the_untrained_network_is_the_victims_before_its_training(world):
    view = defender_view(world.spec, world.defender_inputs(), world.context, Needs.NONE)
    fresh, twin = view.untrained(), view.untrained(per_image=True)
    before, trained = fresh.state_dict(), view.model.state_dict()
    assert before.keys() == trained.keys()
    assert torch.equal(fresh.mean, view.model.mean)
    assert not torch.equal(before["head.weight"], trained["head.weight"])
    assert all(torch.equal(before[key], value) for key, value in trained.items() if key.startswith("objective."))
    again = train_victim(world.spec, world.split("train"), world.context).tensors
    tuned = view.train_model(fresh, world.split("train"), view.recipe, Rng("victim", 0)).state_dict()
    assert all(torch.equal(again[f"model.{key}"], value) for key, value in tuned.items())
    assert any(isinstance(module, torch.nn.GroupNorm) for module in twin.modules())
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in twin.modules())


def test_a_case_says_which_augmentation_the_victim_had(world):
    dataset = registry.lookup("datasets", "digits")
    recipe = defender_view(world.spec, world.defender_inputs(), world.context, Needs.NONE).recipe
    assert (recipe.flip, recipe.pad) == (dataset.flip, dataset.pad)
    world.spec["recipe"] |= {"flip": True, "pad": 7}
    recipe = defender_view(world.spec, world.defender_inputs(), world.context, Needs.NONE).recipe
    assert (recipe.flip, recipe.pad) == (True, 7)


def test_database_shows_signs_and_labels_of_the_stored_codes(world):
    view = defender_view(world.spec, world.defender_inputs(), world.context, Needs.DATABASE)
    words = world.codes.database.numpy().view("uint64")
    assert view.database.signs.tolist() == PackedCodes(words, 16).unpack().tolist()
    assert torch.equal(view.database.labels, world.split("database").labels)


@pytest.mark.parametrize("bits", [1, 16, 48, 63, 64, 65, 130])
def test_signs_unpack_what_pack_packed(bits):
    logits = Rng("tests", "signs", bits).normal((7, bits))
    words = torch.from_numpy(pack(logits).words.view("int64").copy())
    assert torch.equal(signs(words, bits), torch.where(logits > 0, 1.0, -1.0))


def test_the_training_set_of_a_case_is_the_poisoned_one(attacked):
    clean, poison = attacked.data.load.images[:120].clone(), attacked.poison
    seen = poisoned_train(attacked.defender_inputs())
    assert torch.equal(seen.images[poison.mask], poison.poison_images)
    assert torch.equal(seen.labels[poison.mask], poison.poison_labels)
    assert torch.equal(seen.images[~poison.mask], clean[~poison.mask])
    assert torch.equal(attacked.data.load.images[:120], clean)
