"""The main boards of published runs as Markdown, for the repository: `reports/results/README.md`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.engine.store import Store
from reports.arrange import Layout
from reports.board import Board
from reports.render import as_text
from reports.site.pages import Table, attacks_table, defenses_table
from reports.site.published import Published, published

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
    for table in (attacks_table(runs), defenses_table(runs)):
        parts += [f"## {table.title}\n", _table(table), *(f"{note}\n" for note in table.notes)]
    for run in runs:
        parts += _run(run)
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _run(run: Published) -> Iterator[str]:
    yield f"## {run.title}\n"
    yield "".join(f"- {sentence}\n" for sentence in run.summary.sentences)
    yield "\n| | |\n| --- | --- |\n" + "".join(f"| {name} | {_cell(text)} |\n" for name, text in run.facts.items())
    yield ""
    shown: Sequence[Board] = [board for board in run.boards if board.kind in MAIN]
    yield as_text(shown, "markdown", Layout()).replace("\n## ", "\n### ").replace("\n# ", "\n### ")


def _table(table: Table) -> str:
    rows = [[_cell(cell.text) for cell in row] for row in table.rows]
    heads = [name for name, _ in table.heads]
    return "\n".join(f"| {' | '.join(line)} |" for line in (heads, ["---"] * len(heads), *rows))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
