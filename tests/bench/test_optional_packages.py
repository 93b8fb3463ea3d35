"""A backbone and a data set of optional packages: versions in keys, and plans with and without the packages."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.api import registry
from bench.config import suite as suites
from bench.graph import cache_key, planner

pytest.importorskip("timm", reason="needs timm: pip install 'hashdoor[timm]'")


def keys() -> dict[str, str]:
    specs = {"timm": {"model": "test_vit"}, "convnet": {}}
    return {
        name: cache_key.key_of("train", {"backbone": {"name": name, "params": params}}, {}, threads=1, device="cpu")[0]
        for name, params in specs.items()
    }


def test_the_version_of_timm_is_in_the_keys_of_its_models_and_in_no_other(monkeypatch):
    before = keys()
    version = cache_key.version
    monkeypatch.setattr(cache_key, "version", lambda package: "0.1.2" if package == "timm" else version(package))
    cache_key._minor.cache_clear()
    after = keys()
    cache_key._minor.cache_clear()
    assert before["timm"] != after["timm"]
    assert before["convnet"] == after["convnet"]


SUITE = """
[axes]
datasets = ["digits"]
backbones = ["convnet", { name = "timm", model = "test_vit", size = 32 }]
attacks = ["badnets"]
defenses = ["none", "anp"]
"""


def planned(folder: Path) -> dict[tuple[str, str], str]:
    (folder / "own.toml").write_text(SUITE)
    plan = planner.plan([suites.load(str(folder / "own.toml"))], data=None, device="cpu")
    return {(one.trial.backbone.name, one.trial.defense.name): one.skipped for one in plan.trials}


def test_a_plan_leaves_out_defenses_that_need_batch_norm(tmp_path):
    found = planned(tmp_path)
    assert "batch norm" in found.pop(("timm", "anp"))
    assert set(found.values()) == {""}


def test_without_timm_its_trials_are_left_out_with_the_name_of_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)  # as where the extra is not installed
    found = planned(tmp_path)
    left_out = "the backbone 'timm' needs the package timm: pip install 'hashdoor[timm]'"
    assert {name: reason for (name, _), reason in found.items()} == {"convnet": "", "timm": left_out}
    assert registry.sentence(registry.find("backbones", "timm"))


def test_without_pyarrow_the_trials_of_parquet_files_are_left_out(tmp_path, monkeypatch):
    """The data set is found, described and listed without it."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "pets").mkdir()
    suite = suites.load("smoke", changes=[f"datasets=digits,parquet(path={tmp_path / 'pets'})", "defenses=none"])
    plan = planner.plan([suite], data=None, device="cpu")
    found = {(one.trial.dataset.name, one.skipped) for one in plan.trials}
    left_out = "the data set 'parquet' needs the package pyarrow: pip install 'hashdoor[parquet]'"
    assert found == {("digits", ""), ("parquet", left_out)}
    assert registry.sentence(registry.find("datasets", "parquet"))
