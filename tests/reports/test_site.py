"""The static site of published results, made from those that the package ships."""

from __future__ import annotations

import csv
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urldefrag

import pandas as pd
import pytest

from bench.engine.collection import opened
from bench.engine.record_cache import RecordCache
from reports import frame
from reports.board_registry import BoardData, make_boards
from reports.cells import words
from reports.render import for_people
from reports.site import writing

SUITE = "quick"
pytestmark = pytest.mark.long  # a site takes half a minute


class Page(HTMLParser):
    """Links, ids, texts of cells and whatever a browser would load."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.loaded: list[str] = []
        self.rows: list[list[str]] = []
        self._cell = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "a":
            self.links.append(given["href"] or "")
        if given.get("id"):
            self.ids.add(str(given["id"]))
        self.loaded += [str(given[name]) for name in ("src", "srcset", "data") if given.get(name)]
        self.loaded += [str(given["href"])] if tag == "link" else []
        if tag == "tr":
            self.rows.append([])
        if tag == "td" or (tag == "th" and given.get("scope") == "row"):
            self.rows[-1].append("")
            self._cell = True

    def handle_endtag(self, tag: str) -> None:
        self._cell = self._cell and tag not in {"td", "th"}

    def handle_data(self, data: str) -> None:
        if self._cell:
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def reference():
    return opened(Path("reference"))


@pytest.fixture(scope="module")
def trials(reference) -> pd.DataFrame:
    return frame.read(reference, suite=SUITE).trials


@pytest.fixture(scope="module")
def site(reference, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "pages"
    writing.draw(reference, folder)
    return folder


def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html")}


def test_every_link_leads_somewhere(site):
    found = pages(site)
    ids = {path: page.ids for path, page in found.items()}
    for path, page in found.items():
        assert all(loaded.startswith("data:") for loaded in page.loaded), "a page needs no other file"
        for link in page.links:
            if link.startswith(("https://", "http://")):
                continue  # of a paper, in a card
            where, anchor = urldefrag(link)
            target = (path.parent / where).resolve() if where else path
            assert target.is_file(), f"{path}: {link}"
            assert not anchor or anchor in ids[target], f"{path}: {link}"


def test_every_component_with_a_result_has_a_page(site, reference):
    trials = frame.read(reference, run="all").trials
    front = Page(site / "index.html").links
    for axis, folder in (("attack", "attacks"), ("defense", "defenses"), ("method", "methods"),
                         ("dataset", "datasets"), ("backbone", "backbones")):  # fmt: skip
        names = {spec.name for spec in trials[f"{axis}_spec"]} - {"none"}
        assert {path.stem for path in (site / folder).iterdir()} == names
        assert {f"{folder}/{name}.html" for name in names} <= set(front)


def test_the_front_page_has_the_means_of_the_trials(site, trials):
    rows = {row[0]: row[1:] for row in Page(site / "index.html").rows if row}
    plain = trials[trials["defense"] == "none"]
    for name in ("badnets", "ciba", "badhash", "blend", "darkhash"):
        mine = plain[[spec.name == name for spec in plain["attack_spec"]]]
        assert f"{mine['t_map'].mean():.3f} ({mine['t_map_control'].mean():.3f})" in rows[name]


def test_what_is_left_of_an_attack_is_computed_from_the_trials(site, trials):
    """Badhash keeps more of its gain in t-mAP than of its loss of own-mAP, blend more of its loss."""
    rows = {
        row[0]: row[1:]
        for row in Page(site / "defenses" / "fine_pruning.html").rows
        if len(row) == 5 and "%" in row[1] and any(SUITE in cell for cell in row)
    }
    mean = trials.assign(name=[spec.name for spec in trials["attack_spec"]]).groupby(["name", "defense"]).mean(
        numeric_only=True
    )  # fmt: skip
    larger = set()
    for name, (left, *_) in rows.items():
        before, after = mean.loc[name, "none"], mean.loc[name, "fine_pruning"]
        shares = {
            metric: (after[metric] - before[f"{metric}_control"]) / (before[metric] - before[f"{metric}_control"])
            for metric in ("t_map", "own_map")
            if abs(before[metric] - before[f"{metric}_control"]) >= 0.1
        }
        assert left == f"{100 * max(0, *shares.values()) if len(shares) > 1 else 100 * shares['t_map']:.0f} %"
        larger.add(max(shares, key=lambda metric: shares[metric]))
    assert set(rows) == {"badnets", "blend", "badhash", "ciba", "darkhash"}
    assert larger == {"t_map", "own_map"}


def test_numbers_on_pages_are_those_of_the_boards(site, reference):
    """Each cell of the rows of an attack and of a defense, on all boards of the leaderboard."""
    data = BoardData(frame.read(reference, suite=SUITE), RecordCache(reference))
    for name, page in (("badnets", "attacks/badnets.html"), ("strip", "defenses/strip.html")):
        shown = {tuple(row) for row in Page(site / page).rows}
        expected = [
            tuple(texts[column][at] for column in board.compact_columns)
            for board in for_people(make_boards("leaderboard", data))
            if (texts := words(board))
            for at in range(len(board.table))
            if name in {texts[column][at] for column in board.index if column in texts}
        ]
        assert len(expected) > 5
        assert set(expected) <= shown


def test_pages_name_machine_and_commit(site, trials):
    text = (site / "attacks" / "badnets.html").read_text(encoding="utf-8")
    assert trials["computed_on"].iloc[0] in text
    (row,) = [row for row in Page(site / "attacks" / "badnets.html").rows if row and row[0] == SUITE and len(row) == 13]
    assert re.fullmatch("[0-9a-f]{12}", row[-3])
    assert row[-2] == "verified"


def test_downloads_hold_the_results(site, trials):
    folder = site / "data" / SUITE
    with (folder / "board-attacks.csv").open(encoding="utf-8") as file:
        rows = {row["attack"]: row for row in csv.DictReader(file)}
    mine = trials[(trials["attack"] == "badnets") & (trials["defense"] == "none")]
    assert float(rows["badnets"]["t-mAP"]) == pytest.approx(mine["t_map"].mean())
    held = json.loads((folder / "trials.json").read_text(encoding="utf-8"))
    assert len(held) == len(pd.read_csv(folder / "trials.csv")) == (trials["defense"] == "none").sum()
    pytest.importorskip("pyarrow")
    assert pd.read_parquet(folder / "trials.parquet")["t_map"].tolist() == pytest.approx(
        [row["t_map"] for row in held], abs=1e-14
    )


def test_the_glossary_explains_every_number(site):
    from bench.metrics import METRICS

    assert set(METRICS) <= Page(site / "glossary.html").ids


def test_a_site_is_written_again_with_equal_bytes(reference, site, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(site, again)
    writing.draw(reference, again)
    names = sorted(path.relative_to(site) for path in site.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert all((site / name).read_bytes() == (again / name).read_bytes() for name in names)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium: apt-get install chromium")
def test_pages_fit_a_phone_and_load_nothing(site):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        some = ("attacks/badnets.html", "defenses/strip.html", "datasets/digits.html", f"data/{SUITE}/index.html")
        for path in (*site.glob("*.html"), *(site / one for one in some)):
            said, asked = list[str](), list[str]()
            tab = browser.new_page(viewport={"width": 390, "height": 800})
            tab.on("console", lambda message, said=said: said.append(message.text))
            tab.on("request", lambda request, asked=asked: asked.append(request.url))
            tab.on("pageerror", lambda error, said=said: said.append(str(error)))
            tab.goto(path.as_uri())
            for details in tab.locator("details summary").all():
                details.click()
            assert tab.evaluate("document.documentElement.scrollWidth") <= 390, path
            assert (said, asked) == ([], [path.as_uri()])
            tab.close()
        browser.close()
