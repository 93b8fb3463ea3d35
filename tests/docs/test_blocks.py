"""Every fenced block of the documents is executed: as a suite, as Python, as commands, or as what a run prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench import plan, suite
from tests.docs import _rules
from tests.docs._markdown import DOCUMENTS, OTHER, Shown, all_blocks, read
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
    text = read(document)
    assert text.count("```") % 2 == 0, "a fence is open"
    assert not (found := OTHER.search(text)), f"not executed: code shown as {found.group()!r}" if found else ""


@pytest.mark.parametrize("block", [*of("commands"), *of("cluster")], ids=str)
def test_every_line_of_commands_is_one_that_is_run(block: Shown) -> None:
    """test_commands.py and test_programs.py run what begins so, tests/faults/test_cluster.py the cluster."""
    starts = ("pip", "nox", "python -m bench") + (("export", "ray") if _rules.of_block(block) == "cluster" else ())
    for line in commands(block):
        assert line.startswith(starts), f"`{line}` is not executed by any test"
        if COMMAND.match(line):
            assert _rules.command_of(" ".join(words_of(line))), f"`{line}` is no command"


@pytest.mark.parametrize("block", of("suite"), ids=str)
def test_a_suite_loads_and_plans_over_all_of_its_cells(block: Shown, tmp_path: Path) -> None:
    """A plan reads no images: CIFAR's files are there in name only."""
    (tmp_path / "cifar-10-batches-py").mkdir()
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        (tmp_path / "cifar-10-batches-py" / name).touch()
    (tmp_path / "my.toml").write_text(block.text)
    planned = plan.plan([suite.load(str(tmp_path / "my.toml"))], data=tmp_path, device="cpu")
    assert planned.cells
    assert [cell.skipped for cell in planned.cells if cell.key is None] == []


@pytest.mark.parametrize("block", of("suite"), ids=str)
def test_a_suite_runs_in_small(block: Shown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its attacks, defenses, lengths, training and filters over few scanned digits."""
    monkeypatch.chdir(tmp_path)
    Path("my.toml").write_text(block.text)
    printed = done(smaller(["run", "--suite", "my.toml"], BLOCK))
    assert re.search(r"^Trials: \d+ ok( \(\d+ of them collapsed, see the boards\))?\.", printed, re.MULTILINE)


def test_every_block_of_python_and_toml_is_a_rule_s() -> None:
    """The collected cases are all there are: a pattern that finds nothing tests nothing."""
    assert len(all_blocks()) >= 7
    assert {_rules.of_block(block) for block in all_blocks()} >= {"suite", "python", "commands", "cluster", "boards"}
