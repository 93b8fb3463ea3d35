"""Pieces of suites that the documents show in backticks are read by the suite's own reader."""

from __future__ import annotations

import tomllib
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from bench.api import registry
from bench.api.errors import UserError
from bench.api.hashing import Recipe
from bench.config import suite
from bench.config.schema import AXES, Resources
from bench.graph import planner
from tests.docs import _shown
from tests.docs._markdown import all_spans
from tests.docs._small import done, own_data


def planned(text: str, tmp_path: Path, data: Path | None = None) -> list[planner.PlannedTrial]:
    """The trials of a suite of this text."""
    path = tmp_path / "shown.toml"
    path.write_text(text)
    trials = planner.plan([suite.load(str(path))], data=data, device="cpu").trials
    assert trials
    return trials


def takes(kind: str, name: str, params: dict[str, Any]) -> bool:
    """Whether a component takes the parameters, beside those that it cannot do without: paths and names."""
    try:
        registry.create(kind, name, dict.fromkeys(registry.required(kind, name), "x") | params)
    except UserError:
        return False
    return True


@pytest.mark.parametrize("text", _shown.fragments())
def test_a_piece_of_a_suite(text: str, tmp_path: Path) -> None:
    """A component with each value of its lists; an axis; a table; a setting of training; a component's parameter."""
    held = tomllib.loads(_shown.as_document(text))
    (key,) = held
    if text.startswith("{"):
        component = held["value"]
        name = component.pop("name")
        (kind, *_) = [kind for kind in registry.KINDS if name in registry.catalogue(kind)]
        lists = [value if isinstance(value, list) else [value] for value in component.values()]
        for values in product(*lists):
            registry.create(kind, name, dict(zip(component, values, strict=True)))
        (tmp_path / "shown.toml").write_text(f"[axes]\n{kind} = [{text}]")
        assert list(suite.load(str(tmp_path / "shown.toml")).trials(None))
    elif text.startswith("["):
        planned(_shown.as_document(text), tmp_path)
        assert key != "resources" or {*held[key]} <= {*Resources.model_fields}
    elif key in AXES:
        planned(f"[axes]\n{text}", tmp_path)
    elif key in Recipe.__dataclass_fields__:
        planned(f"[training]\n{text}", tmp_path)
    else:
        every = [(kind, name) for kind in registry.KINDS for name in registry.catalogue(kind)]
        with_key = [one for one in every if key in registry.lookup(*one).__dataclass_fields__]
        assert any(takes(kind, name, held) for kind, name in with_key), f"nothing takes {text}"


@pytest.mark.parametrize("labels", ["0 1 0", "7"])
def test_lists_of_one_s_own_are_read(labels: str, tmp_path: Path) -> None:
    """Lines like the two shown, in the folders that the piece of a suite beside them names, below --data."""
    assert f"path.jpg {labels}" in {one.text for one in all_spans()}
    (line,) = (text for text in _shown.fragments() if text.startswith("datasets"))
    data = tmp_path / "data"
    own_data(data)
    words = labels.split()
    for part, numbers in (("train", range(20)), ("test", range(20, 40)), ("database", range(40, 60))):
        lines = []
        for number in numbers:
            turned = [*words[number % len(words) :], *words[: number % len(words)]]
            mine = [str(number % (int(words[0]) + 1))] if len(words) == 1 else turned
            lines.append(" ".join([f"{number}.png", *mine]))
        (data / "my_lists" / f"{part}.txt").write_text("\n".join(lines))
    assert [trial.skipped for trial in planned(f"[axes]\n{line}", tmp_path, data)] == [""]
    assert "found (" in done(["doctor", "--data", str(data)])
