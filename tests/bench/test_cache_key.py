"""A change of code, parameters or files recomputes exactly what it affects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from bench.api import registry
from bench.artifacts.inputs import STAGES
from bench.graph.plan import Plan
from tests.bench.conftest import changed, edited, plan_of

Tiny = Callable[..., Plan]
EVERYTHING = set(STAGES)


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("bench.stages.measure", {"measure"}),
        ("bench.metrics", {"measure"}),
        ("hashing.ranking", {"defend", "encode", "encode_triggered", "measure"}),  # fine-pruning measures mAP
        ("attacks.badnets", EVERYTHING - {"load", "split", "train"}),
        ("defenses.strip", {"defend", "score_benign", "score_triggered", "measure"}),
        ("defenses.median", {"purify_benign", "purify_triggered", "measure"}),
        ("bench.artifacts.purified", {"purify_benign", "purify_triggered", "measure"}),
        ("hashing.train", EVERYTHING - {"load", "split", "make_trigger"}),
        ("hashing.backbones.convnet", EVERYTHING - {"load", "split"}),
        ("hashing.datasets.digits", EVERYTHING),
        ("bench.engine.scheduler", set()),
        ("bench.engine.executors", set()),
        ("bench.engine.ray_executor", set()),
        ("bench.engine.store", set()),
        ("bench.config.suite", set()),
        ("bench.cli.run", set()),
        ("hashing.methods.dpsh", set()),
        ("attacks.blend", set()),
    ],
)
def test_a_change_of_code_recomputes_exactly_what_it_affects(
    tiny: Tiny, tmp_path: Path, module: str, expected: set[str]
) -> None:
    defenses = "defenses=none,fine_pruning,strip,median"
    before = tiny(defenses)
    with edited(module, tmp_path / "edited"):
        assert changed(before, tiny(defenses)) == expected
    assert changed(before, tiny(defenses)) == set()


def test_a_kernel_change_retrains_nothing(tiny: Tiny, tmp_path: Path) -> None:
    before = tiny()
    with edited("hashing.codes", tmp_path / "edited"):
        assert changed(before, tiny()) == {"encode", "encode_triggered", "measure"}


def test_parameters_recompute_exactly_what_they_affect(tiny: Tiny) -> None:
    base = tiny()
    models = EVERYTHING - {"defend", "score_benign", "score_triggered", "purify_benign", "purify_triggered"}
    assert changed(base, tiny("training.epochs=2")) == models - {"load", "split"}
    assert changed(base, tiny("resources.threads=2")) == models - {"load", "split"}
    assert changed(base, tiny("resources.timeout=5")) == set()
    poisoned = {"implant", "encode", "encode_triggered", "measure"}
    assert changed(base, tiny('attacks=["none", { name = "badnets", poison_rate = 0.1 }]')) == poisoned
    larger = tiny('attacks=["none", { name = "badnets", trigger_size = 0.2 }]')
    assert changed(base, larger) == {"make_trigger", *poisoned}
    assert changed(base, tiny('attacks=["none", { name = "badnets", poison_rate = 0.05 }]')) == set()
    assert changed(base, tiny("seeds=1")) == models - {"load", "split"}


# Files

READER = '''"""Reads a file for its trigger."""
from pathlib import Path
from bench.api.attack import *
@attack
class Reader(PoisoningAttack):
    file: str
    def files(self): return (Path(self.file),)
    def threat(self): return Threat.TRAIN_SET
    def apply_trigger(self, images, target, trigger): return images
    def poison(self, view, trigger, rng): raise NotImplementedError
'''


def test_files_that_an_attack_reads_are_part_of_its_triggers_key(tmp_path: Path) -> None:
    (tmp_path / "reader.py").write_text(READER)
    registry.load_plugin(tmp_path / "reader.py")
    file, suite = tmp_path / "weights", tmp_path / "s.toml"
    suite.write_text(f'[axes]\nattacks = [{{ name = "reader", file = "{file}" }}, "badnets"]\n')

    def triggers() -> dict[str, str]:
        found = plan_of(suite).stages.values()
        return {stage.spec["attack"]["name"]: stage.key for stage in found if stage.kind == "make_trigger"}

    file.write_bytes(b"one")
    before = triggers()
    assert triggers() == before
    file.write_bytes(b"others")
    after = triggers()
    assert after["badnets"] == before["badnets"], "badnets reads nothing"
    assert after["reader"] != before["reader"]


def test_weights_are_known_by_their_content_and_trials_without_them_are_left_out(tmp_path: Path) -> None:
    file, suite = tmp_path / "mine.pth", tmp_path / "s.toml"
    suite.write_text(
        f'[axes]\nbackbones = [{{ name = "mobilenet_v2", weights = ["{file}", "none"] }}]\n', encoding="utf-8"
    )

    def keys() -> list[str | None]:
        trials = plan_of(suite).trials
        assert all(str(file) in trial.skipped for trial in trials if trial.key is None)
        return [trial.key for trial in trials]

    absent, scratch = keys()
    assert absent is None
    assert scratch is not None
    found = []
    for content in (b"one", b"other"):
        file.write_bytes(content)
        found.append(keys())
    assert None not in found[0]
    assert found[0][0] != found[1][0]
    assert found[0][1] == found[1][1] == scratch


@pytest.mark.usefixtures("trouble")
def test_a_changed_data_file_recomputes_its_data(tmp_path: Path) -> None:
    data, suite = tmp_path / "data.bin", tmp_path / "s.toml"
    data.write_bytes(b"one")
    suite.write_text(f'[axes]\ndatasets = [{{ name = "trouble", file = "{data}" }}]\n')
    before = plan_of(suite)
    assert changed(before, plan_of(suite)) == set()
    data.write_bytes(b"two")
    assert not set(plan_of(suite).stages) & set(before.stages)


def test_an_image_that_moves_to_another_class_changes_every_key(tmp_path: Path) -> None:
    root, suite = tmp_path / "pets", tmp_path / "s.toml"
    for number, name in enumerate(("a", "b")):
        (root / name).mkdir(parents=True)
        for index in range(8):
            Image.new("RGB", (8, 8), (number * 100, index * 20, 9)).save(root / name / f"{name}{index}.png")
    spec = f'{{ name = "folder", path = "{root}", size = 8, train = 4, query = 2, database = 2, trusted = 2 }}'
    suite.write_text(f"[axes]\ndatasets = [{spec}]\n")
    before = set(plan_of(suite).stages)
    assert set(plan_of(suite).stages) == before
    (root / "a" / "a0.png").rename(root / "b" / "a0.png")
    moved = set(plan_of(suite).stages)
    assert not moved & before
    (root / "b").rename(root / "zebra")
    assert not set(plan_of(suite).stages) & (moved | before)
