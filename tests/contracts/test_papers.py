"""Every built-in component says which paper it is, in one sentence what it does, and stays short."""

from __future__ import annotations

import pytest

from bench.api import registry

BUILT_IN = [
    source for kind in registry.KINDS for source in registry.catalogue(kind).values() if source.origin == "built in"
]
LONGEST = 150  # lines of a component's file; what is longer belongs into a helper


def label(source: registry.Source) -> str:
    return f"{source.kind}-{source.name}"


@pytest.mark.parametrize("source", BUILT_IN, ids=label)
def test_card(source):
    card = registry.card(source)
    assert card is not None, "a literal CARD = Card(...) is missing"
    assert card.title.strip()
    assert 1990 <= card.year <= 2030
    assert card.url.startswith("https://")
    assert " " not in card.url
    assert len(card.follows) > 20


@pytest.mark.parametrize("source", BUILT_IN, ids=label)
def test_sentence(source):
    sentence = registry.sentence(source)
    assert sentence.endswith(".")
    assert len(sentence) > 15


@pytest.mark.parametrize("source", BUILT_IN, ids=label)
def test_length(source):
    assert len(source.path.read_text(encoding="utf-8").splitlines()) <= LONGEST


@pytest.mark.parametrize("source", BUILT_IN, ids=label)
def test_defines_one_component_whose_hyper_parameters_have_defaults(source):
    component = registry.lookup(source.kind, source.name)
    assert component.__module__ == source.module
    own = {"folder", "parquet", "checkpoint", "poison_files", "timm"}  # they cannot know the user's images and models
    if source.name not in own:
        registry.create(source.kind, source.name, {})


def test_every_kind_has_components():
    assert {source.kind for source in BUILT_IN} == set(registry.KINDS)
