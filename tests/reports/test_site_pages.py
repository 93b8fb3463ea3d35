"""Boards over several runs, and pages of components, of stores that hold records only."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.engine.store import Store
from reports.site.components import component_page
from reports.site.markdown import document
from reports.site.overall import attacks_table, defenses_table, runs_table
from reports.site.published import components_of, published
from reports.site.tables import Table, component_path, path_part
from reports.site.writing import draw
from tests.reports.board_data import Stock, grid, trial

HOSTILE, STRONGER = "../../../outside", "repair(dose=2)"


def defended(attack: str, t_map: float, own_map: float, defense: str = "repair") -> list[dict[str, object]]:
    metrics = {"t_map": t_map, "own_map": own_map, "gain": t_map - 0.1}
    return [trial(attack, defense, target, seed, metrics=metrics) for target in "012" for seed in (0, 1, 2)]


@pytest.fixture
def two(stock: Stock) -> Store:
    """Two runs of one suite: the second has another data set, and an attack in two variants."""
    first = [*grid(("none", "loud", "kept")), *defended("loud", 0.45, 0.3), *defended("loud", 0.2, 0.69, STRONGER)]
    variants = [
        trial(f"loud(dose={dose})", target=target, seed=seed, dataset="other",
              metrics={"t_map": gain + 0.1, "gain": gain})
        for dose, gain in ((1, 0.6), (9, 0.85)) for target in "012" for seed in (0, 1, 2)
    ]  # fmt: skip
    return stock(first, [*grid(("none",), dataset="other"), *variants])


def texts(table: Table) -> dict[str, list[str]]:
    return {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}


def test_columns_are_runs_and_rows_are_components(two: Store) -> None:
    runs = published(two)
    table = attacks_table(runs)
    assert len({head.name for head in table.heads}) == len(table.heads), "runs of one suite are told apart"
    by_run = dict(zip([head.below.partition(" ")[0] for head in table.heads[2:]], range(2), strict=True))
    rows = texts(table)
    assert list(rows) == ["kept", "loud"], "clean-label stands before dirty-label"
    assert rows["loud"][1 + by_run["other"]].startswith("0.950 (0.100)"), "the variant that gains most"
    assert rows["kept"][1 + by_run["other"]] == "-"
    left = texts(defenses_table(runs))["repair"]
    assert left[0] == "repair"
    # own-mAP 0.9 on the clean model, 0.2 under attack and 0.69 after the stronger variant: 30 % of the loss is left
    assert left[1 + by_run["toy"]] == "30 %, loud"
    assert [row[0].link for row in runs_table(runs).rows] == [run.path for run in runs]


def test_the_page_of_an_attack_has_every_variant(two: Store) -> None:
    page = component_page("attack", "loud", published(two))
    assert page.kind == "dirty-label attack"
    (stands, breaks) = page.about
    assert sorted(row[1].text for row in stands.rows) == ["-", "loud(dose=1)", "loud(dose=9)"]
    places = {row[1].text: row[-2].text for row in stands.rows}
    assert places == {"-": "1 of 1", "loud(dose=9)": "1 of 2", "loud(dose=1)": "2 of 2"}
    assert [(row[0].text, row[1].text) for row in breaks.rows] == [(STRONGER, "30 %"), ("repair", "86 %")]
    assert breaks.rows[0][0].link == "defenses/repair.html"
    assert breaks.rows[0][-1].text == "9", "3 targets x 3 seeds"


def test_a_strangers_name_stays_inside_the_folder(stock: Stock, tmp_path: Path) -> None:
    store = stock(
        [*grid(("none",)), *grid(("none",), dataset=HOSTILE), trial(HOSTILE), trial("<b>bold</b>"), trial("=1+1")]
    )
    draw(store, tmp_path / "a" / "b" / "c" / "site")
    written = [path for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert all(tmp_path / "a" / "b" / "c" / "site" in path.parents for path in written)
    assert not list(tmp_path.glob("outside*"))
    page = tmp_path / "a" / "b" / "c" / "site" / component_path("attack", "<b>bold</b>")
    assert "<b>bold</b>" not in page.read_text()
    assert "&lt;b&gt;bold&lt;/b&gt;" in page.read_text()
    assert ",'=1+1," in (tmp_path / "a/b/c/site/data/toy/trials.csv").read_text(), "a spreadsheet runs no formula"


def test_odd_names_have_paths_of_their_own() -> None:
    names = ["badnets", "a/b", "a-b", "A-b", "", "..", "x" * 200, "x" * 201]
    paths = [path_part(name) for name in names]
    assert paths[0] == "badnets"
    assert len({path.lower() for path in paths}) == len(names)
    assert all(set(path) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_") and path for path in paths)


def test_the_document_shows_one_setting_of_a_run_with_many(stock: Stock) -> None:
    store = stock([*grid(("none", "loud")), *grid(("none", "loud"), seeds=(0,), bits=64)])
    text = document(store)
    assert "### Attacks · toy · net · csq · 32 bits" in text
    assert "64 bits" not in text.partition("## toy")[2].partition("### ")[2]
    assert "largest of 2 settings" in text


def test_every_component_of_a_run_is_listed(two: Store) -> None:
    found = components_of(published(two))
    assert (found["attack"], found["defense"], found["dataset"]) == (["kept", "loud"], ["repair"], ["other", "toy"])
