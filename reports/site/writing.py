"""Writes the site: pages, the page of each run, and downloads. Equal results give equal files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd

from bench.api.untrusted import strip_controls
from bench.engine.store import Store
from reports import html_report, render, tidy
from reports.page.layout import ASSETS, card_of, templates
from reports.render import WHOLE
from reports.site import glossary
from reports.site.components import component_page
from reports.site.folder import write_site
from reports.site.overall import attacks_table, defenses_table, detectors_table, runs_table
from reports.site.published import Published, components_of, published
from reports.site.tables import component_path

TITLES = {"attack": "Attacks", "defense": "Defenses", "method": "Hashing methods", "backbone": "Backbones",
          "dataset": "Data sets"}  # fmt: skip


def draw(store: Store, folder: Path) -> str:
    """Write the site of a store, bundle or collection into a folder; returns a summary.

    UserError: the folder holds something else, or a file cannot be written.
    """
    runs = published(store)
    files = dict(_Site(runs).files(store))
    left = write_site(folder, files)
    size = sum(map(len, files.values())) / 1e6
    more = f"; {len(left)} changed files of an earlier site are still there, for example {left[0]}" if left else ""
    return f"{len(runs)} runs, {len(files)} files, {size:.1f} MB{more}"


class _Site:
    """The pages of runs."""

    def __init__(self, runs: Sequence[Published]) -> None:
        self._runs = runs
        self._found = components_of(runs)

    def files(self, store: Store) -> Iterator[tuple[str, bytes]]:
        """The path from the folder, and the content, of each file."""
        for run in self._runs:
            yield run.path, html_report.text_of(store, run.data.results, home="../index.html")[0].encode()
            downloads = {**_boards(run), **_trials(run)}
            yield from ((f"data/{run.name}/{name}", content) for name, content in downloads.items())
            yield self._page(
                f"data/{run.name}/index.html", "data", f"Data of {run.title}", run=run, names=sorted(downloads),
                parquet=find_spec("pyarrow") is not None,
            )  # fmt: skip
        for axis, names in self._found.items():
            for name in names:
                page = component_page(axis, name, self._runs)
                yield self._page(component_path(axis, name), "component", f"{page.name} · {page.kind}", page=page)
        yield self._page(
            "glossary.html", "glossary", "Glossary",
            words=glossary.words(), sections=list(glossary.metrics()), columns=list(glossary.columns()),
        )  # fmt: skip
        boards = [attacks_table(self._runs), defenses_table(self._runs), detectors_table(self._runs)]
        yield self._page(
            "index.html", "front", "Results", tables=[one for one in boards if one], all_runs=runs_table(self._runs)
        )

    def _page(self, path: str, template: str, title: str, **given: Any) -> tuple[str, bytes]:
        """A page of the template site_<template>.html.j2. Links are relative to the page."""
        text = templates().get_template(f"site_{template}.html.j2").render(
            title=title, up="../" * path.count("/"), runs=self._runs, style=self._style, components=self._components,
            here=path, **given,
        )  # fmt: skip
        return path, text.encode()

    @cached_property
    def _components(self) -> Mapping[str, Sequence[tuple[str, str, str]]]:
        """Name, path and a sentence of each component with a result."""
        return {
            TITLES[axis]: [
                (strip_controls(name), component_path(axis, name), card_of(axis, name)["sentence"]) for name in names
            ]
            for axis, names in self._found.items()
            if names
        }

    @cached_property
    def _style(self) -> str:
        return "".join((ASSETS / name).read_text(encoding="utf-8") for name in ("report.css", "site.css"))


def _boards(run: Published) -> dict[str, bytes]:
    return {
        f"board-{name}": text.encode()
        for format_ in ("csv", "json")
        for name, text in render.files(run.boards, format_, WHOLE).items()
    }


def _trials(run: Published) -> Mapping[str, bytes]:
    """The frames of `reports.load`, with run and commit; Parquet too if pyarrow is installed."""
    found: dict[str, bytes] = {}
    for kind in tidy.KINDS:
        table = tidy.tidy(run.data.results, kind)
        if table.empty:
            continue
        table = table.assign(run=run.manifest.id, commit=[run.commits.get(key, "") for key in table["key"]])
        found[f"{kind}.csv"] = render.csv_of_table(table).encode()
        found[f"{kind}.json"] = table.to_json(orient="records", indent=1, double_precision=15).encode()
        if find_spec("pyarrow") is not None:
            buffer = BytesIO()
            _plain(table).to_parquet(buffer, index=False)
            found[f"{kind}.parquet"] = buffer.getvalue()
    return found


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    """A frame whose columns of mixed objects are texts, since a Parquet column has one type."""
    found = table.copy()
    for name in table:
        if table[name].dtype == object and len(set(table[name].map(type))) > 1:
            found[name] = [None if pd.isna(value) else str(value) for value in table[name]]
    return found
