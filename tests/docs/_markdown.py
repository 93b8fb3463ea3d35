"""What the documents show as code: fenced blocks, and words in backticks. Read when the tests are collected."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from tests.docs import generate
from tests.docs.generate import ROOT

EXECUTED = (*generate.DOCUMENTS, "CONTRIBUTING.md", "SECURITY.md")  # of these every block is run
DOCUMENTS = (*EXECUTED, "CHANGELOG.md", "bench/README.md", "bench/METHODOLOGY.md", "tests/README.md")
FENCE = re.compile(r"^(```+)[ ]*(\w*)[^\n]*\n(.*?)^\1[ ]*$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)


@dataclass(frozen=True)
class Shown:
    """A fenced block (`language` may be empty) or words in backticks (no language), and where they stand."""

    document: str
    line: int
    section: str
    text: str
    language: str | None = None

    def __str__(self) -> str:
        return f"{self.document}:{self.line}: {self.text.splitlines()[0][:60]}"


@cache
def read(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def _blank(found: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", found.group())


@cache
def prose(document: str) -> str:
    """The document with its blocks and generated parts left blank."""
    return FENCE.sub(_blank, generate.PART.sub(_blank, read(document)))


def _place(document: str, at: int) -> tuple[int, str]:
    """Line and heading of a position; a `#` inside a block is no heading."""
    before = prose(document)[:at]
    headings = re.findall(r"^#+ (.*)$", before, re.MULTILINE)
    return before.count("\n") + 1, headings[-1] if headings else ""


def blocks(document: str) -> list[Shown]:
    return [
        Shown(document, *_place(document, found.start()), found.group(3), found.group(2))
        for found in FENCE.finditer(read(document))
    ]


def all_blocks() -> list[Shown]:
    return [shown for document in EXECUTED for shown in blocks(document)]


def all_spans() -> list[Shown]:
    """Words in backticks, each text once, where it stands first."""
    first: dict[str, Shown] = {}
    for document in EXECUTED:
        for found in SPAN.finditer(prose(document)):
            text = " ".join(found.group(2).replace("\\|", "|").split())
            first.setdefault(text, Shown(document, *_place(document, found.start()), text))
    return [*first.values()]


def section(document: str, heading: str) -> str:
    """The text under a heading, up to the next one."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", prose(document), re.MULTILINE | re.DOTALL)
    assert found, f"{document} has no section '{heading}'"
    return found.group(1)
