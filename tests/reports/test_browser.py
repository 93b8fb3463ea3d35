"""The page in a real browser: Chromium of the system, headless, from a file, without a network."""

from __future__ import annotations

import csv
import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from PIL import Image

from bench.api import registry
from bench.engine.record_cache import RecordCache
from bench.metrics import METRICS
from reports import cells, html_report, render, summary
from reports.board import COMMON
from reports.frame import read
from tests.reports.board_data import leaderboard_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
    pytest.mark.long,
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visit:
    """An open page. said: its errors and whatever its console printed; asked: every request."""

    def __init__(self, chromium: Any, path: Path, url: str = "", **options: Any) -> None:
        options = {"viewport": {"width": 1280, "height": 900}} | options
        self.tab = chromium.new_page(**options)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.tab.set_default_timeout(5000)
        self.tab.on("console", lambda message: self.said.append(message.text))
        self.tab.on("pageerror", lambda error: self.said.append(str(error)))
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.goto(url or path.as_uri())
        self.tab.wait_for_selector("html[data-ready]")

    def board(self, title: str) -> Any:
        return self.tab.locator(".board", has=self.tab.locator("h3", has_text=re.compile(f"^{re.escape(title)}"))).first

    def column(self, board: Any, name: str) -> list[str]:
        heads = board.locator("th").all_inner_texts()
        return [texts[heads.index(name)] for texts in self.rows(board)]

    @staticmethod
    def rows(board: Any) -> list[list[str]]:
        return [row.locator("td").all_inner_texts() for row in board.locator("tbody tr").all()]


@pytest.fixture
def visit(chromium: Any, page: Path) -> Iterator[Visit]:
    found = Visit(chromium, page)
    yield found
    found.tab.close()


def test_every_chapter_renders_without_a_word_on_the_console_or_a_request(visit: Visit, store: Any) -> None:
    names = [link.get_attribute("href") for link in visit.tab.locator("nav a").all()]
    chapters = (
        "summary",
        "leaderboards",
        "strength",
        "code-geometry",
        "conventions",
        "pictures",
        "trials",
        "cards",
        "use",
    )
    assert names == [f"#{chapter}" for chapter in chapters]
    for name in names:
        box = visit.tab.locator(name).bounding_box()
        assert box["height"] > 50
    (expected, *_) = render.for_people(leaderboard_of(read(store), costs=True))
    shown = cells.words(expected)
    board = visit.board(expected.heading)
    compact = [shown[name] for name in expected.compact_columns]
    assert visit.rows(board) == [list(row) for row in zip(*compact, strict=True)]
    assert len(compact) < len(shown)
    board.locator("summary", has_text="Columns").click()
    board.locator("button", has_text="all columns").click()
    heads = board.locator("th").all_inner_texts()
    assert set(heads) == set(shown)
    assert visit.rows(board) == [list(row) for row in zip(*(shown[name] for name in heads), strict=True)]
    missing = visit.tab.locator("#missing").inner_text()
    assert "Reported beside measured" in missing
    assert "Kernel throughput" in missing
    charts = [chart for chart in visit.tab.locator(".chart svg").all() if chart.is_visible()]
    assert len(charts) > 6
    assert all(chart.bounding_box()["width"] > 300 for chart in charts)
    widths = visit.tab.evaluate("[...document.images].map((image) => image.naturalWidth)")
    assert widths
    assert all(width > 0 for width in widths)
    titles = visit.tab.locator(".chart figcaption").all_inner_texts()
    for kind in ("Code length", "Effects and costs", "Strength of attacks", "fine_pruning", "Attention", "Codes"):
        assert any(title.startswith(kind) for title in titles), kind
    assert visit.said == []
    assert [url for url in visit.asked if not url.startswith(("file:", "data:"))] == []


def test_a_column_says_what_its_metric_means(visit: Visit) -> None:
    heads = visit.board("Attacks · ").locator("th button")
    about = {head.inner_text(): head.get_attribute("title") for head in heads.all()}
    assert about["own-mAP"] == METRICS["own_map"].meaning
    assert about["attack"] == COMMON["attack"].meaning


def test_a_name_leads_to_the_card_of_its_component(visit: Visit) -> None:
    visit.board("Attacks · ").locator("a", has_text="badnets(poisons=36)").click()
    card = visit.tab.locator(".card", has_text="badnets").first
    assert card.locator("dl").is_visible()
    assert visit.tab.evaluate("document.querySelector('#card-attack-badnets').getBoundingClientRect().top") < 900


def test_columns_sort_down_up_and_back(visit: Visit) -> None:
    board = visit.board("Attacks · ")
    head = board.locator("th", has_text=re.compile("^t-mAP$"))
    before = visit.column(board, "t-mAP")
    numbers = [float(text) for text in before]
    assert len(set(numbers)) == 4
    head.click()
    assert [float(text) for text in visit.column(board, "t-mAP")] == sorted(numbers, reverse=True)
    assert head.get_attribute("aria-sort") == "descending"
    head.locator("button").press("Enter")
    assert [float(text) for text in visit.column(board, "t-mAP")] == sorted(numbers)
    head.click()
    assert visit.column(board, "t-mAP") == before
    assert head.get_attribute("aria-sort") is None
    trials = visit.board("Trials")
    trials.locator("th", has_text="attack").click()
    doses = [name for name in dict.fromkeys(visit.column(trials, "attack")) if "(" in name]
    assert doses == [f"badnets(poisons={n})" for n in (4, 12, 36)], "numbers inside names count as numbers"


def test_rows_without_a_number_stay_last(chromium: Any, stock: Any, tmp_path: Path) -> None:
    trials = [{"attack": name, "defense": "none", "target": "0", "seed": 0, "metrics": {"psnr": value}}
             for name, value in (("loud", 20.0), ("quiet", None), ("kept", 30.0))]  # fmt: skip
    made = stock(trials)
    html_report.draw(made, tmp_path / "x.html", read(made))
    visit = Visit(chromium, tmp_path / "x.html")
    board = visit.board("Attacks")
    board.locator("summary", has_text="Columns").click()
    board.locator("button", has_text="all columns").click()
    head = board.locator("th", has_text="PSNR")
    for expected in (["30.0", "20.0", "-"], ["20.0", "30.0", "-"]):
        head.click()
        assert visit.column(board, "PSNR") == expected
    visit.tab.close()


def test_filters_narrow_one_table_or_all(visit: Visit) -> None:
    board, other = visit.board("Attacks · "), visit.board("Trials")
    everything = len(visit.rows(other))
    board.locator("input[type=search]").fill("dirty-label poisons=12")
    assert visit.column(board, "attack") == ["badnets(poisons=12)"]
    assert len(visit.rows(other)) == everything
    other.locator("input[type=search]").fill("badnets gain>0.5")
    kept = zip(visit.column(other, "defense"), visit.column(other, "gain"), strict=True)
    assert [(defense.partition("(")[0], gain) for defense, gain in kept] == [
        ("none", "+0.700"), ("fine_pruning", "+0.630"), ("strip", "+0.700"), ("none", "+0.525"),
    ]  # fmt: skip
    other.locator("input[type=search]").fill("nothing<3")
    assert visit.rows(other) == []
    other.locator("input[type=search]").fill("")
    board.locator("input[type=search]").fill("")
    visit.tab.locator("#words").fill("strip")
    assert set(visit.column(other, "defense")) == {"strip"}
    assert visit.rows(board) == []
    visit.tab.locator("#words").fill("")
    assert len(visit.rows(other)) == everything
    visit.tab.locator("#setting").select_option("digits(train=200, query=60) · convnet(width=8) · csq · 12 bits")
    titles = [title.inner_text() for title in visit.tab.locator(".board h3").all() if title.is_visible()]
    assert "Trials" in titles
    assert {title.rpartition(" · ")[2] for title in titles if " · " in title} == {"12 bits"}
    charts = [chart for chart in visit.tab.locator(".chart figcaption").all() if chart.is_visible()]
    assert charts
    assert {chart.inner_text().rpartition(" · ")[2] for chart in charts} == {"12 bits", "Code length"}
    visit.tab.locator("#setting").select_option("all settings")
    other.locator("input[type=search]").fill("bits < 16")
    assert set(visit.column(other, "bits")) == {"12"}
    shown = len(visit.rows(other))
    counted = int(visit.tab.locator("#count").inner_text().split()[0])
    other.locator("input[type=search]").fill("")
    assert int(visit.tab.locator("#count").inner_text().split()[0]) == counted + everything - shown


def test_a_row_opens_its_trial_with_the_command_that_repeats_it(visit: Visit, store: Any) -> None:
    trials = read(store).trials
    trial = trials[(trials["attack"] == "badnets(poisons=36)") & (trials["defense"] == "strip")].iloc[0]
    visit.tab.locator("a", has_text=trial["key"][:8]).first.click()
    dialog = visit.tab.locator("#trial")
    text = dialog.inner_text()
    assert f"Trial {trial['key'][:8]}" in text
    assert "--only 'attack=badnets(poisons=36)' --only defense=strip" in dialog.locator("code").first.inner_text()
    assert f"t-mAP\t{trial['t_map']:.3f}" in text
    assert "entropy *" in text
    assert METRICS["t_map"].meaning in text
    place = list(trials["key"]).index(trial["key"])
    assert visit.tab.url.endswith(f"#trial-{place}")
    visit.tab.go_back()
    dialog.wait_for(state="hidden")  # the browser's Back closes it
    visit.tab.go_forward()
    dialog.wait_for(state="visible")
    dialog.locator(".close").click()
    dialog.wait_for(state="hidden")
    row = visit.board("Trials").locator("tbody tr").first
    row.locator("td").first.click()
    dialog.wait_for(state="visible")
    visit.tab.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    assert visit.said == []


def test_short_names_do_not_part_charts_from_their_setting(chromium: Any, stock: Any, tmp_path: Path) -> None:
    trials = [{"attack": "loud", "defense": d, "target": "0", "seed": 0, "backbone": b}
             for b in ("net(width=16)", "other") for d in ("none", "repair")]  # fmt: skip
    made = stock(trials)
    html_report.draw(made, tmp_path / "x.html", read(made))
    visit = Visit(chromium, tmp_path / "x.html")
    visit.tab.locator("#setting").select_option("toy · net · csq · 32 bits")
    titles = [chart.inner_text() for chart in visit.tab.locator(".chart figcaption").all() if chart.is_visible()]
    kinds = ("Attacks without a defense", "Defenses against attacks", "Effects and costs of defenses")
    assert titles == [f"{kind} · toy · net · csq · 32 bits" for kind in kinds]
    visit.tab.close()


def test_names_without_end_do_not_widen_the_page(chromium: Any, stock: Any, tmp_path: Path) -> None:
    trials = [{"attack": f"loud({'x' * 300}={i})", "defense": d, "target": "0", "seed": 0}
             for i in (1, 2) for d in ("none", "repair")]  # fmt: skip
    made = stock(trials, suite="s" * 300)
    html_report.draw(made, tmp_path / "x.html", read(made))
    visit = Visit(chromium, tmp_path / "x.html", viewport={"width": 360, "height": 800})
    assert visit.tab.evaluate("document.documentElement.scrollWidth") <= 360
    visit.tab.close()


def test_paper_shows_whole_tables_and_open_cards(visit: Visit) -> None:
    visit.tab.set_viewport_size({"width": 794, "height": 1123})  # A4
    visit.tab.emulate_media(media="print")
    visit.tab.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    seen = visit.tab.evaluate("[...document.querySelectorAll('.scroll')].map((box) => getComputedStyle(box).overflowX)")
    assert set(seen) == {"visible"}
    assert visit.tab.evaluate("[...document.querySelectorAll('.card')].every((one) => one.open)")
    assert not visit.tab.locator("#trials").is_visible()
    visit.tab.emulate_media(media="screen")
    visit.tab.locator("#print-trials").check()
    visit.tab.emulate_media(media="print")
    assert visit.tab.locator("#trials table").is_visible()
    assert not visit.tab.locator(".bar input").first.is_visible()


def test_the_results_stand_above_everything_else(visit: Visit, store: Any) -> None:
    found = summary.of(read(store), RecordCache(store))
    first = visit.tab.locator("article.headline")
    assert first.locator("h2").inner_text() == f"Results: {found.headlines[0].setting.name}"
    assert first.locator(".sentences dd").all_inner_texts() == list(found.sentences)
    assert first.locator(".warning").all_inner_texts() == list(found.warnings)
    assert first.locator(".chart").count() == 2
    assert visit.tab.locator("details.headline").count() == len(found.headlines) - 1 == 1
    run = visit.tab.locator(".run").inner_text()
    assert found.when in run
    assert found.machines[0] in run
    assert first.locator(".sentences").bounding_box()["y"] < 900, "in view before any scrolling"
    assert visit.tab.locator(".board").first.bounding_box()["y"] > first.bounding_box()["y"]


def test_a_link_reproduces_the_view(chromium: Any, visit: Visit, page: Path) -> None:
    board = visit.board("Attacks · ")
    board.locator("summary", has_text="Columns").click()
    board.locator(".columns label", has_text="PSNR").locator("input").check()
    board.locator("th", has_text=re.compile("^t-mAP$")).click()
    board.locator("input[type=search]").fill("dirty-label gain>0.2")
    visit.tab.locator("#words").fill("badnets")
    visit.tab.locator("#setting").select_option("digits(train=200, query=60) · convnet(width=8) · csq · 16 bits")
    visit.tab.locator("nav a", has_text="Strength").click()
    assert "#strength&" in visit.tab.url
    shown = board.locator("th").all_inner_texts(), visit.rows(board)
    assert "PSNR" in shown[0]
    assert len(shown[1]) == 2
    other = Visit(chromium, page, url=visit.tab.url)
    again = other.board("Attacks · ")
    assert (again.locator("th").all_inner_texts(), other.rows(again)) == shown
    assert again.locator("th", has_text=re.compile("^t-mAP$")).get_attribute("aria-sort") == "descending"
    assert other.tab.locator("#words").input_value() == "badnets"
    assert other.tab.locator("#count").inner_text() == visit.tab.locator("#count").inner_text()
    assert other.tab.url == visit.tab.url
    other.tab.close()


def test_a_filter_hides_boards_without_a_match_and_says_how_many(visit: Visit) -> None:
    visit.tab.locator("#words").fill("gain>0.5")
    boards = visit.tab.locator(".board").all()
    without = [board for board in boards if "gain" not in board.locator("th").all_inner_texts()]
    told = visit.tab.locator("#count").inner_text()
    assert f"{len(without)} boards have no column gain" in told
    assert not any(board.is_visible() for board in without)
    assert visit.board("Attacks · ").is_visible()
    visit.tab.locator("#words").fill("nothing-is-called-this")
    assert not visit.tab.locator("#leaderboards").is_visible()
    assert not visit.tab.locator("nav a", has_text="Leaderboards").is_visible()
    visit.tab.locator("#words").fill("")
    assert visit.tab.locator("#leaderboards").is_visible()


def downloaded(visit: Visit, button: Any) -> tuple[str, bytes]:
    with visit.tab.expect_download() as waiting:
        button.click()
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


def test_boards_and_charts_can_be_saved_without_a_network(visit: Visit, store: Any) -> None:
    board = visit.board("Attacks · ")
    board.locator("th", has_text=re.compile("^t-mAP$")).click()
    name, content = downloaded(visit, board.locator("button", has_text="CSV"))
    assert name.endswith(".csv")
    head, *lines = csv.reader(io.StringIO(content.decode()))
    assert head == board.locator("th").all_inner_texts()
    trials = read(store).trials
    trials = trials[(trials["defense"] == "none") & (trials["bits"] == trials["bits"].iloc[0])]
    measured = sorted(set(trials["t_map"]), reverse=True)
    assert [float(line[head.index("t-mAP")]) for line in lines] == pytest.approx(measured, rel=1e-5)
    name, content = downloaded(visit, board.locator("button", has_text="LaTeX"))
    assert name.endswith(".tex")
    assert r"\toprule" in content.decode()
    assert content.decode().count(r"\\") == len(lines) + 1
    chart = visit.tab.locator("article.headline .chart").first
    name, content = downloaded(visit, chart.locator("button", has_text="SVG"))
    root = ET.fromstring(content)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert b"var(" not in content
    assert b"currentColor" not in content
    name, content = downloaded(visit, chart.locator("button", has_text="PNG"))
    picture = Image.open(io.BytesIO(content))
    assert picture.width > 1000
    assert len(picture.convert("RGB").resize((64, 64)).getcolors() or range(9)) > 8, "not an empty picture"
    assert visit.said == []


def test_a_spreadsheet_runs_no_name_as_a_formula(chromium: Any, stock: Any, tmp_path: Path) -> None:
    made = stock([{"attack": "loud", "defense": "none", "target": "0", "seed": 0}])
    html_report.draw(made, tmp_path / "x.html", read(made))
    visit = Visit(chromium, tmp_path / "x.html")
    found = visit.tab.evaluate("asCsv(['=a'], [false], [[['=1+1', null]], [['＝1', null]], [['-', null]]])")
    assert found.split("\r\n") == ["'=a", "'=1+1", "'＝1", "", ""]
    visit.tab.close()


def test_many_trials_are_folded_by_attack(chromium: Any, stock: Any, tmp_path: Path) -> None:
    trials = [{"attack": a, "defense": d, "target": str(t), "seed": 0}
              for a in ("none", "loud") for d in ("none", "repair") for t in range(6)]  # fmt: skip
    made = stock(trials)
    html_report.draw(made, tmp_path / "x.html", read(made))
    visit = Visit(chromium, tmp_path / "x.html")
    board = visit.board("Trials")
    assert [row[0] for row in visit.rows(board)] == ["▸ none: 12 rows", "▸ loud: 12 rows"]
    board.locator("button", has_text="loud").click()
    assert [len(row) for row in visit.rows(board)][:3] == [1, 1, len(board.locator("th").all())]
    board.locator("input[type=search]").fill("repair loud")
    assert set(visit.column(board, "attack")) == {"loud"}
    visit.tab.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_cut_and_everything_has_a_name(chromium: Any, page: Path, width: int) -> None:
    visit = Visit(chromium, page, viewport={"width": width, "height": 900})
    cut = (
        "[...document.querySelectorAll('.strip .scroll')].filter((box) => box.scrollWidth > box.clientWidth + 1).length"
    )
    assert visit.tab.locator(".strip .scroll").count() > 0
    assert visit.tab.evaluate(cut) == 0
    heights = "[...document.querySelectorAll('.chart:not([hidden]) svg text')].map((t) => t.getBoundingClientRect())"
    upright = f"{heights}.filter((box) => box.height > 0 && box.width > box.height).map((box) => box.height)"
    assert min(visit.tab.evaluate(upright)) > 9
    labels = visit.tab.evaluate(
        "[...document.querySelectorAll('.chart svg')].map((one) => one.getAttribute('aria-label'))"
    )
    assert all(labels)
    assert visit.tab.locator(".board table:not(:has(caption))").count() == 0
    assert visit.tab.locator(".board .scroll:not([role=region][aria-label])").count() == 0
    visit.tab.keyboard.press("Tab")
    assert visit.tab.evaluate("document.activeElement.getAttribute('href')") == "#summary"
    visit.tab.close()


def luminance(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)` (WCAG 2)."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


BLENDED = """(name) => [...document.querySelectorAll(name)].map((node) => {
  const layers = [];
  for (let at = node; at; at = at.parentElement) layers.unshift(getComputedStyle(at).backgroundColor);
  const numbers = (colour) => (colour.match(/[\\d.]+/g) || []).map(Number);
  let ground = [255, 255, 255];
  for (const [r, g, b, a = 1] of layers.map(numbers)) ground = [r, g, b].map((c, i) => c * a + ground[i] * (1 - a));
  return [getComputedStyle(node).color, `rgb(${ground.map(Math.round).join(", ")})`];
})"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_it_reads_on_a_phone_and_in_the_dark(chromium: Any, page: Path, scheme: str, width: int) -> None:
    visit = Visit(chromium, page, viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert visit.tab.evaluate("document.documentElement.scrollWidth") <= width, "the page never scrolls sideways"
    ground = visit.tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (luminance(ground) < 0.1) is (scheme == "dark")
    for name in ("td", "th button", ".caption", "h2", "a", "figcaption", ".chart svg text", "summary"):
        pairs = visit.tab.evaluate(BLENDED, name)
        assert pairs, name
        for ink, behind in pairs:
            high, low = sorted((luminance(ink), luminance(behind)), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5, (name, ink, behind)
    sizes = visit.tab.evaluate(
        "[...document.querySelectorAll('td')].map((cell) => parseFloat(getComputedStyle(cell).fontSize))"
    )
    assert min(sizes) >= 12
    assert visit.said == []
    visit.tab.close()


PLUGIN = '''"""<img src=x onerror=alert(3)>"""
from bench.api.attack import Attack, attack
from bench.api.card import Card

CARD = Card(title="<b>T</b>", year=2020, url="javascript:alert(4)", follows="<script>alert(5)</script>")

@attack
class Loud(Attack):
    def apply_trigger(self, images, target, trigger):
        return images
'''


def test_text_of_results_and_plugins_stays_text(chromium: Any, stock: Any, tmp_path: Path) -> None:
    evil = "loud(x=</script><img src=x onerror=alert(1)>)"
    trial = {"attack": evil, "defense": "none", "target": "<b>3</b>", "seed": 0}
    failed = trial | {"seed": 1, "status": "failed", "reason": "<i>why</i>", "log": "<script>alert(2)</script>"}
    made = stock([trial, failed], suite="<i>s</i>")
    (tmp_path / "loud.py").write_text(PLUGIN)
    registry.load_plugin(tmp_path / "loud.py")
    path = tmp_path / "evil.html"
    html_report.draw(made, path, read(made))
    visit = Visit(chromium, path)
    visit.tab.locator("#cards details").evaluate_all("all => all.forEach((one) => { one.open = true; })")
    visit.tab.evaluate("location.hash = '#trial-1'")
    dialog = visit.tab.locator("#trial")
    dialog.wait_for(state="visible")
    assert "<script>alert(2)</script>" in dialog.inner_text()
    assert "<i>why</i>" in dialog.inner_text()
    assert visit.tab.locator("img, dialog script, td b, main i").count() == 0
    assert visit.tab.locator("a[href^='javascript']").count() == 0
    assert "<img src=x onerror=alert(3)>" in visit.tab.locator("#cards").inner_text()
    assert visit.said == []
    visit.tab.close()
