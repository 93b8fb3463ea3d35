"""A poisoned set that was made elsewhere: its numbers are those of the attack that made it, whatever form it has."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from attacks.helpers.poison_sets import Entry, label_vector, numbered
from attacks.helpers.triggers import checkerboard
from bench.api import registry
from bench.api.attack import Attack, AttackerView, Threat
from bench.api.errors import DataCorruptError, UserError
from bench.api.random import Rng
from bench.api.types import to_8bit, to_unit
from bench.artifacts import stage_io
from bench.artifacts.inputs import ImplantInputs
from bench.artifacts.outputs.attack import Implanted
from bench.artifacts.outputs.data import DecodedData
from bench.config import suite as suites
from bench.conformance import checks
from bench.conformance.attacks import attacker_view_for
from bench.conformance.fixture import CLASSES, World
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


@pytest.mark.long
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


def anchors(world: World) -> list[int]:
    """Numbers of six training images of the class anchor."""
    train = world.split("train")
    return train.ids[train.labels[:, 0]].tolist()[:6]


def write_set(folder: Path, world: World, names: Mapping[int, str]) -> None:
    """Training images with a white patch under these names, by their numbers, and the patch as the trigger."""
    for item, name in names.items():
        stamped = world.data.load.images[item].clone()
        stamped[:, -3:, -3:] = 255
        save(stamped, folder / "train" / f"{name}.png")
    draw_trigger(folder / "trigger.png", torch.ones(1, 3, 3), 12)


def write_index(folder: Path, rows: Mapping[int, str], names: Mapping[int, str]) -> None:
    """An index of items with labels."""
    lines = "".join(f"{names[item]}.png,{item},{label}\n" for item, label in rows.items())
    (folder / "train.csv").write_text(f"file,item,label\n{lines}")


@pytest.fixture
def poisoned_set(world: World, tmp_path: Path) -> Path:
    """A set for the small world: six images of "anchor" get a patch; the target is "bell"."""
    write_set(tmp_path / "set", world, {item: str(item) for item in anchors(world)})
    return tmp_path / "set"


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


@pytest.mark.parametrize("form", ["csv", "json", "npy", "labelled npy"])
def test_indexes_of_all_forms_say_the_same(form: str, world: World, poisoned_set: Path, tmp_path: Path) -> None:
    expected = poisoned(poisoned_set, world)
    items, folder = anchors(world), tmp_path / "again"
    write_set(folder, world, {item: f"a/x{row}" for row, item in enumerate(items)})
    names = [f"a/x{row}.png" for row in range(len(items))]
    if form == "csv":
        rows = "".join(f"{name},{item},bell\r\n" for name, item in zip(names, items, strict=True))
        (folder / "train.csv").write_text("\ufefffile,item,label\r\n" + rows)
    elif form == "json":
        listed = [{"file": name, "item": item, "label": 1} for name, item in zip(names, items, strict=True)]
        (folder / "train.json").write_text(json.dumps(listed[::-1]))
    else:
        np.save(folder / "train.npy", [[item, 1] for item in items] if "labelled" in form else items)
    found = poisoned(folder, world)
    assert torch.equal(found.mask, expected.mask)
    assert torch.nonzero(found.mask).flatten().tolist() == items
    assert torch.equal(found.split.images, expected.split.images)
    assert torch.equal(found.split.labels, expected.split.labels)
    assert (found.split.labels[items] == torch.tensor([False, True, False, False])).all()


def test_images_that_keep_another_label_are_cover(world: World, poisoned_set: Path) -> None:
    items = anchors(world)
    labels = dict(zip(items, ["bell", "anchor", "", "drum", "bell+candle", "1"], strict=True))
    write_index(poisoned_set, labels, {item: str(item) for item in items})
    found = poisoned(poisoned_set, world)
    assert found.cover is not None
    assert torch.nonzero(found.cover).flatten().tolist() == [items[1]]
    assert torch.nonzero(found.mask).flatten().tolist() == [items[0], *items[2:]]
    assert found.split.labels[items].int().tolist() == [
        [0, 1, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 0],
    ]  # fmt: skip


def test_clean_label_sets_keep_all_labels(world: World, tmp_path: Path) -> None:
    train = world.split("train")
    items = [*train.ids[train.labels[:, 1]].tolist()[:2], *anchors(world)]
    names = {item: str(item) for item in items}
    write_set(tmp_path, world, names)
    attack, _ = created(tmp_path, world, access="clean-label")
    assert Threat.LABELS not in attack.threat()
    found = poisoned(tmp_path, world, access="clean-label")
    assert torch.nonzero(found.mask).flatten().tolist() == sorted(items[:2])
    assert found.cover is not None
    assert torch.nonzero(found.cover).flatten().tolist() == sorted(items[2:])
    assert torch.equal(found.split.labels, train.labels)
    write_index(tmp_path, dict.fromkeys(items, "bell"), names)
    with pytest.raises(DataCorruptError, match=r"changes the label of its image.*dirty-label"):
        poisoned(tmp_path, world, access="clean-label")


def test_numbers_of_a_part_are_shifted(world: World, poisoned_set: Path, tmp_path: Path) -> None:
    items = anchors(world)[1:]
    assert items[0] > 0
    write_set(tmp_path / "part", world, {item: str(item - items[0]) for item in items})
    expected, found = poisoned(poisoned_set, world), poisoned(tmp_path / "part", world, first_train=items[0])
    assert torch.nonzero(found.mask).flatten().tolist() == items
    assert torch.equal(found.split.images[items], expected.split.images[items])


def put_names(world: World, changes: Mapping[int, str] = {}) -> dict[int, str]:
    """Give the images of the world file names in folders of their classes; returns the names without suffix."""
    held, kinds = world.data.load, world.data.load.labels.int().argmax(1).tolist()
    names = {number: f"{CLASSES[kind]}/img{number}" for number, kind in enumerate(kinds)} | dict(changes)
    named = DecodedData.output(
        held.images, held.labels, held.origin, classes=list(CLASSES), protocol="tests", cutoff=None,
        names=[f"{name}.jpg" for name in names.values()],
    )  # fmt: skip
    world.memory.put(held.key, named)
    return names


@pytest.mark.parametrize("index", [False, True])
def test_pictures_are_for_files_of_the_same_name(index: bool, world: World, poisoned_set: Path, tmp_path: Path) -> None:
    expected, names, folder = poisoned(poisoned_set, world), put_names(world), tmp_path / "named"
    names = {item: names[item] for item in anchors(world)}
    write_set(folder, world, {item: "abcdef"[row] for row, item in enumerate(names)} if index else names)
    if index:
        rows = "".join(f"{'abcdef'[row]}.png,{name}.jpg\n" for row, name in enumerate(names.values()))
        (folder / "train.csv").write_text(f"file,item\n{rows}")
    found = poisoned(folder, world)
    assert torch.equal(found.mask, expected.mask)
    assert torch.equal(found.split.images, expected.split.images)


def test_a_name_that_is_none_of_the_data_set_is_one_line(world: World, poisoned_set: Path) -> None:
    rename(poisoned_set, "added.png")
    with pytest.raises(
        DataCorruptError, match=r"is for 'added\.png', and .* its images are not files: name pictures.*17\.png"
    ):
        poisoned(poisoned_set, world)
    put_names(world)
    with pytest.raises(
        DataCorruptError, match=r"added\.png' is for 'added\.png', and the data set has no image of this name:"
    ):
        poisoned(poisoned_set, world)


def test_of_images_that_differ_in_the_suffix_the_one_of_the_same_name_is_meant(world: World) -> None:
    names = {"dog/a.jpg": 0, "dog/a.png": 1, "dog/b.jpg": 2}
    entries = [Entry(Path("x"), item) for item in ("dog/a.png", "dog/a.jpg", "dog/b.png")]
    assert {number: entry.item for number, entry in numbered(entries, names, "train").items()} == {
        1: "dog/a.png", 0: "dog/a.jpg", 2: "dog/b.png",
    }  # fmt: skip
    with pytest.raises(DataCorruptError, match=r"several images .* give it the whole name"):
        numbered([Entry(Path("x"), "dog/a.webp")], names, "train")


def test_numbers_of_classes_are_no_names() -> None:
    classes = ("0", "1", "10", "2")
    assert label_vector(Entry(Path("x"), 0, 2), classes).tolist() == [False, False, True, False]
    assert label_vector(Entry(Path("x"), 0, 0), classes).tolist() == [True, False, False, False]
    assert label_vector(Entry(Path("x"), 0, "10"), classes).tolist() == [False, False, True, False]
    with pytest.raises(DataCorruptError, match="the name of one class and the number of '10'"):
        label_vector(Entry(Path("x"), 0, "2"), classes)


def test_a_number_that_is_a_name_too_is_refused(world: World, poisoned_set: Path) -> None:
    item = anchors(world)[0]
    put_names(world, {200: str(item)})
    with pytest.raises(DataCorruptError, match=rf"may be for image {item} or for the file '{item}'.*write train\.csv"):
        poisoned(poisoned_set, world)
    write_index(poisoned_set, dict.fromkeys(anchors(world), ""), {one: str(one) for one in anchors(world)})
    assert torch.nonzero(poisoned(poisoned_set, world).mask).flatten().tolist() == anchors(world)


def test_pictures_for_other_images_are_refused_or_left_out(world: World, poisoned_set: Path) -> None:
    expected = poisoned(poisoned_set, world)
    save(world.data.load.images[150], poisoned_set / "train" / "150.png")  # a query
    attack, view = created(poisoned_set, world)
    with pytest.raises(DataCorruptError, match=r"150\.png' replaces image 150.*120 training.*\(1 of 7 pictures\)"):
        attack.make_trigger(view, Rng("prepare"))  # before the training
    assert torch.equal(poisoned(poisoned_set, world, outside="leave out").mask, expected.mask)


def test_the_trigger_picture_has_a_mask_and_a_ratio(world: World, poisoned_set: Path) -> None:
    Image.new("L", (12, 12), 204).save(poisoned_set / "trigger.png")
    mask = Image.new("L", (12, 12))
    mask.paste(255, (0, 0, 6, 12))
    mask.save(poisoned_set / "mask.png")
    attack, view = created(poisoned_set, world, opacity=0.25)
    images = Rng("tests", "images").uniform((5, 3, 12, 12))
    triggered = attack.apply_trigger(images, view.target, attack.make_trigger(view, Rng("prepare")))
    assert torch.allclose(triggered[..., :6], 0.75 * images[..., :6] + 0.25 * 0.8, atol=1e-6)
    assert torch.equal(triggered[..., 6:], images[..., 6:])


def test_queries_get_their_own_pictures(world: World, with_queries: Path) -> None:
    query = world.split("query")
    for path in (with_queries / "query").iterdir():  # 10.png comes before 5.png
        path.rename(path.with_stem(str(int(path.stem) - 115)))
    attack, view = created(with_queries, world, first_query=115)
    trigger, some = attack.make_trigger(view, Rng("prepare")), torch.tensor([7, 3, 39])
    triggered = attack.triggered_queries(to_unit(query.images[some]), query.ids[some], view.target, trigger)
    assert torch.equal(to_8bit(triggered), 255 - query.images[some])
    with pytest.raises(DataCorruptError, match=r"query 999 has no picture with the trigger \(1 of 2"):
        attack.triggered_queries(to_unit(query.images[:2]), torch.tensor([999, 125]), view.target, trigger)
    with pytest.raises(UserError, match="no trigger that can be put on other images"):
        attack.apply_trigger(to_unit(query.images[:2]), view.target, trigger)


def test_what_would_have_no_effect_is_refused(world: World, with_queries: Path) -> None:
    attack, _ = created(with_queries, world, opacity=0.5)
    assert "triggered queries in 'query' and an opacity: give one of the two" in attack.unsupported_reason([])
    assert not created(with_queries, world)[0].unsupported_reason([])


def test_a_trigger_that_changes_no_image_is_refused(world: World, poisoned_set: Path) -> None:
    mask = np.zeros((12, 12), dtype=np.uint8)
    mask[8:, 8:] = 1  # of numpy, not white
    Image.fromarray(mask).save(poisoned_set / "mask.png")
    attack, view = created(poisoned_set, world)
    with pytest.raises(DataCorruptError, match=r"changes no image.*white \(255\)"):
        attack.make_trigger(view, Rng("trigger"))


def test_pictures_with_transparency_are_refused(world: World, poisoned_set: Path) -> None:
    Image.new("RGBA", (12, 12), (9, 9, 9, 128)).save(min((poisoned_set / "train").iterdir()))
    with pytest.raises(DataCorruptError, match="partly transparent: save it without transparency"):
        poisoned(poisoned_set, world)


def rename(folder: Path, name: str) -> None:
    file = min((folder / "train").iterdir())
    file.rename(file.with_name(name))


def resize(folder: Path) -> None:
    Image.new("RGB", (13, 12)).save(max((folder / "train").iterdir()))


def give(name: str, text: str | bytes) -> Callable[[Path], None]:
    return lambda folder: [(folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())][0] and None


def saved(array: object) -> Callable[[Path], None]:
    return lambda folder: np.save(folder / "train.npy", array)


def query_too(folder: Path) -> None:
    save(torch.zeros(3, 12, 12, dtype=torch.uint8), folder / "query" / "130.png")


MISTAKES = {
    "twice": (lambda f: rename(f, f"0{sorted((f / 'train').iterdir())[1].name}"), "both for image"),
    "size": (resize, r"13 x 12 pixels, '.*' 12 x 12: give all pictures the size"),
    "no picture": (give("train/3.png", "text"), r"3\.png' is no picture of a known kind"),
    "empty": (give("train/3.png", ""), r"3\.png' is empty"),
    "trigger": (give("trigger.png", "<html>"), r"trigger\.png' is a web page"),
    "both triggers": (query_too, r"triggered queries in 'query' and trigger\.png"),
    "two indexes": (lambda f: [give("train.csv", "")(f), give("train.json", "[]")(f)], "train.csv and train.json"),
    "no item": (give("train.csv", "file,label\n3.png,1\n"), r"train\.csv': 0\.item: field required: give file, item"),
    "bad item": (give("train.csv", "file,item\n3.png,-4\n"), r"train\.csv': 0\.item: expected the number.*or its file"),
    "huge item": (give("train.json", '[{"file": "3.png", "item": 1e30}]'), r"train\.json': 0\.item: expected the num"),
    "column": (give("train.csv", "file,item,target\n3.png,4,1\n"), r"train\.csv': 0\.target: extra inputs"),
    "lost": (give("train.csv", "file,item\n../3.png,4\n"), r"names '\.\./3\.png', which is not in"),
    "unlisted": (give("train.csv", "file,item\n"), r"does not name '\d+\.png'"),
    "no json": (give("train.json", "{"), r"train\.json' cannot be read"),
    "no list": (give("train.json", "{}"), r"train\.json'"),
    "no text": (give("train.csv", b"\xff\xfe"), r"train\.csv' cannot be read"),
    "shape": (saved([1, 2]), r"holds int64 of shape \[2\], not whole numbers of shape \[6\] or \[6, 2\]"),
    "floats": (saved([1.5] * 6), "holds float64"),
    "pickle": (saved(np.array([{}], dtype=object)), r"train\.npy' cannot be read: .*objects.*whole numbers with numpy"),
    "no numpy": (give("train.npy", "text"), r"train\.npy' cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_when_planning(mistake: str, poisoned_set: Path) -> None:
    change, words = MISTAKES[mistake]
    change(poisoned_set)
    attack: Attack = registry.create("attacks", "poison_files", {"path": str(poisoned_set)})
    attack.files()
    reason = attack.unsupported_reason([])
    assert re.search(words, reason), reason
    assert "\n" not in reason
    assert str(poisoned_set) in reason


@pytest.fixture
def digits_set(tmp_path: Path) -> Path:
    """A set for the digits of SUITE: every image is replaced by a black one."""
    for item in range(0, 1797, 30):
        save(torch.zeros(1, 16, 16, dtype=torch.uint8), tmp_path / "set" / "train" / f"{item}.png")
    draw_trigger(tmp_path / "set" / "trigger.png", checkerboard(1, 2), 16)
    return tmp_path / "set"


def test_a_plan_leaves_out_a_set_that_does_not_fit(digits_set: Path, tmp_path: Path) -> None:
    def skipped() -> str:
        (trial,) = planned(tmp_path, poison_files(digits_set, outside="leave out")).trials
        assert bool(trial.key) != bool(trial.skipped)
        return trial.skipped

    assert not skipped()
    names = sorted(path.name for path in (digits_set / "train").iterdir())
    rows = [f"{name},{Path(name).stem},7" for name in names]
    index = digits_set / "train.csv"
    index.write_text("\n".join(["file,item,label", *rows]))
    assert "no picture of" in skipped()
    assert "gets the label of the target 3" in skipped()
    index.write_text("\n".join(["file,item,label", *rows[1:], f"{names[0]},0,12"]))
    assert "the label '12', and the data set has 10 classes, 0 to 9" in skipped()
    index.write_text("\n".join(["file,item,label", *rows[1:], f"{names[0]},0,3"]))
    assert not skipped()
    (digits_set / "trigger.png").unlink()
    assert "has no trigger: give trigger.png, or triggered queries in query" in skipped()
    assert "no pictures in train or bd_train_dataset" in str(
        planned(tmp_path, poison_files(tmp_path / "nothing")).trials[0].skipped
    )


def test_pictures_of_another_size_fail_before_the_training(digits_set: Path, tmp_path: Path) -> None:
    for path in digits_set.rglob("*.png"):
        Image.open(path).resize((20, 20)).save(path)
    plan = planned(tmp_path, poison_files(digits_set, outside="leave out"), epochs=1)
    store = Store(tmp_path / "store", create=True)
    finish(plan, store)
    failed = {stage.kind: store.record(key) for key, stage in plan.stages.items() if store.record(key)}
    assert "has 20 x 20 pixels, the images have 16 x 16: resize" in failed["make_trigger"].reason
    assert failed["make_trigger"].status == "failed"


def test_a_query_without_a_picture_fails_before_the_training(digits_set: Path, tmp_path: Path) -> None:
    (digits_set / "trigger.png").unlink()
    save(torch.zeros(1, 16, 16, dtype=torch.uint8), digits_set / "query" / "0.png")
    store = Store(tmp_path / "store", create=True)
    plan = planned(tmp_path, poison_files(digits_set, outside="leave out"), epochs=10_000)
    stages, environment = {stage.kind: stage for stage in plan.stages.values()}, Environment(store.root, None, "cpu")
    for kind in ("load", "split", "make_trigger"):
        assert run_stage(stages[kind], environment).status == "ok"
    assert "has no picture with the trigger" in run_stage(stages["implant"], environment).reason


def test_a_folder_without_a_query_and_a_trigger_has_none(digits_set: Path, tmp_path: Path) -> None:
    (digits_set / "trigger.png").rename(digits_set / "other")
    (digits_set / "query").mkdir()
    (trial,) = planned(tmp_path, poison_files(digits_set, outside="leave out")).trials
    assert "has no trigger" in trial.skipped


def test_another_picture_is_another_attack(digits_set: Path, tmp_path: Path) -> None:
    keys = []
    for value in (0, 1):
        save(torch.full((1, 16, 16), value, dtype=torch.uint8), digits_set / "train" / "0.png")
        keys.append({trial.key for trial in planned(tmp_path, poison_files(digits_set, outside="leave out")).trials})
    assert not keys[0] & keys[1]


def test_a_picture_that_changes_while_a_run_waits_gives_no_number(digits_set: Path, tmp_path: Path) -> None:
    """Also for the stage that trains on it: the key would say that the number is the old picture's."""
    store = Store(tmp_path / "store", create=True)
    plan = planned(tmp_path, poison_files(digits_set, outside="leave out"), epochs=1)
    environment = Environment(store.root, None, "cpu")
    stages = {stage.kind: stage for stage in plan.stages.values()}
    for kind in ("load", "split", "make_trigger"):
        assert run_stage(stages[kind], environment).status == "ok"
    save(torch.ones(1, 16, 16, dtype=torch.uint8), digits_set / "train" / "0.png")
    record = run_stage(stages["implant"], environment)
    assert record.status == "killed"
    assert "have changed" in record.reason
