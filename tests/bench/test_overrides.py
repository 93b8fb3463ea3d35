"""`--set` and `--only` change a suite from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from attacks.helpers.poisoning import POISON_AMOUNTS
from bench.api.errors import UserError
from bench.config.doses import DOSES
from bench.config.overrides import parse_only
from bench.config.words import scalar
from tests.bench.conftest import axis, load


def test_set_replaces_an_axis_everywhere(tmp_path: Path) -> None:
    first = "[axes]\nbits = [16]\n[[blocks]]\n[blocks.axes]\nbits = [32]\n"
    text = first + '[[blocks]]\n[blocks.axes]\nattacks = ["badnets"]\n'
    assert axis(load(tmp_path, text), "bits") == [32, 16]
    changed = load(tmp_path, text, changes=["bits=12,24", "training.epochs=3", "attack=blend", "resources.threads=2"])
    assert axis(changed, "bits") == [12, 24]
    assert axis(changed, "attack") == ["blend"]
    assert changed.resources.threads == 2
    assert all(trial.training == {"epochs": 3} for trial in changed.trials(None))


@pytest.mark.parametrize("text", ["training.epochs=3,9", "training.epochs=[3, 9]"])
def test_set_of_several_values_is_a_sweep_of_the_training(tmp_path: Path, text: str) -> None:
    suite = load(tmp_path, "[training]\nlr = 0.1\n[axes]\nbits = [16, 32]\n", changes=[text])
    found = [(trial.training["epochs"], trial.bits) for trial in suite.trials(None)]
    assert sorted(found) == [(3, 16), (3, 32), (9, 16), (9, 32)]
    assert all(trial.training["lr"] == 0.1 for trial in suite.trials(None))


def test_set_of_a_parameter_holds_in_a_block_that_takes_the_default_too(tmp_path: Path) -> None:
    text = """
[[blocks]]
[blocks.axes]
backbones = [{ name = "convnet", width = 8 }]
[[blocks]]
[blocks.axes]
bits = [16]
"""
    assert axis(load(tmp_path, text, changes=["convnet.width=16"]), "backbone") == ["convnet(width=16)"]


TWO = """
[axes]
attacks = ["none", "badnets", { name = "ciba", steps = 3 }]
[parameters.attacks.ciba]
target_share = 0.8
[[blocks]]
[blocks.axes]
bits = [16]
[[blocks]]
[blocks.axes]
attacks = ["badnets(poison_rate=0.2)"]
"""


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["badnets.poison_rate=0.01,0.1"], ["none", "badnets(poison_rate=0.01)", "badnets(poison_rate=0.1)",
                                             "ciba(target_share=0.8, steps=3)"]),
        (["attacks.badnets.poison_rate=[0.01, 0.1]", "attacks=badnets"], ["badnets(poison_rate=0.01)",
                                                                           "badnets(poison_rate=0.1)"]),
        (["attack.badnets.labels=clean"], ["none", "badnets(labels=clean)", "ciba(target_share=0.8, steps=3)",
                                           "badnets(poison_rate=0.2, labels=clean)"]),
        (["attacks=none,badnets(poison_rate=0.1, labels=clean)"], ["none", "badnets(poison_rate=0.1, labels=clean)"]),
        (['attacks={name="badnets",poison_rate=[0.1,0.2]},none'], ["badnets(poison_rate=0.1)",
                                                                    "badnets(poison_rate=0.2)", "none"]),
        (["badnets.poisons=7"], ["none", "badnets(poisons=7)", "ciba(target_share=0.8, steps=3)"]),
        (["ciba.poisons=7", "attacks=ciba"], ["ciba(poisons=7)"]),
        (["attacks=all", "blend.alpha=0.3"], ["blend(alpha=0.3)"]),
    ],
)  # fmt: skip
def test_set_of_a_parameter_holds_wherever_the_component_stands(
    tmp_path: Path, changes: list[str], expected: list[str]
) -> None:
    found = axis(load(tmp_path, TWO, changes=changes), "attack")
    if "attacks=all" in changes:
        found = [label for label in found if label.startswith("blend")]
    assert found == expected


def test_a_dose_replaces_the_suites_and_a_note_says_so(tmp_path: Path) -> None:
    assert load(tmp_path, TWO).notes == ()
    assert load(tmp_path, TWO, changes=["ciba.target_share=0.5"]).notes == ()
    replaced = load(tmp_path, TWO, changes=["ciba.poison_rate=0.05"])
    assert replaced.notes == ("ciba: poison_rate=0.05 replaces the suite's target_share=0.8",)
    (ciba,) = {trial.attack for trial in replaced.trials(None) if trial.attack.name == "ciba"}
    assert (ciba.params["poison_rate"], ciba.params["target_share"]) == (0.05, None)
    assert set(POISON_AMOUNTS) == DOSES


def test_a_label_selects_by_its_parameters(tmp_path: Path) -> None:
    text = '[axes]\nattacks = ["none", { name = "badnets", poison_rate = [0.1, 0.05], labels = ["clean", "dirty"] }]'
    for word, count in (("badnets", 4), ("badnets(poison_rate=0.10)", 2), ("badnets(labels=clean, poison_rate=.1)", 0),
                        ("badnets(labels=clean, poison_rate=0.1)", 1), ("badnets(poison_rate=0.05)", 2)):  # fmt: skip
        suite = load(tmp_path, text, only=[f"attack=none,{word}"])
        assert len(axis(suite, "attack")) == 1 + count, word


def test_only_takes_a_list_in_which_commas_in_brackets_do_not_count() -> None:
    assert parse_only(["attack=none,badnets(a=1, b=2)"]) == {"attack": ("none", "badnets(a=1, b=2)")}
    assert parse_only(["attacks=none", "bits=16", "attack=ciba"]) == {"attack": ("none", "ciba"), "bits": ("16",)}


@pytest.mark.parametrize(
    ("text", "value"), [("3", 3), ("1e-2", 0.01), ("true", True), ("'a'", "a"), (" word ", "word"), ("[1, 2]", [1, 2])]
)
def test_a_value_is_toml_where_it_can_be(text: str, value: Any) -> None:
    assert scalar(text) == value


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"changes": ["bitz=16"]}, ["'bitz'", "'bits'"]),
        ({"changes": ["bits=16", "bitz=32"]}, ["bitz"]),
        ({"changes": ["bits=16", "bits=32"]}, ["bits=16", "bits=32", "one"]),
        ({"changes": ["attack=badnets", "attacks=none"]}, ["one"]),
        ({"changes": ["attacks=badnets", "badnets.poisons=5", "badnets.poison_rate=0.1"]}, ["same thing"]),
        ({"changes": ["csq.x=1"]}, ["unknown parameter 'x'"]),
        ({"changes": ["none.x=1"]}, ["attacks", "defenses", "attacks.none.x=1"]),
        ({"changes": ["blend.alpha=1"]}, ["no attack 'blend'", "--set attacks=none,blend"]),
        ({"changes": ["widht=1"]}, ["axis"]),
        ({"changes": ["width=4"]}, ["--set convnet.width=4"]),
        ({"changes": ["convnett.width=4"]}, ["did you mean 'convnet'"]),
        ({"changes": ["epochs=4"]}, ["--set training.epochs=4"]),
        ({"changes": ["attacks=badnets(0.1)"]}, ["parameter=value"]),
        ({"changes": ["convnet.=4"]}, ["convnet.=4"]),
        ({"changes": ["bits"]}, ["'bits'", "axis=a,b"]),
        ({"only": ["attak=none"]}, ["'attak'", "'attacks'"]),
        ({"only": ["attack=ciba"]}, ["attack 'ciba'", "none"]),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, options: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        list(load(tmp_path, "", **options).trials(None))
    assert all(word in str(caught.value) for word in named)
