"""Every fenced block of the documents is executed: as a suite, as Python, as commands, or as what a run prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.config import suite
from bench.graph import planner
from tests.docs import _rules
from tests.docs._markdown import DOCUMENTS, OTHER, Shown, all_blocks, prose, read
from tests.docs._rules import blocks_of as of
from tests.docs._small import BLOCK, commands, done, smaller, words_of

COMMAND = re.compile(r"python -m bench ")


@pytest.mark.parametrize("block", all_blocks(), ids=str)
def test_every_block_is_executed_by_a_test(block: Shown) -> None:
    assert _rules.of_block(block), (
        f"{block.document}:{block.line}: this block is not executed by any test: mark it ```toml or ```python, let"
        f" its lines begin with one of {', '.join(map(repr, _rules.SHELL))}, or give it a rule in tests/docs/_rules.py"
    )


@pytest.mark.parametrize("document", DOCUMENTS)
def test_code_is_shown_in_the_ways_that_are_read(document: str) -> None:
    assert read(document).count("```") % 2 == 0, "a fence is open"
    found = OTHER.search(prose(document))
    assert not found, f"not executed: code shown as {found.group()!r}"


@pytest.mark.parametrize("block", [*of("commands"), *of("cluster")], ids=str)
def test_every_line_of_commands_is_one_that_is_run(block: Shown) -> None:
    """test_commands.py and test_programs.py run what begins so, tests/faults/test_cluster.py the cluster."""
    starts = ("pip", "nox", "python -m bench") + (("export", "ray") if _rules.of_block(block) == "cluster" else ())
    for line in commands(block):
        assert line.startswith(starts), f"`{line}` is not executed by any test"
        if COMMAND.match(line):
            assert _rules.command_of(" ".join(words_of(line))), f"`{line}` is no command"


def python_before(block: Shown) -> list[Shown]:
    """What its section shows to be run before it."""
    return [one for one in of("python") if one.section == block.section and one.line < block.line]


def _costly(block: Shown) -> list[pytest.MarkDecorator]:
    """A suite over files of the reader's keeps the network that they fit, of half a minute."""
    return [pytest.mark.slow] if python_before(block) else []


def with_files(block: Shown, folder: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Stand in a folder with the suite and with what its section's Python makes before it; whether there is such."""
    monkeypatch.chdir(folder)
    Path("my.toml").write_text(block.text)
    for one in python_before(block):
        exec(compile(one.text, str(one), "exec"), {"__name__": "__main__"})
    return bool(python_before(block))


@pytest.mark.parametrize("block", of("suite"), ids=str)
def test_a_suite_loads_and_plans_over_all_of_its_cells(
    block: Shown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan reads no images: CIFAR's files are there in name only."""
    (tmp_path / "cifar-10-batches-py").mkdir()
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        (tmp_path / "cifar-10-batches-py" / name).touch()
    with_files(block, tmp_path, monkeypatch)
    planned = planner.plan([suite.load("my.toml")], data=tmp_path, device="cpu")
    assert planned.trials
    assert [trial.skipped for trial in planned.trials if trial.key is None] == []


@pytest.mark.parametrize("block", [pytest.param(one, marks=_costly(one)) for one in of("suite")], ids=str)
def test_a_suite_runs_in_small(block: Shown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its attacks, defenses, lengths, training and filters over few scanned digits."""
    given = with_files(block, tmp_path, monkeypatch)  # files fit the suite's own network and length
    axes = {axis: value for axis, value in BLOCK.items() if not given or axis not in {"backbones", "bits"}}
    printed = done(smaller(["run", "--suite", "my.toml"], axes))
    assert re.search(r"^Trials: \d+ ok( \(\d+ of them collapsed, see the boards\))?\.", printed, re.MULTILINE)


def test_every_block_of_python_and_toml_is_a_rule_s() -> None:
    """The collected cases are all there are: a pattern that finds nothing tests nothing."""
    assert len(all_blocks()) >= 7
    assert {_rules.of_block(block) for block in all_blocks()} >= {"suite", "python", "commands", "cluster", "boards"}
