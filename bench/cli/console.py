"""The terminal. Names come from strangers' suites, stores and archives: none may steer it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from bench.api.untrusted import strip_controls_multiline


class SafeConsole(Console):
    """rich's console, which writes its own escape sequences and nobody else's."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else strip_controls_multiline(text), style, control)


def console(**options: Any) -> SafeConsole:
    """Standard output, or with `stderr=True` standard error, without guessed colours and wrapping of its own."""
    return SafeConsole(**{"highlight": False, **options})


def echo(text: str) -> None:
    """Lines as they are, but for what would steer a terminal."""
    typer.echo(strip_controls_multiline(text))
