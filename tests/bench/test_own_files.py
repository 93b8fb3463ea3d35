"""Relative paths of the user are looked for by one rule, and own images are counted when planning."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.api.errors import UserError
from bench.config import suite as suites
from bench.config.expand import Skipped
from bench.graph import planner
from tests.hashing.conftest import tree, write

IMAGES = tree(per_class=40)


def suite_in(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "my.toml").write_text(f"[axes]\n{text}\n")
    return folder / "my.toml"


def trial_of(file: Path | str, data: Path | None = None, **options: list[str]):
    (found,) = suites.load(str(file), **options).trials(data)
    return found


def test_beside_the_suite_then_here_then_below_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside, here, data = (tmp_path / name for name in ("beside", "here", "data"))
    file = suite_in(beside, 'datasets = ["folder(path=pets)"]')
    monkeypatch.chdir(write(here / "pets", IMAGES).parent)
    for folder in (data, beside):
        write(folder / "pets", IMAGES)
    paths = []
    for gone in (beside, here, data):
        found = trial_of(file, data)
        assert not isinstance(found, Skipped)
        paths.append(found.dataset.params["path"])
        (gone / "pets").rename(gone / "gone")
    assert paths == [str(beside / "pets"), str(here / "pets"), "pets"]  # below --data: relative, the same everywhere
    lost = trial_of(file, data)
    assert isinstance(lost, Skipped)
    assert all(str(place) in lost.reason for place in (beside, here, data))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('attacks = [{ name = "checkpoint", path = "x.pth" }]', "attack"),
        ('backbones = [{ name = "vgg11", weights = "x.pth" }]', "backbone"),
        ('datasets = [{ name = "lists", path = "x.pth" }]', "dataset"),
    ],
)
def test_the_rule_is_that_of_every_component(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, kind: str
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    file = suite_in(tmp_path / "beside", text)
    lost = trial_of(file)
    assert isinstance(lost, Skipped)
    assert f"'x.pth' beside the suite file ({file.parent}), in the current folder ({here})" in lost.reason
    assert "--data (not given)" in lost.reason
    (file.parent / "x.pth").mkdir()
    found = trial_of(file)
    trial = found.trial if isinstance(found, Skipped) else found  # a folder without lists is still no data set
    assert str(file.parent / "x.pth") in getattr(trial, kind).params.values()


def test_other_texts_are_no_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("clean", "imagenet", "badnets"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    changes = ["attacks=badnets(labels=clean)", "backbones=vgg11", "seeds=0"]
    found = trial_of("smoke", changes=changes, only=["defense=none"])
    assert (found.attack.label, found.backbone.params["weights"]) == ("badnets(labels=clean)", "imagenet")


def test_shares_become_numbers_in_plans_and_equal_numbers_equal_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand: 120 images less 12 public ones are 108, of which 50, 15 and 10 % are 54, 16 and 10."""
    monkeypatch.chdir(write(tmp_path / "pets", IMAGES).parent)
    plans = []
    for sizes in ("", ", train=54, query=16, trusted=10"):
        changes = [f"datasets=folder(path=pets{sizes})"]
        plans.append(planner.plan([suites.load("smoke", changes=changes)], data=None, device="cpu"))
    assert plans[0].stages.keys() == plans[1].stages.keys()
    (split,) = (stage for stage in plans[0].stages.values() if stage.kind == "split")
    params = split.spec["dataset"]["params"]
    assert [params[name] for name in ("train", "query", "trusted", "database")] == [54, 16, 10, None]
    assert plans[0].trials[0].trial.dataset.label == f"folder(path={tmp_path / 'pets'})"


def test_too_few_images_are_refused_with_a_line_to_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write(tmp_path / "pets", IMAGES).parent)
    with pytest.raises(UserError, match=r"train = 1000.*120.*without train") as caught:
        trial_of("smoke", changes=["datasets=folder(path=pets, train=1000)", "attacks=none"], only=["defense=none"])
    line = str(caught.value).partition("--set '")[2].rstrip("'")
    assert trial_of("smoke", changes=[line, "attacks=none"], only=["defense=none"]).dataset.params["train"] == 54
    write(tmp_path / "few", tree(per_class=1))
    with pytest.raises(UserError, match=r"of the 3 are free.*add images"):
        trial_of("smoke", changes=["datasets=folder(path=few)", "attacks=none"], only=["defense=none"])
