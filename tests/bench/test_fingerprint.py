"""What changes a fingerprint, and what must not."""

from __future__ import annotations

import pytest

from bench.graph import fingerprint
from bench.graph.fingerprint import normalised

SOURCE = '''
"""Module docstring."""
from typing import TYPE_CHECKING
from bench.api.card import Paper
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


def test_follows_imports_transitively_and_stops_at_the_exempt(monkeypatch: pytest.MonkeyPatch) -> None:
    real = fingerprint._module
    read: list[str] = []

    def spy(module: str) -> tuple[str, tuple[str, ...]]:
        read.append(module)
        return real(module)

    monkeypatch.setattr(fingerprint, "_module", spy)
    fingerprint.fingerprint(("bench.stages.train",))
    assert {"hashing.train", "hashing.loader", "hashing.model", "bench.api.types", "bench.artifacts.stage_io"} <= set(
        read
    )
    assert not {"bench.api.registry", "bench.api.errors", "bench.api.card"} & set(read)
    assert not {"hashing.codes", "hashing.ranking", "bench.metrics", "bench.engine.store"} & set(read), (
        "work on kernels, metrics or the store would retrain every model"
    )


def test_a_change_in_a_transitive_import_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint.fingerprint(("bench.stages.train",))
    real = fingerprint._module
    monkeypatch.setattr(fingerprint, "_module", lambda m: ("changed", real(m)[1]) if m == "hashing.loader" else real(m))
    assert fingerprint.fingerprint(("bench.stages.train",)) != before


def test_relative_imports_are_first_party(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "outside"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "attack.py").write_text("from . import helper\nfrom .deep import thing\n")
    (package / "helper.py").write_text("value = 1\n")
    (package / "deep.py").write_text("thing = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = fingerprint.fingerprint(("outside.attack",))
    for name, old, new in (("helper", "value = 1", "value = 2"), ("deep", "thing = 1", "thing = 2")):
        fingerprint._module.cache_clear()
        text = (package / f"{name}.py").read_text()
        (package / f"{name}.py").write_text(text.replace(old, new))
        assert fingerprint.fingerprint(("outside.attack",)) != before
        (package / f"{name}.py").write_text(text)
    fingerprint._module.cache_clear()
    assert fingerprint.fingerprint(("outside.attack",)) == before
