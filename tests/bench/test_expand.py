"""A block of a suite becomes trials: the product of its axes with sweeps, less what filters exclude."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench.api import registry
from bench.api.errors import UserError
from bench.config import suite as suites
from bench.config.expand import Skipped
from bench.config.trial import Trial
from tests.bench.conftest import axis, load
from tests.bench.test_archives import build


def test_the_product_of_axes_with_sweeps(tmp_path: Path) -> None:
    suite = load(
        tmp_path,
        """
        [axes]
        attacks = ["none", { name = "badnets", poison_rate = [0.01, 0.05, 0.1], labels = ["dirty", "clean"] }]
        bits = [16, 32]
        targets = [0, "3", [1, 2]]
        seeds = [0, 1]
        """,
    )
    trials = list(suite.trials(None))
    assert len(trials) == (1 + 6) * 2 * 3 * 2
    assert axis(suite, "attack") == [
        "none", "badnets(poison_rate=0.01)", "badnets(poison_rate=0.01, labels=clean)", "badnets",
        "badnets(labels=clean)", "badnets(poison_rate=0.1)", "badnets(poison_rate=0.1, labels=clean)",
    ]  # fmt: skip


def test_lists_of_the_training_are_swept_in_all_combinations(tmp_path: Path) -> None:
    text = "[axes]\nseeds = [0, 1]\n[training]\nepochs = [2, 4, 8]\nlr = [0.1, 0.01]\nflip = false\n"
    trials = list(load(tmp_path, text).trials(None))
    assert len({trial.identity for trial in trials}) == len(trials) == 3 * 2 * 2
    found = {(trial.training["epochs"], trial.training["lr"]) for trial in trials}
    assert found == {(epochs, lr) for epochs in (2, 4, 8) for lr in (0.1, 0.01)}
    assert all(t.training["flip"] is False for t in trials)


def test_an_empty_sweep_is_refused_by_name(tmp_path: Path) -> None:
    for text in ("[training]\nepochs = []\n", '[axes]\nattacks = [{ name = "badnets", poison_rate = [] }]\n'):
        with pytest.raises(UserError, match=r"(epochs|poison_rate) = \[\] has no value"):
            list(load(tmp_path, text).trials(None))


def test_include_exclude_and_only(tmp_path: Path) -> None:
    text = """
    [axes]
    attacks = ["none", "badnets", { name = "badnets", labels = "clean" }]
    bits = [16, 32]
    [[exclude]]
    attack = "badnets(labels=clean)"
    bits = 32
    """
    trials = {(t.axes()["attack"], t.bits) for t in load(tmp_path, text).trials(None)}
    assert trials == {("none", 16), ("none", 32), ("badnets", 16), ("badnets", 32), ("badnets(labels=clean)", 16)}
    only = {(t.axes()["attack"], t.bits) for t in load(tmp_path, text, only=["attack=badnets", "bits=16"]).trials(None)}
    assert only == {("badnets", 16), ("badnets(labels=clean)", 16)}
    included = load(tmp_path, text.replace("[[exclude]]", "[[include]]")).trials(None)
    assert [(t.axes()["attack"], t.bits) for t in included] == [("badnets(labels=clean)", 32)]


PARAMETERS = """
[axes]
attacks = ATTACKS
[parameters.attacks.badnets]
trigger_size = 0.25
poison_rate = [0.1, 0.2]
[parameters.datasets.digits]
size = 8
"""


@pytest.mark.parametrize(
    ("attacks", "expected"),
    [
        ('["badnets", "none"]', ["badnets(trigger_size=0.25, poison_rate=0.1)",
                                 "badnets(trigger_size=0.25, poison_rate=0.2)", "none"]),
        ('[{ name = "badnets", poison_rate = 0.3 }]', ["badnets(trigger_size=0.25, poison_rate=0.3)"]),
        ('[{ name = "badnets", labels = "clean", trigger_size = 0.1, poison_rate = 0.05 }]',
         ["badnets(trigger_size=0.1, labels=clean)"]),
    ],
)  # fmt: skip
def test_parameters_of_the_suite_hold_where_a_trial_does_not_say_otherwise(
    tmp_path: Path, attacks: str, expected: list[str]
) -> None:
    suite = load(tmp_path, PARAMETERS.replace("ATTACKS", attacks))
    found = axis(suite, "attack")
    assert [set(label.strip(")").replace("(", ", ").split(", ")) for label in found] == [
        set(label.strip(")").replace("(", ", ").split(", ")) for label in expected
    ]
    assert axis(suite, "dataset") == ["digits(size=8)"]
    everything = axis(load(tmp_path, PARAMETERS.replace("ATTACKS", '"all"')), "attack")
    assert [label for label in everything if label.startswith("badnets")] == axis(
        load(tmp_path, PARAMETERS.replace("ATTACKS", '["badnets"]')), "attack"
    )


def test_two_blocks_that_name_the_same_trial_run_it_once(tmp_path: Path) -> None:
    suite = load(tmp_path, "[[blocks]]\n[[blocks]]\n[blocks.axes]\nbits = [32, 16]\n")
    assert [trial.bits for trial in suite.trials(None)] == [32, 16]


def test_all_is_everything_registered() -> None:
    suite = suites.load("full", only=["dataset=digits"])
    attacks, defenses = ([label.partition("(")[0] for label in axis(suite, kind)] for kind in ("attack", "defense"))
    assert set(attacks) == {name for name in registry.catalogue("attacks") if not registry.required("attacks", name)}
    assert "checkpoint" not in attacks  # it stands for a model of the user's
    assert set(defenses) == set(registry.catalogue("defenses"))
    assert attacks[0] == "none"


def test_full_on_embedded_data_stays_within_days() -> None:
    """Twenty-four attacks and thirty-four defenses make 11,628 trials; a further attack or defense brings some 300."""
    trials = list(suites.load("full").trials(None))
    assert sum(isinstance(trial, Trial) for trial in trials) < 12000
    left_out = {trial.trial.dataset.label: trial.reason for trial in trials if isinstance(trial, Skipped)}
    assert set(left_out) == {
        "cifar10", "coco80", "flickr25k", "folder", "imagenet100", "lists", "nuswide21", "parquet", "places365",
        "voc2012", "voc_animals",
    }  # fmt: skip
    assert "--data" in left_out["cifar10"]
    assert "path" in left_out["folder"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("attacks = ['badnet']", ["'badnet'", "'badnets'"]),
        ("attacks = [{ name = 'badnets', poison_rate = 1.5 }]", ["poison_rate = 1.5"]),
        ("attacks = [{ poison_rate = 0.5 }]", ["'name'"]),
        ("attacks = ['badnets']\n[parameters.attacks.badnets]\nsize = 3", ["'size'"]),
        ("datasets = ['digit']", ["'digit'", "'digits'"]),
        ("targets = [10]", ["10", "digits", "0 to 9"]),
        ("targets = ['eleven']", ["'eleven'", "digits"]),
        ("targets = [[]]", ["target"]),
    ],
)
def test_a_mistake_is_one_line_that_names_it(tmp_path: Path, text: str, named: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        list(load(tmp_path, f"[axes]\n{text}\n").trials(None))
    assert all(word in str(caught.value) for word in named)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("target", [list(range(10)), [*map(str, range(10)), 3]])
def test_all_classes_are_no_target(tmp_path: Path, target: list[int | str]) -> None:
    with pytest.raises(UserError, match="every class of digits"):
        list(load(tmp_path, f"[axes]\ntargets = [{target}]").trials(None))
    list(load(tmp_path, f"[axes]\ntargets = [{target[:9]}]").trials(None))


@pytest.mark.parametrize("dataset", ["digits", "shapes", "cifar10", "voc_animals"])
def test_one_query_is_refused_with_the_reason(tmp_path: Path, dataset: str) -> None:
    """It may be of the target's class, and then none would carry the trigger."""
    text = f'[axes]\ndatasets = [{{ name = "{dataset}", query = QUERY }}]'
    with pytest.raises(UserError, match=r"query = 1: .*target's class"):
        list(load(tmp_path, text.replace("QUERY", "1")).trials(None))
    list(load(tmp_path, text.replace("QUERY", "2")).trials(None))


@pytest.mark.parametrize("other", ["cat\u200b", "c\u0430t", "\uff43at", "c\u00adat"])
@pytest.mark.parametrize("packed", [True, False])
def test_classes_that_look_the_same_are_refused(tmp_path: Path, other: str, packed: bool) -> None:
    """In one script of their own and with other letters they may stand beside each other."""
    path = tmp_path / ("tree.zip" if packed else "tree")
    for names, refused in ((("cat", other), True), (("cat", "\u043a\u043e\u0442"), False)):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        build(path, {f"{name}/{i}.jpg": b"" for name in names for i in range(40)})
        suite = load(tmp_path, f'[axes]\ndatasets = [{{ name = "folder", path = "{path}" }}]')
        if refused:
            with pytest.raises(UserError, match="look the same") as caught:
                list(suite.trials(None))
            assert str(caught.value).isascii()
        else:
            assert list(suite.trials(None))
