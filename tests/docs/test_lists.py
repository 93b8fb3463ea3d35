"""The README's lists of what there is are complete: no component and no suite is left out, none is there twice."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from bench.api import registry
from bench.api.defense import DataFilter, InputDetector, ModelDetector, Repair
from bench.config import suite
from tests.docs._markdown import section, table, words_in

KINDS = {"repair": Repair, "data filter": DataFilter, "input detector": InputDetector, "model detector": ModelDetector}


def test_every_suite_is_in_the_table_once() -> None:
    named: list[str] = []
    for row in table("README.md", "Suites", "suite", "what it compares", "on two cores"):
        trial = row["suite"]
        for first, last in re.findall(r"`(\w+)` to `(\w+)`", trial):
            stem = first.rstrip("0123456789")
            assert last.startswith(stem)
            named += [f"{stem}{n}" for n in range(int(first[len(stem) :]), int(last[len(stem) :]) + 1)]
        named += words_in(re.sub(r"`\w+` to `\w+`", "", trial))
    assert Counter(named) == Counter(list(suite.names()))


def test_every_defense_is_in_the_table_under_its_kind() -> None:
    rows = table("README.md", "Defenses", "kind", "what it gets to do", "here")
    assert [row["kind"] for row in rows] == [*KINDS]
    for row in rows:
        mine = [
            name
            for name in registry.catalogue("defenses")
            if name != "none" and issubclass(registry.lookup("defenses", name), KINDS[row["kind"]])
        ]
        assert sorted(words_in(row["here"])) == sorted(mine)


def test_every_attack_is_named_under_its_threat() -> None:
    """The first sentence: dirty-label by default, kept; the training-controlled; nothing but the model."""
    sentence = section("README.md", "Attacks").partition("Boards never rank")[0]
    named = [name for name in words_in(sentence) if name in registry.catalogue("attacks")]
    assert Counter(named) == Counter(
        name for name in registry.catalogue("attacks") if name != "none" and not registry.required("attacks", name)
    )
    changed, rest = sentence.split(" change labels by default, ")
    kept, rest = rest.split(" keep them, ")
    controlled, rest = rest.split(" controls the training, ")
    for words, access in (
        (changed, "dirty-label"), (kept, "clean-label"), (controlled, "training-controlled"), (rest, "model-only"),
    ):  # fmt: skip
        for name in words_in(words):
            assert access_of(name) == access, f"`{name}` is listed as: {access}"


def access_of(name: str) -> str:
    from bench.api import attack

    return attack.access_of(registry.create("attacks", name, {}).threat())


@pytest.mark.parametrize("kind", ["methods", "backbones"])
def test_every_method_and_backbone_is_named(kind: str) -> None:
    named = {*words_in(section("README.md", "Methods and backbones"))}
    assert {*registry.catalogue(kind)} <= named


def test_data_sets_are_named() -> None:
    """Those that need no files, and every protocol that `bench doctor` explains."""
    text = section("README.md", "Data")
    free = [name for name in registry.catalogue("datasets") if free_of_files(name)]
    first = text.strip().partition(" need no files")
    assert first[1]
    assert sorted(words_in(first[0])) == sorted(free)


def free_of_files(name: str) -> bool:
    from dataclasses import MISSING, fields

    from bench.api.errors import UserError

    cls = registry.lookup("datasets", name)
    if any(item.default is MISSING and item.default_factory is MISSING for item in fields(cls)):
        return False
    try:
        return not registry.create("datasets", name, {}).files(None)
    except UserError:
        return False
