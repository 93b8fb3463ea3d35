"""A parameter that was renamed goes on working under its old name: one line of warning, the same labels and keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.api import registry
from bench.api.errors import RenamedWarning, UserError
from bench.cli.app import main
from bench.config import suite as suites
from bench.graph import planner as planning
from bench.graph.plan import Plan

FADE = '''
"""An attack whose `opacity` was called `alpha` once."""
from collections.abc import Mapping
from typing import ClassVar
from attacks import TriggerPoisoning
from bench.api.attack import Trigger, Images, PositiveShare, Target, attack

@attack
class Fade(TriggerPoisoning):
    renamed: ClassVar[Mapping[str, tuple[str, str]]] = {"alpha": ("opacity", "0.3")}
    opacity: PositiveShare = 0.5

    def apply_trigger(self, images: Images, target: Target, trigger: Trigger) -> Images:
        return images * (1 - self.opacity)
'''
SUITE = """
[axes]
datasets = [{ name = "digits", train = 150, query = 60 }]
attacks = ["none", { name = "fade", NAME = [0.1, 0.2, 0.3] }]
"""
TOLD = "attack 'fade': 'alpha' is now 'opacity'; version 0.3 drops the old name"


@pytest.fixture(autouse=True)
def fade(tmp_path: Path) -> Path:
    path = tmp_path / "fade.py"
    path.write_text(FADE)
    registry.load_plugin(path)
    return path


def suite_with(folder: Path, name: str) -> Path:
    path = folder / f"{name}.toml"
    path.write_text(SUITE.replace("NAME", name))
    return path


def test_old_and_new_name_are_the_same_stages_and_rows(tmp_path: Path) -> None:
    def planned(name: str) -> Plan:
        return planning.plan([suites.load(str(suite_with(tmp_path, name)))], data=None, device="cpu")

    new = planned("opacity")
    with pytest.warns(RenamedWarning, match=TOLD):
        old = planned("alpha")
    assert set(old.stages) == set(new.stages)
    assert [trial.trial for trial in old.trials] == [trial.trial for trial in new.trials]
    assert {trial.trial.attack.label for trial in old.trials} == {f"fade(opacity={x})" for x in (0.1, 0.2, 0.3)} | {
        "none"
    }


def test_both_names_are_a_mistake() -> None:
    with pytest.raises(UserError, match=r"attack 'fade': 'alpha' is the old name of 'opacity': give 'opacity' alone"):
        registry.create("attacks", "fade", {"alpha": 0.1, "opacity": 0.2})


@pytest.mark.parametrize("how", ["a suite", "an axis", "check"])
def test_the_command_line_says_it_once_in_one_line(
    how: str, tmp_path: Path, fade: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {
        "a suite": ["plan", "--plugin", str(fade), "--suite", str(suite_with(tmp_path, "alpha"))],
        "an axis": ["plan", "--plugin", str(fade), "--set", "attacks=[{ name = 'fade', alpha = [0.1, 0.2] }]"],
        "check": ["check", str(fade), "--set", "alpha=0.2", "--format", "json"],
    }[how]
    for _ in range(1 if how == "check" else 2):  # every command, not only the first of a process
        with pytest.raises(SystemExit) as left:
            main([*words, *(["--store", str(tmp_path / "runs")] if how != "check" else [])])
        assert left.value.code == 0
        assert capsys.readouterr().err.splitlines() == [f"warning: {TOLD}"]
