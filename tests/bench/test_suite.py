"""A suite file is read, checked and described; a mistake is named in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.api.errors import UserError
from bench.config import suite as suites
from tests.bench.conftest import load


@pytest.mark.parametrize("name", suites.names())
def test_shipped_suites_parse_and_describe_themselves(name: str) -> None:
    assert suites.names()[name].endswith(".")
    assert list(suites.load(name).trials(None))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[axes\n", ["TOML"]),
        ("[axes]\nbitz = [16]\n", ["'axes.bitz'", "'bits'"]),
        ("[axis]\nbits = [16]\n", ["'axis'", "'axes'"]),
        ("[axes]\nbits = [0]\n", ["axes.bits.0 = 0", "1"]),
        ("[axes]\nbits = ['many']\n", ["axes.bits.0 = 'many'"]),
        ("[axes]\nseeds = [-1]\n", ["axes.seeds.0 = -1"]),
        ("[axes]\nsurrogate = ['another']\n", ["axes.surrogate.0 = 'another'"]),
        ("[[exclude]]\nattak = 'none'\n", ["'attak'", "'attack'"]),
        ("[parameters.attack.badnets]\nlabels = 'clean'\n", ["[parameters.attack]", "'attacks'"]),
        ("[parameters.attacks.badnet]\n", ["'badnet'", "'badnets'"]),
        ("[[blocks]]\n[blocks.parameters.attacks.badnets]\n", ["[parameters]"]),
        ("[resources]\ntimeout = 0\n", ["resources.timeout = 0"]),
        (
            "datasets = ['digits']\nbits = [16]\n",
            ["'datasets': it belongs under [axes]", "'bits': it belongs under [axes]"],
        ),
        ("atacks = ['none']\n", ["'attacks' under [axes]"]),
        ("epochs = 3\n", ["'epochs': it belongs under [training]"]),
        ("[axes]\nepochs = 3\n", ["'axes.epochs': it belongs under [training]"]),
        ("[axes]\ntimeout = 3\n", ["'axes.timeout': it belongs under [resources]"]),
        ("[axes]\nname = 'mine'\n", ["'axes.name': it belongs above the first table"]),
        ("[[blocks]]\nseeds = [1]\n", ["'blocks.0.seeds': it belongs under [blocks.axes]"]),
        ("[[blocks]]\n[blocks.axes]\nlr = 1.0\n", ["'blocks.0.axes.lr': it belongs under [blocks.training]"]),
        ("[[blocks]]\nthreads = 1\n", ["'blocks.0.threads': it belongs under [resources]"]),
        ("[axes]\nzzzz = 1\n", ["unknown key 'axes.zzzz'"]),
    ],
)
def test_a_mistake_is_one_line_that_names_it(tmp_path: Path, text: str, named: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path, text)
    assert all(word in str(caught.value) for word in named)
    assert "\n" not in str(caught.value)


def test_a_suite_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'quik'.*'quick'"):
        suites.load("quik")
    with pytest.raises(UserError, match=r"absent\.toml"):
        suites.load(str(tmp_path / "absent.toml"))
