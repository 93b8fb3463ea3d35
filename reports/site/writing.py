"""Writes the site: pages, the page of each run, and downloads. Equal results give equal files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd

from bench.api.errors import UserError
from bench.engine.store import Store
from reports import html_report, render, tidy
from reports.board import Board
from reports.figures import write
from reports.page.layout import ASSETS
from reports.render import WHOLE
from reports.site.pages import (
    TITLES,
    attacks_table,
    card_line,
    component_page,
    component_path,
    defenses_table,
    glossary,
    run_path,
    table_of,
)
from reports.site.published import Published, components_of, published

MARK = "site.json"  # in a folder that holds a site: the files of the site


def draw(store: Store, folder: Path) -> str:
    """Write the site of a store, bundle or collection into a folder; returns a summary.

    UserError: the folder holds something else, or a file cannot be written.
    """
    earlier = files_of(folder)
    runs = published(store)
    site = _Site(folder, runs)
    for run in runs:
        site.run(run, store)
    for axis, names in components_of(runs).items():
        for name in names:
            site.page(
                component_path(axis, name), "component", f"{name} · {axis}", page=component_page(axis, name, runs)
            )
    site.page("glossary.html", "glossary", "Glossary", sections=list(glossary()))
    front = [attacks_table(runs), defenses_table(runs)]
    said = {run.name: run.summary.sentences for run in runs}
    site.page("index.html", "front", "Results", tables=front, sentences=said)
    site.put(MARK, json.dumps({"hashdoor_site": 1, "files": sorted(site.files)}, indent=1).encode())
    old = sorted(set(earlier) - set(site.files))
    left = f"; {len(old)} files of an earlier site are still there, for example {old[0]}" if old else ""
    return f"{len(runs)} runs, {len(site.files)} files, {site.size / 1e6:.1f} MB{left}"


def files_of(folder: Path) -> list[str]:
    """The files of the site that is in a folder; none if it is empty or new. UserError if it holds something else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return []
    try:
        found = json.loads((folder / MARK).read_text(encoding="utf-8"))
        return [str(name) for name in found["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"'{folder}' holds other files and no site of HashDoor", "give an empty or a new folder"
        ) from None


class _Site:
    """The files of a site. files: paths below the folder. size: bytes."""

    def __init__(self, folder: Path, runs: Sequence[Published]) -> None:
        self._folder, self._runs = folder, runs
        self.files: list[str] = []
        self.size = 0

    def put(self, path: str, content: bytes) -> None:
        """Write a file."""
        self._made(path)
        write(self._folder / path, content)
        self._wrote(path)

    def _made(self, path: str) -> None:
        try:
            (self._folder / path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"'{self._folder}' cannot be written ({error.strerror})", "give another folder") from None

    def _wrote(self, path: str) -> None:
        self.files.append(path)
        self.size += (self._folder / path).stat().st_size

    def page(self, path: str, template: str, title: str, **given: Any) -> None:
        """Write a page from the template site_<template>.html.j2. Links are relative to the page."""
        up = "../" * path.count("/")
        text = self._environment.get_template(f"site_{template}.html.j2").render(
            title=title, up=up, runs=self._runs, run_path=run_path, table_of=table_of, style=self._style,
            components={TITLES[axis]: [(name, component_path(axis, name), card_line(axis, name)) for name in names]
                        for axis, names in components_of(self._runs).items() if names},
            **given,
        )  # fmt: skip
        self.put(path, text.encode())

    @cached_property
    def _style(self) -> str:
        return "".join((ASSETS / name).read_text(encoding="utf-8") for name in ("report.css", "site.css"))

    @cached_property
    def _environment(self) -> Any:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined

        return Environment(
            loader=FileSystemLoader(ASSETS), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
            lstrip_blocks=True,
        )  # fmt: skip

    def run(self, run: Published, store: Store) -> None:
        """The page of a run, which is that of `bench report`, and its downloads."""
        path = run_path(run)
        self._made(path)
        html_report.draw(store, self._folder / path, run.data.results)
        self._wrote(path)
        found = {name: content for each in (_boards(run.boards), _trials(run)) for name, content in each.items()}
        for name, content in found.items():
            self.put(f"data/{run.name}/{name}", content)
        self.page(f"data/{run.name}/index.html", "data", f"Data of {run.title}", run=run, names=sorted(found))


def _boards(boards: Sequence[Board]) -> dict[str, bytes]:
    return {
        name: text.encode()
        for format_ in ("csv", "json")
        for name, text in render.files(boards, format_, WHOLE).items()
    }


def _trials(run: Published) -> Mapping[str, bytes]:
    """The frames of `reports.load`; Parquet too if pyarrow is installed."""
    found: dict[str, bytes] = {}
    for kind in tidy.KINDS:
        table = tidy.tidy(run.data.results, kind)
        if table.empty:
            continue
        found[f"{kind}.csv"] = table.to_csv(index=False).encode()
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
