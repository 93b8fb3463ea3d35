"""Printing. Names come from the stores, archives and plugins of strangers: no control sequence in them is printed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from bench.api.untrusted import strip_controls, strip_controls_multiline

T = TypeVar("T")
TRAILING = re.compile(r" +$", re.MULTILINE)


class SafeConsole(Console):
    """A console of rich that removes control sequences from the texts that it prints."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else strip_controls_multiline(text), style, control)


def console(**options: Any) -> SafeConsole:
    """Standard output, or with `stderr=True` standard error, without rich's own highlighting of numbers and paths."""
    return SafeConsole(**{"highlight": False, **options})


def echo(text: str) -> None:
    """Print lines without wrapping and without control sequences."""
    typer.echo(strip_controls_multiline(text))


def line(text: str, *, out: Console | None = None) -> None:
    """Print one line: a pipe gets it as it is, a terminal wraps it between words. out: default standard output."""
    out = console() if out is None else out
    out.print(Text(strip_controls(text)), soft_wrap=not out.is_terminal)


def watched(items: Iterable[T], what: str, count: int | None = None) -> Iterator[T]:
    """The items one by one, with a bar on standard error if it is a terminal. count: for items without a length."""
    from rich.progress import track

    out = console(stderr=True)
    yield from track(items, what, count, console=out, transient=True, disable=not out.is_terminal)


def write(renderable: RenderableType) -> None:
    """Print a table or text that is wrapped between words, without blanks at the end of lines."""
    out = console()
    with out.capture() as captured:
        out.print(renderable)
    out.file.write(TRAILING.sub("", captured.get()))


def say(text: str) -> None:
    """Print a paragraph that is wrapped between words."""
    write(Text(strip_controls_multiline(text)))
