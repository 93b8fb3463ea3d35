"""The training recipe of a setting: the method's own, with a suite's changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.api import registry
from bench.api.errors import UserError
from bench.graph.planner import plan
from bench.graph.settings import hardly_trained, public_setting, setting_spec
from tests.bench.conftest import load


def test_a_recipe_is_the_methods_with_the_suites_changes(tmp_path: Path) -> None:
    (trial,) = load(tmp_path, "[training]\nepochs = 3\n").trials(None)
    paper = registry.lookup("methods", trial.method.name).recipe
    recipe = setting_spec(trial, "cpu")["recipe"]
    assert (recipe["epochs"], recipe["lr"]) == (3, paper.lr)
    assert recipe["precision"] != "auto", "a key says what was computed"


@pytest.mark.parametrize(("text", "named"), [("epoch = 3", ["'epoch'", "'epochs'"]), ("lr = -1", ["lr = -1"])])
def test_a_mistake_in_a_recipe_is_named(tmp_path: Path, text: str, named: list[str]) -> None:
    (trial,) = load(tmp_path, f"[training]\n{text}\n").trials(None)
    with pytest.raises(UserError) as caught:
        setting_spec(trial, "cpu")
    assert all(word in str(caught.value) for word in ("training", *named))


def test_a_setting_is_public_before_its_data_are_read(tmp_path: Path) -> None:
    (trial,) = load(tmp_path, "").trials(None)
    found = public_setting(trial)
    assert (found.dataset, found.bits, found.classes, found.train_size) == (trial.dataset.name, trial.bits, (), 0)


@pytest.mark.parametrize(
    ("method", "training", "said"),
    [
        ("csq", "", []),
        ("cibhash", "", ["convnet", "cibhash", "not at all"]),
        ("ciba_pairwise", "", ["ciba_pairwise", "0.1 times"]),
        ("ciba_pairwise", "[training]\nbackbone_lr = 0.1\n", []),
    ],
)
def test_a_network_of_random_weights_is_not_trained_like_public_weights_in_silence(
    tmp_path: Path, method: str, training: str, said: list[str]
) -> None:
    suite = load(tmp_path, training, changes=[f"methods={method}", "backbones=convnet"])
    lines = hardly_trained(plan([suite], data=None, device="cpu").trials)
    assert bool(lines) == bool(said)
    assert all(word in lines[0] for word in said)
