"""What the documents show, by the test that executes it."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from typing import Any

import typer

from bench.cli.app import app
from tests.docs._markdown import Shown, all_blocks, all_spans
from tests.docs._small import commands, words_of

SHELL = ("pip ", "nox", "export ", "ray ", "python -m bench")  # how a line of commands begins
RULER = re.compile(r"^-{3,}(  -{3,})+$", re.MULTILINE)  # below the head of a printed board


@cache
def parsers() -> dict[str, Any]:
    """The command line's own parser of each command."""
    return dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def kind_of(block: Shown) -> str | None:
    """What a fenced block is: suite, python, slurm, commands, cluster, boards, or None."""
    if block.language in {"toml", "python", "bash"}:
        return {"toml": "suite", "python": "python", "bash": "slurm"}[block.language]
    if block.language:
        return None
    shown = commands(block)
    if shown and all(line.startswith(SHELL) for line in shown):
        return "cluster" if any(line.startswith("ray ") for line in shown) else "commands"
    return "boards" if RULER.search(block.text) else None


def blocks_of(kind: str) -> list[Shown]:
    return [block for block in all_blocks() if kind_of(block) == kind]


def command_of(text: str) -> list[str] | None:
    """The words after `python -m bench`, if the text is a command of ours."""
    for start in ("python -m bench ", "bench "):
        if text.startswith(start) and (words := words_of(text.removeprefix(start))) and words[0] in parsers():
            return words
    return None


def shown() -> list[str]:
    """The lines of blocks and the words in backticks that run something, in the documents' order."""
    lines = [line for block in blocks_of("commands") for line in commands(block)]
    words = [one.text for one in all_spans() if command_of(one.text) or one.text.split()[0] in {"pip", "nox"}]
    return [*dict.fromkeys([*lines, *words])]


def all_commands() -> list[list[str]]:
    """Every command of ours that is shown, each once."""
    found = [command_of(text) for text in shown()]
    return [list(words) for words in dict.fromkeys(tuple(words) for words in found if words)]


def fragments() -> list[str]:
    """Pieces of suites in backticks: a value `{ ... }`, a table with a key, or `key = value`."""
    return [one.text for one in all_spans() if is_toml(one.text)]


def is_toml(text: str) -> bool:
    try:
        tomllib.loads(as_document(text))
    except tomllib.TOMLDecodeError:
        return False
    return bool(re.match(r"[\[{]|\w+ = ", text))


def as_document(text: str) -> str:
    """`{ ... }` is a value, `[table] key = value` two lines."""
    if text.startswith("{"):
        return f"value = {text}"
    return re.sub(r"^(\[[\w.]+\]) ", r"\1\n", text)


def made() -> list[tuple[str, str]]:
    """Kind and name of what the documents write with `bench new`: the small folder is made with it."""
    return [(words[1], words[2]) for words in all_commands() if words[0] == "new" and words[2:] and words[2].islower()]
