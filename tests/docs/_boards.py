"""Boards as a run prints them, and as the README shows them."""

from __future__ import annotations

import re

from tests.docs._shown import RULER

NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)*")
Board = tuple[str, list[str], list[list[str]], list[str]]  # kind and setting, columns, rows, sentences below it


def boards(text: str) -> dict[str, Board]:
    """Printed boards by kind. A column that the excerpt cuts off is `...`."""
    found: dict[str, Board] = {}
    lines = text.splitlines()
    for at, line in enumerate(lines):
        if not RULER.match(line.removesuffix(" ...")):
            continue
        columns = [word for word in re.split(r" {2,}| (?=\.\.\.$)", lines[at - 1].strip()) if word != "..."]
        body = lines[at + 1 : next((n for n in range(at, len(lines)) if not lines[n].strip()), len(lines))]
        edges = [match.span() for match in re.finditer(r"-+", line)]
        rows = [[row[start:end].strip() for start, end in edges] for row in body]
        below = []
        for number in range(at + 2 + len(body), len(lines)):
            if (
                not lines[number].strip()
                or lines[number].startswith("Trials: ")
                or RULER.match("".join(lines[number + 3 : number + 4]))
            ):
                break  # the caption's end, or no caption but what follows
            below.append(lines[number].strip())
        title = lines[at - 3]
        found[title.partition(" · ")[0]] = (title, columns, rows, below)
    return found


def shape(sentence: str) -> str:
    """A sentence without its numbers and its processor, and a list of numbers as one."""
    return re.sub(r"#(, #)+", "#", NUMBER.sub("#", re.sub(r"CPU \([^)]*\)", "CPU", sentence)))
