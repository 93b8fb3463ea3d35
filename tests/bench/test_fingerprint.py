"""What changes a fingerprint, and what must not."""

from __future__ import annotations

import os
import py_compile
import subprocess
import sys
from pathlib import Path

import pytest

from bench.api import registry
from bench.graph.fingerprint import covered, fingerprint, imported, normalised
from tests.bench.conftest import edited

SOURCE = '''
"""Module docstring."""
from typing import TYPE_CHECKING
from bench.api.card import Card
if TYPE_CHECKING:
    from pathlib import Path
CARD = Card(title="A", year=2020, url="https://a", follows="x")
__all__ = ["Attack"]

class Attack:
    """Docstring."""
    rate: float = 0.05  # a comment
    """Share of the images."""

    def go(self, x):
        """Docstring."""
        if x < 0:
            raise ValueError("x is negative")
        assert x < 9, "too large"
        return x * self.rate
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# a comment", "# another comment"),
        ('"""Share of the images."""', '"""Other words."""'),
        ('    """Share of the images."""\n', ""),
        ('"""Docstring."""', '"""Other words, on\n    two lines."""'),
        ('"""Module docstring."""', ""),
        ('title="A", year=2020', 'title="B", year=2021'),
        ('["Attack"]', '["Attack", "CARD"]'),
        ("x is negative", "x must not be negative"),
        ("too large", "larger than expected"),
        ("from pathlib import Path", "from os import PathLike"),
    ],
)
def test_words_do_not_count(old: str, new: str) -> None:
    assert old in SOURCE
    assert normalised(SOURCE) == normalised(SOURCE.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.05", "0.06"),
        ("x < 0", "x <= 0"),
        ("x * self.rate", "x / self.rate"),
        ("ValueError", "TypeError"),
        ("assert x < 9", "assert x < 8"),
    ],
)
def test_code_counts(old: str, new: str) -> None:
    assert old in SOURCE
    assert normalised(SOURCE) != normalised(SOURCE.replace(old, new))


def test_follows_imports_transitively_and_stops_at_the_exempt() -> None:
    read = covered(("bench.stages.train",)).keys()
    assert {"hashing.train", "hashing.loader", "hashing.model", "bench.api.types", "bench.artifacts.stage_io"} <= read
    assert not {"bench.api.registry", "bench.api.errors", "bench.api.card"} & read
    assert not {"hashing.codes", "hashing.ranking", "bench.metrics", "bench.engine.store"} & read, (
        "work on kernels, metrics or the store would retrain every model"
    )


def test_a_change_in_a_transitive_import_counts(tmp_path: Path) -> None:
    before = fingerprint(("bench.stages.train",))
    with edited("hashing.loader", tmp_path / "edited"):
        assert fingerprint(("bench.stages.train",)) != before
    assert fingerprint(("bench.stages.train",)) == before


def test_relative_imports_are_first_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "outside"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "attack.py").write_text("from . import helper\nfrom .deep import thing\n")
    (package / "helper.py").write_text("value = 1\n")
    (package / "deep.py").write_text("thing = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def digest() -> str:
        registry.forget()
        return fingerprint(("outside.attack",))

    before = digest()
    for name, old, new in (("helper", "value = 1", "value = 2"), ("deep", "thing = 1", "thing = 2")):
        text = (package / f"{name}.py").read_text()
        (package / f"{name}.py").write_text(text.replace(old, new))
        assert digest() != before
        (package / f"{name}.py").write_text(text)
    assert digest() == before


def test_code_that_changes_before_it_is_imported_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage imports its modules long after the plan was made."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, then, same in (("early", "value = 2\n", False), ("late", "value = 1  # a remark\n", True)):
        (tmp_path / f"{name}.py").write_text("value = 1\n")
        fingerprint((name,))
        (tmp_path / f"{name}.py").write_text(then)
        assert imported((name,)) is same
        (tmp_path / f"{name}.py").write_text("value = 3\n")
        assert imported((name,)) is same
        assert sys.modules.pop(name).value == (1 if same else 2)


def test_a_plugins_own_helpers_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path / "site-packages"))
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "installed.py").write_text("value = 1\n")
    (tmp_path / "my_helper.py").write_text("from its_helper import value\nimport installed\n")
    (tmp_path / "its_helper.py").write_text("value = 0.5\n")
    path = tmp_path / "leaning.py"
    path.write_text(
        '"""Leans on a helper."""\nfrom bench.api.attack import *\nfrom my_helper import value\n@attack\n'
        "class Leaning(Attack):\n    def apply_trigger(self, images, target, trigger): return images * value\n"
    )
    registry.load_plugin(path)
    before = fingerprint(("hashdoor_plugin_leaning",))
    assert not any(name.startswith("installed") for name in covered(("hashdoor_plugin_leaning",)))
    (tmp_path / "its_helper.py").write_text("value = 0.6\n")
    registry.forget()
    assert fingerprint(("hashdoor_plugin_leaning",)) != before


LEANING = (
    '"""Leans on a helper."""\nfrom bench.api.attack import *\nfrom {module} import value\n@attack\n'
    "class Leaning(Attack):\n    def apply_trigger(self, images, target, trigger): return images * value\n"
)


@pytest.mark.parametrize("place", ["elsewhere", "behind a link"])
def test_a_plugins_helpers_count_wherever_they_are(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, helpers = tmp_path / "home", tmp_path / "helpers"
    home.mkdir()
    if place == "elsewhere":
        helpers.mkdir()
    else:
        helpers.symlink_to(home)
    name = f"far_helper_{place[:4]}"
    (helpers / f"{name}.py").write_text("value = 0.5\n")
    monkeypatch.syspath_prepend(str(helpers))
    path = (home if place == "elsewhere" else helpers) / f"{place[:4]}_leaning.py"
    path.write_text(LEANING.format(module=name))
    with registry.plugins_restored():
        registry.load_plugin(path)
        module = f"hashdoor_plugin_{path.stem}"
        before = fingerprint((module,))
        (helpers / f"{name}.py").write_text("value = 0.6\n")
        registry.forget()
        assert fingerprint((module,)) != before
        assert not any(name.startswith(("torch", "numpy")) for name in covered((module,)))


def test_a_plugin_that_is_loaded_again_under_its_name_has_other_code(tmp_path: Path) -> None:
    """As in a notebook, which edits a plugin: results of the old code must not stand for the new one."""
    found = []
    for factor in (0.5, 0.6):
        (tmp_path / "dim.py").write_text(
            '"""Dims images."""\nfrom bench.api.attack import *\n@attack\nclass Dim(Attack):\n'
            f"    def apply_trigger(self, images, target, trigger): return images * {factor}\n"
        )
        with registry.plugins_restored():
            registry.load_plugin(tmp_path / "dim.py")
            found.append(fingerprint(("hashdoor_plugin_dim",)))
    assert found[0] != found[1]


@pytest.mark.parametrize("helper", ["beside_it", "package.inside"])
def test_a_plugins_code_is_what_its_files_say_though_size_and_time_are_equal(helper: str, tmp_path: Path) -> None:
    """As in files of an archive with a fixed time: Python itself would take the stored compilation of the old text."""
    (tmp_path / "aside.py").write_text(
        f'"""Leans."""\nfrom bench.api.attack import *\nfrom {helper} import value\n@attack\n'
        "class Aside(Attack):\n    def apply_trigger(self, images, target, trigger): return images * value\n"
    )
    load = "from pathlib import Path; from bench.api.registry import load_plugin; load_plugin(Path('aside.py'))"
    command = [sys.executable, "-c", f"{load}; import {helper}; print({helper}.value)"]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{Path.cwd()}", "PYTHONDONTWRITEBYTECODE": ""}
    path = tmp_path.joinpath(*helper.split(".")).with_suffix(".py")
    path.parent.mkdir(exist_ok=True)
    for text in ("value = 1\n", "value = 2\n"):
        path.write_text(text)
        os.utime(path, (1e9, 1e9))
        if text == "value = 1\n":
            py_compile.compile(str(path))
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "2\n"
