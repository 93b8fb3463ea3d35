"""Every fenced block of the documents is executed: as a suite, as Python, as commands, or as what a run prints.

The Slurm script is only parsed: it needs a cluster.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from bench.config import suite
from bench.graph import planner
from tests.docs import _shown
from tests.docs._markdown import Shown, all_blocks
from tests.docs._shown import blocks_of as of
from tests.docs._small import BLOCK, commands, done, smaller, with_fewer_steps

COMMAND = re.compile(r"python -m bench ")


@pytest.mark.parametrize("block", all_blocks(), ids=str)
def test_every_block_is_executed_by_a_test(block: Shown) -> None:
    assert _shown.kind_of(block), (
        f"{block.document}:{block.line}: this block is not executed by any test: mark it ```toml or ```python, let"
        f" its lines begin with one of {', '.join(map(repr, _shown.SHELL))}, or give it a rule in tests/docs/_shown.py"
    )


@pytest.mark.parametrize("block", [*of("commands"), *of("cluster")], ids=str)
def test_every_line_of_commands_is_one_that_is_run(block: Shown) -> None:
    """test_commands.py and test_programs.py run what begins so, tests/faults/test_cluster.py the cluster."""
    starts = ("pip", "nox", "python -m bench") + (("export", "ray") if _shown.kind_of(block) == "cluster" else ())
    for line in commands(block):
        assert line.startswith(starts), f"`{line}` is not executed by any test"
        if COMMAND.match(line):
            assert _shown.command_of(line), f"`{line}` is no command"


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


@pytest.mark.long
@pytest.mark.parametrize("block", [pytest.param(one, marks=_costly(one)) for one in of("suite")], ids=str)
def test_a_suite_runs_in_small(block: Shown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its attacks, defenses, lengths, training and filters over few scanned digits."""
    given = with_files(block, tmp_path, monkeypatch)  # files fit the suite's own network and length
    Path("my.toml").write_text(with_fewer_steps(block.text))
    axes = {axis: value for axis, value in BLOCK.items() if not given or axis not in {"backbones", "bits"}}
    printed = done(smaller(["run", "--suite", "my.toml"], axes))
    assert re.search(r"^Trials: \d+ ok( \(\d+ of them collapsed, see the boards\))?\.", printed, re.MULTILINE)


@pytest.mark.parametrize("block", of("slurm"), ids=str)
def test_a_batch_script_is_read_by_bash_and_starts_the_cluster_of_the_section(block: Shown) -> None:
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
    (cluster,) = of("cluster")
    for start in ("ray start --head", "ray start --address=", "python -m bench run --suite full --address "):
        assert start in block.text
        assert start in cluster.text


def test_every_kind_of_block_is_found() -> None:
    """The collected cases are all there are: a pattern that finds nothing tests nothing."""
    assert {_shown.kind_of(block) for block in all_blocks()} >= {
        "suite", "python", "commands", "cluster", "boards", "slurm",
    }  # fmt: skip
