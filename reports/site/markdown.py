"""The main boards of published runs as Markdown, for the repository: `reports/results/README.md`."""

from __future__ import annotations

from collections.abc import Iterator

from bench.engine.runs import LATEST
from bench.engine.store import Store
from reports.arrange import Layout, arranged
from reports.board import Board
from reports.render import as_text, for_people, plain
from reports.site.overall import attacks_table, defenses_table, detectors_table
from reports.site.published import Published, published
from reports.site.tables import Table

EXCERPT = ("Attacks", "t-mAP after each defense")  # titles of boards
MAIN = ("attacks", "defenses", "input-detectors", "model-detectors", "data-filters", "purifications")
HEAD = """\
# Results

This page is generated from the bundles in [bench/reference](../../bench/reference).

- `python -m bench leaderboard --store reference` prints these boards, `python -m bench verify --store reference`
  computes their numbers again, `python -m bench compare reference runs` compares your run with them.
- `python -m bench site pages` writes a web site with a page per attack, defense, method and data set.
- `python -m bench merge` adds a bundle; [CONTRIBUTING.md](../../CONTRIBUTING.md#submitting-results) says how to submit
  one.

How to read it:

- **t-mAP** is how well triggered queries retrieve the attacker's target. An attack works if t-mAP is far above the
  control, t-mAP of the clean model under the same trigger.
- **own-mAP** is how well triggered queries retrieve their own class. A defense works if it brings own-mAP back.
- Compare rows of one board, not numbers of different runs. `python -m bench explain t-mAP` explains a number.
"""


def document(store: Store) -> str:
    """The document."""
    runs = published(store)
    parts = [HEAD]
    for table in filter(None, [attacks_table(runs), defenses_table(runs), detectors_table(runs)]):
        parts += [f"## {table.title}\n", _table(table), *(f"{note}\n" for note in table.notes)]
    for run in runs:
        parts += _run(run)
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def excerpt(store: Store, suite: str) -> str:
    """The boards of the latest run of a suite that the first page of the repository shows, as the run prints them."""
    shown = published(store, suite=suite, run=LATEST)[0]
    first, second = for_people(arranged([_board(shown, title) for title in EXCERPT], Layout()), parameters=False)
    whole, rows = plain(first).rstrip(), plain(second, [""]).rstrip()  # the other notes stand in the document
    return f"```\n{whole}\n\n{rows}\n```\n\nComputed on {shown.facts['machine']}.\n"


def _board(run: Published, title: str) -> Board:
    return next(board for board in run.boards if board.title == title)


def _run(run: Published) -> Iterator[str]:
    yield f"## {run.title}\n"
    yield "".join(f"- {sentence}\n" for sentence in run.summary.sentences)
    yield "\n| | |\n| --- | --- |\n" + "".join(f"| {name} | {_cell(text)} |\n" for name, text in run.facts.items())
    yield ""
    largest = {one.context.place for one in run.settings[:1]}
    shown = [
        board for board in run.boards
        if board.kind in MAIN and board.basis is not None and board.basis.context.place in largest
    ]  # fmt: skip
    if run.settings[1:]:
        yield f"The boards of the largest of {len(run.settings)} settings:\n"
    yield as_text(shown, "markdown", Layout()).replace("\n## ", "\n### ").replace("\n# ", "\n### ")


def _table(table: Table) -> str:
    rows = [[_cell(cell.text) for cell in row] for row in table.rows]
    heads = [_cell(" ".join(filter(None, [head.name, head.below and f"({head.below})"]))) for head in table.heads]
    return "\n".join(f"| {' | '.join(line)} |" for line in (heads, ["---"] * len(heads), *rows))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
