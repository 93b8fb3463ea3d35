"""Components are found by name, and everything that can be wrong with one is said."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from bench.api import registry
from bench.api.errors import UserError

ATTACK = '''"""A sentence."""
from bench.api.attack import *
@attack
class Mine(Attack):
    strength: Share = 0.5
    def apply_trigger(self, images, target, trigger):
        return images
'''


def test_every_file_is_a_component_and_every_component_imports() -> None:
    for kind, about in registry.KINDS.items():
        package = about.package
        folder = Path(__file__).parents[2] / package.replace(".", "/")
        files = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}
        assert set(registry.catalogue(kind)) == files
        for name in files:
            assert registry.lookup(kind, name).__module__ == f"{package}.{name}"


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown attack 'badnet'; did you mean 'badnets'\?.*bench list attacks"):
        registry.create("attacks", "badnet", {})
    with pytest.raises(UserError, match="unknown kind"):
        registry.catalogue("attcks")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"poison_rate": 1.5}, "poison_rate = 1.5: input should be less than or equal to 1"),
        ({"poison_rat": 0.1}, "unknown parameter 'poison_rat'; did you mean 'poison_rate'"),
        ({"labels": "swap"}, "labels = 'swap': input should be 'dirty' or 'clean'"),
    ],
)
def test_impossible_parameters_are_named(params: dict, message: str) -> None:
    with pytest.raises(UserError, match="attack 'badnets'") as caught:
        registry.create("attacks", "badnets", params)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_plugin_file_answers_to_its_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(ATTACK)
    registry.load_plugin(path)
    assert registry.create("attacks", "mine", {"strength": 0.25}).strength == 0.25
    assert registry.sentence(registry.find("attacks", "mine")) == "A sentence."
    assert "mine" not in registry.catalogue("defenses")


def test_a_clash_names_both(tmp_path: Path) -> None:
    path = tmp_path / "badnets.py"
    path.write_text(ATTACK)
    registry.load_plugin(path)
    with pytest.raises(UserError, match=r"two attacks are called 'badnets': built in and plugin .*badnets.py"):
        registry.catalogue("attacks")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_of_that_name\n", "ModuleNotFoundError"),
        ("x = 1\n", "holds no component"),
        ("def (:\n", "SyntaxError"),
        ("1 / 0\n", "ZeroDivisionError"),
    ],
)
def test_a_broken_plugin_is_named_with_its_error(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        registry.load_plugin(path)
    assert "broken.py" in str(caught.value)


def test_a_plugin_that_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a file"):
        registry.load_plugin(tmp_path / "absent.py")


def test_entry_points_add_components_and_broken_ones_stay_visible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outside_good.py").write_text(ATTACK)
    (tmp_path / "outside_bad.py").write_text("raise RuntimeError('boom')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    points = [
        EntryPoint("outer", "outside_good", "hashdoor.attacks"),
        EntryPoint("broken", "outside_bad", "hashdoor.attacks"),
        EntryPoint("absent", "outside_absent", "hashdoor.attacks"),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == "hashdoor.attacks" else [])
    registry.catalogue.cache_clear()
    names = registry.catalogue("attacks")
    assert {"outer", "broken", "absent", "badnets"} <= set(names)
    assert registry.create("attacks", "outer", {}).strength == 0.5
    with pytest.raises(UserError, match=r"'broken'.*does not load: RuntimeError: boom"):
        registry.lookup("attacks", "broken")
    with pytest.raises(UserError, match=r"'absent'.*no module named 'outside_absent'"):
        registry.lookup("attacks", "absent")


DECLARED = """
from bench.metrics import ModelCodes, metric
from reports.board_registry import BoardData, board

@metric("share_of_ones", title="ones", section="Mine", meaning="share of bits that are 1")
def share_of_ones(codes: ModelCodes):
    return float((codes.query.unpack() > 0).mean())

@board("mine", chapter="Mine", help="nothing")
def mine(data: BoardData):
    return []
"""


def test_metrics_and_boards_of_installed_packages_are_found_and_enter_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.graph.cache_key import modules_of
    from bench.metrics import METRICS
    from reports.board_registry import all_boards

    (tmp_path / "outside_numbers.py").write_text(DECLARED)
    monkeypatch.syspath_prepend(str(tmp_path))
    kinds = ("metrics", "boards")
    points = {f"hashdoor.{kind}": [EntryPoint("outer", "outside_numbers", f"hashdoor.{kind}")] for kind in kinds}
    monkeypatch.setattr(registry, "entry_points", lambda group: points.get(group, []))
    with registry.plugins_restored():  # forgets what was found before, at its end
        pass
    assert METRICS["share_of_ones"].section == METRICS.sections()[-1] == "Mine"
    assert METRICS.of("Mine") == ("share_of_ones",)
    assert all_boards()["mine"].chapter == "Mine"
    assert "outside_numbers" in modules_of("measure", {})
    assert "outside_numbers" not in modules_of("split", {})
    points["hashdoor.metrics"] = [EntryPoint("gone", "outside_gone", "hashdoor.metrics")]
    with registry.plugins_restored():
        pass
    with pytest.raises(UserError, match=r"the metric 'gone' \(outside_gone\) does not load: ModuleNotFoundError"):
        len(METRICS)


@pytest.mark.parametrize("name", ["map", "map_clean", "detectors"])
def test_a_metric_whose_name_is_taken_is_a_mistake(tmp_path: Path, name: str) -> None:
    from bench.metrics import METRICS

    (tmp_path / "mine.py").write_text(DECLARED.replace("share_of_ones", name))
    registry.load_plugin(tmp_path / "mine.py")
    with pytest.raises(UserError, match=rf"(two metrics are|a metric is) called '{name}'.*mine\.py"):
        len(METRICS)


def test_components_are_frozen_keyword_only_values() -> None:
    cls = registry.lookup("attacks", "badnets")
    one = cls()
    assert one == cls(poison_rate=0.05)
    assert registry.parameters(one)["labels"] == "dirty"
    with pytest.raises(AttributeError):
        one.poison_rate = 0.5
    with pytest.raises(Exception, match="positional"):
        cls(0.1)


LISTING = """
import sys
from bench.cli.app import main
try:
    main(["list"])
except SystemExit:
    pass
heavy = {"torch", "pandas", "ray", "numba"} & set(sys.modules)
assert not heavy, heavy
"""


def test_listing_imports_neither_torch_nor_pandas() -> None:
    done = subprocess.run([sys.executable, "-c", LISTING], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "badnets" in done.stdout
