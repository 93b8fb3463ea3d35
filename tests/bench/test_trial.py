"""Components and trials: equal where everything is, keyed by their content, and never parsed back from print."""

from __future__ import annotations

import pytest

from bench.config.trial import Spec, Surrogate, canonical, digest
from bench.config.words import pieces
from tests.stores import trial


def test_keys_do_not_depend_on_the_order_of_a_mapping() -> None:
    assert digest({"a": 1, "b": [1.5, None]}) == digest({"b": [1.5, None], "a": 1})
    assert digest({"a": 1}) != digest({"a": 1.0000001})
    assert canonical({"ü": (1, 2)}) == '{"ü":[1,2]}'
    with pytest.raises(ValueError, match="JSON"):
        canonical(float("nan"))


def test_components_are_equal_if_name_and_parameters_are() -> None:
    one, other = Spec("badnets", {"rate": 0.1, "size": 3}, {"rate": 0.1}), Spec("badnets", {"size": 3, "rate": 0.1})
    assert one == other
    assert hash(one) == hash(other)
    assert one != Spec("badnets", {"rate": 0.2, "size": 3})
    assert (one.label, other.label) == ("badnets(rate=0.1)", "badnets")
    assert [one.has(word) for word in ("badnets", "badnets(rate=0.1)", "badnets(rate=0.2)")] == [True, True, False]


def test_every_axis_makes_another_trial() -> None:
    changes = [{"seed": 1}, {"target": "1"}, {"bits": 16}, {"attack": "badnets"}, {"surrogate": "same"},
               {"augment": "none"}, {"training": {"lr": 0.1}}, {"surrogate_seed": 7}]  # fmt: skip
    found = {trial(**change).identity for change in ({}, *changes)}
    assert len(found) == 1 + len(changes)
    assert trial().identity == trial().identity


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a,b", ["a", "b"]),
        ("a(x=1, y=[2, 3]), b", ["a(x=1, y=[2, 3])", "b"]),
        ("a,,b,", ["a", "b"]),
        ("a), b", ["a)", "b"]),
        ("a(, b", ["a(, b"]),
    ],
)
def test_a_list_is_cut_at_commas_outside_brackets(text: str, found: list[str]) -> None:
    assert pieces(text) == found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("other_seed", Surrogate()),
        ("same", Surrogate(same_seed=True)),
        ("backbone=resnet18", Surrogate(backbone="resnet18")),
        ("method=dpsh", Surrogate(method="dpsh")),
        ("bits=16", Surrogate(bits=16)),
    ],
)
def test_a_surrogate_is_parsed_once_and_prints_as_its_text(text: str, expected: Surrogate) -> None:
    assert Surrogate.parse(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize("text", ["", "other", "bits=0", "bits=x", "backbone=", "seed=1", "same\n", "backbone=a b"])
def test_another_text_is_no_surrogate(text: str) -> None:
    with pytest.raises(ValueError, match="is no surrogate"):
        Surrogate.parse(text)
