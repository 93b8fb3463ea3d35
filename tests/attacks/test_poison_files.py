"""A poisoned set that was made elsewhere: its numbers are those of the attack that made it, whatever form it has."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from attacks.helpers.triggers import checkerboard
from bench.api import registry
from bench.api.attack import Attack, AttackerView, Threat
from bench.api.errors import DataCorruptError, DataMissingError, UserError
from bench.api.random import Rng
from bench.api.types import to_8bit, to_unit
from bench.artifacts import stage_io
from bench.artifacts.inputs import ImplantInputs
from bench.artifacts.outputs.attack import Implanted
from bench.config import suite as suites
from bench.conformance import checks
from bench.conformance.attacks import attacker_view_for
from bench.conformance.fixture import World
from bench.conformance.kit import ComponentUnderTest
from bench.engine.store import Store
from bench.engine.worker import Environment, run_stage
from bench.graph import planner as planning
from bench.graph.plan import Plan
from tests.bench.conftest import finish

SUITE = """
name = "own"
[axes]
datasets = [{{ name = "digits", train = 300, query = 60, database = 120, trusted = 40 }}]
backbones = [{{ name = "convnet", width = 6 }}]
methods = ["csq"]
attacks = [{attack}]
defenses = {defenses}
bits = [16]
targets = [3]
seeds = [0]
[training]
optimizer = "adam"
lr = 1e-2
weight_decay = 0
epochs = {epochs}
"""
BADNETS = '{ name = "badnets", poison_rate = 0.2, trigger_size = 0.25 }'


def planned(folder: Path, attack: str, defenses: str = '["none"]', epochs: int = 6) -> Plan:
    path = folder / "own.toml"
    path.write_text(SUITE.format(attack=attack, defenses=defenses, epochs=epochs))
    return planning.plan([suites.load(str(path))], data=None, device="cpu")


def poison_files(path: Path, **params: object) -> str:
    inner = "".join(f", {key} = {json.dumps(value)}" for key, value in params.items())
    return f'{{ name = "poison_files", path = "{path}"{inner} }}'


def numbers(store: Store, plan: Plan) -> dict[str, Mapping[str, float]]:
    found = {trial.trial.defense.name: trial.key for trial in plan.trials if trial.trial.attack.name != "none"}
    return {name: store.record(key).metrics for name, key in found.items() if key}


def save(image: Tensor, path: Path) -> None:
    """An 8-bit image of c x h x w as a picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy()).save(path)


def draw_trigger(path: Path, patch: Tensor, side: int, opacity: int = 255) -> None:
    """A grey patch in the bottom-right corner of a picture that is transparent elsewhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("LA", (side, side))
    values = Image.fromarray(to_8bit(patch[None])[0, 0].numpy())
    at = (side - values.width, side - values.height)
    picture.paste(Image.merge("LA", (values, Image.new("L", values.size, opacity))), at)
    picture.convert("RGBA").save(path)


def written(store: Store, plan: Plan) -> tuple[ImplantInputs, Implanted]:
    """The data and the poisoned set of a run with one attack."""
    key = next(key for key, stage in plan.stages.items() if stage.kind == "implant")
    return ImplantInputs.of(store.record(key).parents, store), Implanted(key, store)


def export_plainly(folder: Path, data: ImplantInputs, made: Implanted) -> None:
    """Pictures in one folder, an index that gives image and label by name, a trigger picture."""
    lines = ["item,label,file"]
    for row, item in enumerate(stage_io.split(data, "train").ids[made.mask].tolist()):
        save(made.poison_images[row], folder / "train" / f"poison {row}.png")
        lines.append(f"{item},{int(made.poison_labels[row].int().argmax())},poison {row}.png")
    (folder / "train.csv").write_text("\n".join(lines))
    draw_trigger(folder / "trigger.png", checkerboard(1, 4), 16)


def export_as_backdoorbench(folder: Path, data: ImplantInputs, made: Implanted) -> None:
    """Its folders: original class, then number. Test images are pictures too. Its other files are not read."""
    train, query = stage_io.split(data, "train"), stage_io.split(data, "query")
    for row, at in enumerate(torch.nonzero(made.mask).flatten().tolist()):
        was = int(train.labels[at].int().argmax())
        save(made.poison_images[row], folder / "bd_train_dataset" / str(was) / f"{int(train.ids[at])}.png")
    for image, label, item in zip(query.images, query.labels.int().argmax(1).tolist(), query.ids.tolist(), strict=True):
        if label != 3:
            stamped = image.clone()
            stamped[:, -4:, -4:] = to_8bit(checkerboard(1, 4)[None])[0]
            save(stamped, folder / "bd_test_dataset" / str(label) / f"{item}.png")
    (folder / "attack_result.pt").write_bytes(b"a pickle that nobody reads")


@pytest.fixture(scope="module")
def badnets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Plan]:
    folder = tmp_path_factory.mktemp("badnets")
    store = Store(folder / "store", create=True)
    plan = planned(folder, BADNETS, '["none", "spectral_signatures", "median"]')
    finish(plan, store)
    return store, plan


@pytest.mark.parametrize("export", [export_plainly, export_as_backdoorbench])
def test_a_set_of_ours_taken_as_somebody_elses_has_the_same_numbers(
    export: Callable[[Path, ImplantInputs, Implanted], None], badnets: tuple[Store, Plan], tmp_path: Path
) -> None:
    store, plan = badnets
    export(tmp_path / "set", *written(store, plan))
    own = planned(tmp_path, poison_files(tmp_path / "set"), '["none", "spectral_signatures", "median"]')
    assert {trial.access for trial in own.trials} == {"dirty-label"}
    assert set(finish(own, store).trials) == {"ok"}
    ours, theirs = numbers(store, plan), numbers(store, own)
    assert ours["none"]["poisons"] == 60
    assert ours["none"]["gain"] > 0.2
    # pictures of queries are no trigger that could be put on an empty image
    unknown = {"attention", "attention_first"} if export is export_as_backdoorbench else set()
    for defense, metrics in ours.items():
        other = {name for name, value in metrics.items() if theirs[defense].get(name, "missing") != value}
        assert other <= unknown, defense
        assert not unknown & {name for name, value in theirs[defense].items() if value is not None}


@pytest.fixture
def poisoned_set(world: World, tmp_path: Path) -> Path:
    """A set for the small world: six images of "anchor" get a patch and the label "bell", its target."""
    train = world.split("train")
    folder, chosen = tmp_path / "set", torch.nonzero(train.labels[:, 0]).flatten()[:6]
    for image, item in zip(train.images[chosen], train.ids[chosen].tolist(), strict=True):
        stamped = image.clone()
        stamped[:, -3:, -3:] = 255
        save(stamped, folder / "train" / f"{item}.png")
    draw_trigger(folder / "trigger.png", torch.ones(1, 3, 3), 12)
    return folder


@pytest.fixture
def with_queries(world: World, poisoned_set: Path) -> Path:
    """The same set with triggered queries in the place of a trigger picture."""
    (poisoned_set / "trigger.png").unlink()
    query = world.split("query")
    for image, item in zip(query.images, query.ids.tolist(), strict=True):
        save(255 - image, poisoned_set / "query" / f"{item}.png")
    return poisoned_set


def created(folder: Path, world: World, **params: object) -> tuple[Attack, AttackerView]:
    attack = registry.create("attacks", "poison_files", {"path": str(folder), **params})
    return attack, attacker_view_for(world, attack)


def poisoned(folder: Path, world: World, **params: object):
    attack, view = created(folder, world, **params)
    return attack.poison(view, attack.make_trigger(view, Rng("prepare")), Rng("implant"))


@pytest.mark.parametrize("check", checks("attacks"), ids=lambda check: check.name)
def test_it_keeps_what_attacks_promise(check, poisoned_set: Path) -> None:
    outcome = check.on(ComponentUnderTest.of("attacks", "poison_files", {"path": str(poisoned_set)}))
    assert outcome.passed, outcome.detail


@pytest.mark.parametrize("check", checks("attacks"), ids=lambda check: check.name)
def test_it_keeps_them_with_triggered_queries(check, with_queries: Path) -> None:
    outcome = check.on(ComponentUnderTest.of("attacks", "poison_files", {"path": str(with_queries)}))
    assert outcome.passed, outcome.detail


def test_a_set_for_other_data_is_not_called_broken(poisoned_set: Path) -> None:
    for file in (poisoned_set / "train").iterdir():
        file.rename(file.with_stem(f"{int(file.stem) + 10**6}"))
    subject = ComponentUnderTest.of("attacks", "poison_files", {"path": str(poisoned_set)})
    outcomes = [check.on(subject) for check in checks("attacks")]
    assert all(outcome.passed for outcome in outcomes)
    assert sum(outcome.skipped for outcome in outcomes) > len(outcomes) / 2


def items_of(folder: Path) -> list[int]:
    return [int(path.stem) for path in sorted((folder / "train").iterdir())]


@pytest.mark.parametrize("form", ["csv", "json", "npy", "labelled npy"])
def test_indexes_of_all_forms_say_the_same(form: str, world: World, poisoned_set: Path) -> None:
    expected = poisoned(poisoned_set, world)
    items = items_of(poisoned_set)
    for row, path in enumerate(sorted((poisoned_set / "train").iterdir())):
        path.rename(path.with_name(f"x{row}.png"))
    names = [f"x{row}.png" for row in range(len(items))]
    if form == "csv":
        rows = "".join(f"{name},{item},bell\r\n" for name, item in zip(names, items, strict=True))
        (poisoned_set / "train.csv").write_text("\ufefffile,item,label\r\n" + rows)
    elif form == "json":
        listed = [{"file": name, "item": item, "label": 1} for name, item in zip(names, items, strict=True)]
        (poisoned_set / "train.json").write_text(json.dumps(listed[::-1]))
    else:
        np.save(poisoned_set / "train.npy", [[item, 1] for item in items] if "labelled" in form else items)
    found = poisoned(poisoned_set, world)
    assert torch.equal(found.mask, expected.mask)
    assert int(found.mask.sum()) == 6
    assert torch.equal(found.split.images, expected.split.images)
    assert torch.equal(found.split.labels, expected.split.labels)


def test_images_that_keep_another_label_are_cover(world: World, poisoned_set: Path) -> None:
    items = items_of(poisoned_set)
    labels = ["bell", "anchor", "", "drum", "bell+candle", "1"]
    names = [path.name for path in sorted((poisoned_set / "train").iterdir())]
    rows = "".join(f"{name},{item},{label}\n" for name, item, label in zip(names, items, labels, strict=True))
    (poisoned_set / "train.csv").write_text(f"file,item,label\n{rows}")
    found = poisoned(poisoned_set, world)
    assert found.cover is not None
    assert torch.nonzero(found.cover).flatten().tolist() == [items[1]]
    assert found.mask.sum() == 5
    assert found.split.labels[items].int().tolist() == [
        [0, 1, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 0],
    ]  # fmt: skip


def test_clean_label_sets_keep_all_labels(world: World, poisoned_set: Path) -> None:
    with pytest.raises(UserError, match="no picture has the label of the target bell"):
        poisoned(poisoned_set, world, access="clean-label")
    item = int(torch.nonzero(world.split("train").labels[:, 1]).flatten()[0])
    first = min((poisoned_set / "train").iterdir())
    first.rename(first.with_stem(str(item)))
    attack, _ = created(poisoned_set, world, access="clean-label")
    assert Threat.LABELS not in attack.threat()
    found = poisoned(poisoned_set, world, access="clean-label")
    assert torch.nonzero(found.mask).flatten().tolist() == [item]
    assert found.cover is not None
    assert found.cover.sum() == 5
    assert torch.equal(found.split.labels, world.split("train").labels)
    (poisoned_set / "train.npy").write_bytes(b"")
    rows = "".join(f"{path.name},{path.stem},1\n" for path in (poisoned_set / "train").iterdir())
    (poisoned_set / "train.npy").unlink()
    (poisoned_set / "train.csv").write_text(f"file,item,label\n{rows}")
    with pytest.raises(DataCorruptError, match=r"changes the label.*dirty-label"):
        poisoned(poisoned_set, world, access="clean-label")


def test_numbers_of_a_part_are_shifted_and_foreign_images_left_out(world: World, poisoned_set: Path) -> None:
    expected = poisoned(poisoned_set, world)
    items = items_of(poisoned_set)
    for path in sorted((poisoned_set / "train").iterdir(), key=lambda path: int(path.stem)):
        path.rename(path.with_stem(f"moved {int(path.stem)}"))
    for path in (poisoned_set / "train").iterdir():
        path.rename(path.with_stem(f"{int(path.stem.removeprefix('moved ')) + 5}"))
    with pytest.raises(DataCorruptError):  # an image of another class, or none
        assert not torch.equal(poisoned(poisoned_set, world).mask, expected.mask)
        raise DataCorruptError("others")
    (poisoned_set / "train" / f"{items[0] + 5}.png").rename(poisoned_set / "train" / "900.png")
    for path in (poisoned_set / "train").iterdir():
        if path.stem != "900":
            path.rename(path.with_stem(f"m{path.stem}"))
    for path in (poisoned_set / "train").iterdir():
        if path.stem != "900":
            path.rename(path.with_stem(f"{int(path.stem[1:]) - 5}"))
    with pytest.raises(DataCorruptError, match=r"900\.png' replaces image 900.*120 training images \(1 of 6 pictures"):
        poisoned(poisoned_set, world)
    found = poisoned(poisoned_set, world, outside="leave out")
    assert torch.nonzero(found.mask).flatten().tolist() == sorted(items)[1:] or found.mask.sum() == 5
