"""Components are found by name, everything that can be wrong with one is said, and old names of parameters work."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.api import registry
from bench.api.errors import RenamedWarning, UserError
from bench.cli.app import main
from tests.bench.conftest import plan_of

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
    with pytest.raises(UserError, match=r"'badnet'.*'badnets'.*bench list attacks"):
        registry.create("attacks", "badnet", {})
    with pytest.raises(UserError, match=r"'attcks'.*'attacks'"):
        registry.catalogue("attcks")


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"poison_rate": 1.5}, ["poison_rate = 1.5", "1"]),
        ({"poison_rat": 0.1}, ["'poison_rat'", "'poison_rate'"]),
        ({"labels": "swap"}, ["labels = 'swap'", "'dirty'", "'clean'"]),
    ],
)
def test_impossible_parameters_are_named(params: dict, named: list[str]) -> None:
    with pytest.raises(UserError, match="attack 'badnets'") as caught:
        registry.create("attacks", "badnets", params)
    assert all(word in str(caught.value) for word in named)
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
    with pytest.raises(UserError, match=r"'badnets'.*built in.*badnets\.py"):
        registry.catalogue("attacks")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_of_that_name\n", "ModuleNotFoundError"),
        ("x = 1\n", "component"),
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
    with pytest.raises(UserError, match=r"absent\.py"):
        registry.load_plugin(tmp_path / "absent.py")


def install(site: Path, entry_points: str) -> None:
    """Lets the entry points be found as those of an installed package, `outside 1.0`."""
    about = site / "outside-1.0.dist-info"
    about.mkdir(exist_ok=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(entry_points)
    registry.forget()


def test_entry_points_add_components_and_broken_ones_stay_visible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outside_good.py").write_text(ATTACK)
    (tmp_path / "outside_bad.py").write_text("raise RuntimeError('boom')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    install(tmp_path, "[hashdoor.attacks]\nouter = outside_good\nbroken = outside_bad\nabsent = outside_absent\n")
    names = registry.catalogue("attacks")
    assert {"outer", "broken", "absent", "badnets"} <= set(names)
    assert registry.create("attacks", "outer", {}).strength == 0.5
    assert names["outer"].origin == "package outside 1.0"
    with pytest.raises(UserError, match=r"'broken'.*RuntimeError: boom"):
        registry.lookup("attacks", "broken")
    with pytest.raises(UserError, match=r"'absent'.*'outside_absent'"):
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
    install(tmp_path, "".join(f"[hashdoor.{kind}]\nouter = outside_numbers\n" for kind in ("metrics", "boards")))
    assert METRICS["share_of_ones"].section == METRICS.sections()[-1] == "Mine"
    assert METRICS.of("Mine") == ("share_of_ones",)
    assert all_boards()["mine"].chapter == "Mine"
    assert "outside_numbers" in modules_of("measure", {})
    assert "outside_numbers" not in modules_of("split", {})
    install(tmp_path, "[hashdoor.metrics]\ngone = outside_gone\n")
    with pytest.raises(UserError, match=r"the metric 'gone' \(outside_gone\) does not load: ModuleNotFoundError"):
        len(METRICS)


ODDER = "class Odder(BaseException): ...\nraise Odder('so')\n"


def test_a_plugin_may_raise_what_is_no_exception(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.metrics import METRICS

    plugin = tmp_path / "odder_plugin.py"
    plugin.write_text(ODDER)
    with pytest.raises(UserError, match="does not load: Odder: so"):
        registry.load_plugin(plugin)
    plugin.write_text("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        registry.load_plugin(plugin)
    (tmp_path / "outside_odder.py").write_text(ODDER)
    (tmp_path / "odder_package").mkdir()
    (tmp_path / "odder_package" / "__init__.py").write_text(ODDER)
    monkeypatch.syspath_prepend(str(tmp_path))
    install(tmp_path, "[hashdoor.attacks]\nodd = outside_odder\ninner = odder_package.inner\n")
    for name in ("odd", "inner"):
        with pytest.raises(UserError, match=f"attack '{name}'.*does not load: Odder: so"):
            registry.lookup("attacks", name)
    install(tmp_path, "[hashdoor.metrics]\nodd = outside_odder\n")
    with pytest.raises(UserError, match=r"metric 'odd'.*does not load: Odder: so"):
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


# A parameter that was renamed

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
NAMED = r"'fade'.*'alpha'.*'opacity'.*0\.3"


@pytest.fixture
def fade(tmp_path: Path) -> Path:
    path = tmp_path / "fade.py"
    path.write_text(FADE)
    registry.load_plugin(path)
    return path


def suite_with(folder: Path, name: str) -> Path:
    path = folder / f"{name}.toml"
    path.write_text(SUITE.replace("NAME", name))
    return path


@pytest.mark.usefixtures("fade")
def test_old_and_new_name_are_the_same_stages_and_rows(tmp_path: Path) -> None:
    new = plan_of(suite_with(tmp_path, "opacity"))
    with pytest.warns(RenamedWarning, match=NAMED):
        old = plan_of(suite_with(tmp_path, "alpha"))
    assert set(old.stages) == set(new.stages)
    assert [trial.trial for trial in old.trials] == [trial.trial for trial in new.trials]
    assert {trial.trial.attack.label for trial in old.trials} == {f"fade(opacity={x})" for x in (0.1, 0.2, 0.3)} | {
        "none"
    }


@pytest.mark.usefixtures("fade")
def test_both_names_are_a_mistake() -> None:
    with pytest.raises(UserError, match=r"'fade'.*'alpha'.*'opacity'"):
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
        (line,) = capsys.readouterr().err.splitlines()
        assert re.match(f"warning: .*{NAMED}", line)
