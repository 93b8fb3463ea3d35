"""All that the documents put into backticks: commands, options, names, files, pieces of suites, calls."""

from __future__ import annotations

import importlib
import inspect
import tomllib
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.api import registry
from bench.api.errors import UserError
from bench.api.hashing import Recipe
from bench.config import suite
from bench.config.schema import AXES, Resources
from bench.graph import planner
from tests.docs import _rules
from tests.docs._markdown import ROOT, Shown, all_spans
from tests.docs._small import done, own_data


@pytest.mark.parametrize("span", all_spans(), ids=str)
def test_all_words_are_looked_at_by_a_test(span: Shown) -> None:
    known = [*_rules.names(), *_rules.options(), *_rules.PRINTED, *_rules.SAID]
    near = get_close_matches(span.text.split()[0], known, n=1)
    assert _rules.of_words(span.text), (
        f"{span.document}:{span.line}: `{span.text}` is nothing that HashDoor has"
        f"{f' (did you mean {near[0]!r}?)' if near else ''}: correct it, or give it a rule in tests/docs/_rules.py"
    )


def test_the_tables_of_words_hold_only_what_is_shown() -> None:
    shown = {span.text for span in all_spans()}
    assert {*_rules.PRINTED, *_rules.SAID, *_rules.FOREIGN} <= shown


@pytest.mark.parametrize("text", _rules.words_of_rule("said"))
def test_a_word_stands_where_it_is_meant(text: str) -> None:
    path, content = _rules.SAID[text]
    assert content in (ROOT / path).read_text(encoding="utf-8")


@pytest.mark.parametrize("text", _rules.words_of_rule("foreign"))
def test_a_name_of_other_people_s_is_there(text: str) -> None:
    owner = _rules.FOREIGN[text]
    found = importlib.import_module(owner.partition(".")[0])
    for part in owner.split(".")[1:]:
        found = getattr(found, part)
    assert hasattr(found, text) or text in inspect.signature(found).parameters  # type: ignore[arg-type]


def settled(text: str, tmp_path: Path, data: Path | None = None) -> list[planner.PlannedTrial]:
    """The cells of a suite of this text."""
    path = tmp_path / "shown.toml"
    path.write_text(text)
    trials = planner.plan([suite.load(str(path))], data=data, device="cpu").trials
    assert trials
    return trials


def kinds_of(name: str) -> list[str]:
    return [kind for kind in registry.KINDS if name in registry.catalogue(kind)]


def taking(parameter: str) -> list[tuple[str, str]]:
    """Kind and name of the components with this parameter."""
    every = [(kind, name) for kind in registry.KINDS for name in registry.catalogue(kind)]
    return [(kind, name) for kind, name in every if parameter in registry.lookup(kind, name).__dataclass_fields__]


def creates(kind: str, name: str, params: dict[str, Any]) -> bool:
    try:
        registry.create(kind, name, params)
    except UserError:
        return False
    return True


@pytest.mark.parametrize("text", _rules.words_of_rule("toml"))
def test_a_piece_of_a_suite_is_read_by_the_suite_s_reader(text: str, tmp_path: Path) -> None:
    """A component with each value of its lists; an axis; a table; a setting of training; a component's parameter."""
    held = tomllib.loads(_rules.toml(text))
    (key,) = held
    if text.startswith("{"):
        component = held["value"]
        name = component.pop("name")
        (kind, *_) = kinds_of(name) or [None]
        assert kind, f"no component is called {name}"
        lists = [value if isinstance(value, list) else [value] for value in component.values()]
        for values in product(*lists):
            registry.create(kind, name, dict(zip(component, values, strict=True)))
        plan_of = f"[axes]\n{kind} = [{text}]"
        (tmp_path / "shown.toml").write_text(plan_of)
        assert list(suite.load(str(tmp_path / "shown.toml")).trials(None))
    elif text.startswith("["):
        settled(_rules.toml(text), tmp_path)
        assert key != "resources" or {*held[key]} <= {*Resources.model_fields}
    elif key in AXES:
        settled(f"[axes]\n{text}", tmp_path)
    elif key in Recipe.__dataclass_fields__:
        settled(f"[training]\n{text}", tmp_path)
    else:
        assert any(creates(kind, name, held) for kind, name in taking(key)), f"nothing takes {text}"


@pytest.mark.parametrize("text", _rules.words_of_rule("label"))
def test_a_label_is_one_of_a_component(text: str) -> None:
    name, params = _rules.labelled(text) or ("", {})
    assert any(creates(kind, name, params) for kind in kinds_of(name)), f"`{text}` cannot be made"


@pytest.mark.parametrize("text", _rules.words_of_rule("keyword"))
def test_an_argument_is_taken(text: str) -> None:
    from hashing.codes import pack
    from hashing.ranking import Relevance

    name, value = _rules.keyword(text) or ("", "")
    rng = np.random.default_rng(0)
    queries, base = (pack(rng.standard_normal((n, 16)).astype(np.float32)) for n in (5, 40))
    labels = rng.integers(0, 3, 40)
    functions = _rules.takers(name, value)
    assert functions, f"no function of the kernels takes {text}"
    ranking = importlib.import_module("hashing.ranking")
    for function in functions:
        found = getattr(ranking, function)(queries, base, Relevance(labels), labels[:5], **{name: value})
        assert np.isfinite(np.asarray(found)).all()


@pytest.mark.parametrize("template", _rules.words_of_rule("line of a list"))
def test_lists_of_one_s_own_are_read(template: str, tmp_path: Path) -> None:
    """Lines like the one shown, in the folders that the line of TOML beside it names, below --data."""
    (line,) = (text for text in _rules.words_of_rule("toml") if text.startswith("datasets"))
    data = tmp_path / "data"
    own_data(data)
    image, *labels = template.split()
    for part, numbers in (("train", range(20)), ("test", range(20, 40)), ("database", range(40, 60))):
        lines = []
        for number in numbers:
            rows = [*labels[number % len(labels) :], *labels[: number % len(labels)]]
            words = [str(number % (int(labels[0]) + 1))] if len(labels) == 1 else rows
            lines.append(" ".join([image.replace("path.jpg", f"{number}.png"), *words]))
        (data / "my_lists" / f"{part}.txt").write_text("\n".join(lines))
    trials = settled(f"[axes]\n{line}", tmp_path, data)
    assert [trial.skipped for trial in trials] == [""]
    assert "found (" in done(["doctor", "--data", str(data)])
