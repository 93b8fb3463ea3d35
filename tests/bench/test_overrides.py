"""`--set` and `--only` change a suite from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.api.errors import UserError
from bench.config.overrides import parse_only, scalar
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
        ({"changes": ["bits"]}, ["'bits'", "axis=a,b"]),
        ({"only": ["attak=none"]}, ["'attak'", "'attacks'"]),
        ({"only": ["attack=ciba"]}, ["attack 'ciba'", "none"]),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, options: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        list(load(tmp_path, "", **options).trials(None))
    assert all(word in str(caught.value) for word in named)
