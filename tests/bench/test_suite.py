"""TOML in, trials out; every mistake named."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.api.errors import UserError
from bench.config import suite as suites
from bench.config.expand import Skipped
from bench.config.trial import Trial, canonical, digest


def load(tmp_path: Path, text: str, **options) -> suites.Suite:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return suites.load(str(path), **options)


def axis(suite: suites.Suite, name: str) -> list:
    return list(dict.fromkeys(trial.axes()[name] for trial in suite.trials(None)))


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
def test_parameters_of_the_suite_hold_where_a_cell_does_not_say_otherwise(
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


def test_set_replaces_an_axis_everywhere(tmp_path: Path) -> None:
    first = "[axes]\nbits = [16]\n[[blocks]]\n[blocks.axes]\nbits = [32]\n"
    text = first + '[[blocks]]\n[blocks.axes]\nattacks = ["badnets"]\n'
    assert axis(load(tmp_path, text), "bits") == [32, 16]
    changed = load(tmp_path, text, changes=["bits=12,24", "training.epochs=3", "attack=blend", "resources.threads=2"])
    assert axis(changed, "bits") == [12, 24]
    assert axis(changed, "attack") == ["blend"]
    assert changed.resources.threads == 2
    assert all(trial.training == {"epochs": 3} for trial in changed.trials(None))


def test_two_blocks_that_name_the_same_cell_run_it_once(tmp_path: Path) -> None:
    suite = load(tmp_path, "[[blocks]]\n[[blocks]]\n[blocks.axes]\nbits = [32, 16]\n")
    assert [trial.bits for trial in suite.trials(None)] == [32, 16]


def test_all_is_everything_registered() -> None:
    from bench.api import registry

    suite = suites.load("full", only=["dataset=digits"])
    attacks, defenses = ([label.partition("(")[0] for label in axis(suite, kind)] for kind in ("attack", "defense"))
    assert set(attacks) == {name for name in registry.catalogue("attacks") if not registry.required("attacks", name)}
    assert "checkpoint" not in attacks  # it stands for a model of the user's
    assert set(defenses) == set(registry.catalogue("defenses"))
    assert attacks[0] == "none"


def test_full_on_embedded_data_stays_within_days() -> None:
    """Fourteen attacks made 4,932 trials; a further one that poisons brings some 220."""
    trials = list(suites.load("full").trials(None))
    assert sum(isinstance(trial, Trial) for trial in trials) < 5200
    left_out = {trial.trial.dataset.label: trial.reason for trial in trials if isinstance(trial, Skipped)}
    assert set(left_out) == {
        "cifar10", "coco80", "flickr25k", "folder", "imagenet100", "lists", "nuswide21", "places365", "voc2012",
        "voc_animals",
    }  # fmt: skip
    assert "--data" in left_out["cifar10"]
    assert "path" in left_out["folder"]


@pytest.mark.parametrize("name", suites.names())
def test_shipped_suites_parse_and_describe_themselves(name: str) -> None:
    assert suites.names()[name].endswith(".")
    assert list(suites.load(name).trials(None))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[axes\n", "is not TOML"),
        ("[axes]\nbitz = [16]\n", "unknown key 'axes.bitz'; did you mean 'bits'?"),
        ("[axis]\nbits = [16]\n", "unknown key 'axis'; did you mean 'axes'?"),
        ("[axes]\nbits = [0]\n", "axes.bits.0 = 0: input should be greater than or equal to 1"),
        ("[axes]\nbits = ['many']\n", "axes.bits.0 = 'many'"),
        ("[axes]\nattacks = ['badnet']\n", "unknown attack 'badnet'; did you mean 'badnets'?"),
        ("[axes]\nattacks = [{ name = 'badnets', poison_rate = 1.5 }]\n", "poison_rate = 1.5"),
        ("[axes]\nattacks = [{ poison_rate = 0.5 }]\n", "has no 'name'"),
        ("[axes]\ndatasets = ['digit']\n", "did you mean 'digits'?"),
        ("[axes]\ntargets = [10]\n", "target 10: digits has 10 classes, so targets are 0 to 9"),
        ("[axes]\ntargets = ['eleven']\n", "unknown target class of digits 'eleven'"),
        ("[axes]\ntargets = [[]]\n", "a target is empty"),
        ("[axes]\nseeds = [-1]\n", "axes.seeds.0 = -1"),
        ("[[exclude]]\nattak = 'none'\n", "a filter names the axis 'attak'; did you mean 'attack'?"),
        ("[parameters.attack.badnets]\nlabels = 'clean'\n", "[parameters.attack] is no kind of component; did"),
        ("[parameters.attacks.badnet]\n", "unknown attack 'badnet'; did you mean 'badnets'?"),
        ("[axes]\nattacks = ['badnets']\n[parameters.attacks.badnets]\nsize = 3\n", "unknown parameter 'size'"),
        ("[[blocks]]\n[blocks.parameters.attacks.badnets]\n", "belongs to the whole suite"),
        ("[resources]\ntimeout = 0\n", "resources.timeout = 0: input should be greater than 0"),
        ("[axes]\nsurrogate = ['another']\n", "axes.surrogate.0 = 'another'"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        list(load(tmp_path, text).trials(None))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_mistakes_on_the_command_line(tmp_path: Path) -> None:
    for options, message in (
        ({"changes": ["bitz=16"]}, "unknown axis 'bitz'; did you mean 'bits'?"),
        ({"changes": ["bits"]}, "is not of the form axis=a,b"),
        ({"only": ["attak=none"]}, "unknown axis 'attak'; did you mean 'attacks'?"),
        ({"only": ["attack=ciba"]}, "no trial left for --only attack=ciba"),
    ):
        with pytest.raises(UserError) as caught:
            list(load(tmp_path, "", **options).trials(None))
        assert message in str(caught.value)
    with pytest.raises(UserError, match="unknown suite 'quik'; did you mean 'quick'"):
        suites.load("quik")
    with pytest.raises(UserError, match="cannot be read"):
        suites.load(str(tmp_path / "absent.toml"))


def test_an_unknown_training_key_is_named(tmp_path: Path) -> None:
    from bench.graph import planner as planning

    for text, message in (
        ("[training]\nepoch = 3\n", "unknown parameter 'epoch'; did you mean 'epochs'?"),
        ("[training]\nlr = -1\n", "lr = -1: input should be greater than 0"),
    ):
        with pytest.raises(UserError) as caught:
            planning.plan([load(tmp_path, text)], data=None, device="cpu")
        assert message in str(caught.value)


def test_keys_do_not_depend_on_the_order_of_a_mapping() -> None:
    assert digest({"a": 1, "b": [1.5, None]}) == digest({"b": [1.5, None], "a": 1})
    assert digest({"a": 1}) != digest({"a": 1.0000001})
    assert canonical({"ü": (1, 2)}) == '{"ü":[1,2]}'
    with pytest.raises(ValueError, match="JSON"):
        canonical(float("nan"))
