"""What queries retrieve: the images of the nearest codes, in an order that numpy computes here, with their classes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import reports
from bench.api.errors import UserError
from bench.engine.record_cache import RecordCache
from bench.engine.store import Store
from reports import retrieved
from reports.board_registry import BoardData
from reports.frame import read
from reports.page.chapters import strips_of
from reports.retrieved import EVERYTHING, ON_PAGE, Found, Strip
from tests.reports.board_data import trial

PRUNED = ("0.2", "0.5", "0.8")  # ratios of the repairs of badnets(poisons=36)


def strips(store: Store, most: retrieved.Most = EVERYTHING) -> Found:
    return strips_of(BoardData(read(store), RecordCache(store)), most)


def strip(found: Found, attack: str, bits: int = 16) -> Strip:
    (one,) = [one for one in found.strips if one.attack == attack and f"{bits} bits" in one.setting]
    return one


def bits_of(words: np.ndarray, bits: int) -> np.ndarray:
    """Codes as zeros and ones, unpacked here."""
    return (words.view(np.uint64)[0][:, None] >> np.arange(bits, dtype=np.uint64)) & np.uint64(1)


def test_rows_are_the_nearest_database_images_in_the_order_of_the_database(store: Store) -> None:
    shown = strip(strips(store), "badnets(poisons=36)")
    trials = read(store).trials
    mine = trials[(trials["attack"] == "badnets(poisons=36)") & (trials["bits"] == 16)]
    undefended = store.record(mine[mine["defense"] == "none"]["key"].iloc[0]).parents
    repaired = {
        row["defense"]: store.record(row["key"]).parents for _, row in mine.iterrows() if "pruning" in row["defense"]
    }
    pool, parts = store.tensors(undefended["load"]), store.tensors(undefended["split"])
    images, labels = pool["images"].numpy(), pool["labels"].numpy().astype(bool)
    query, database = parts["query"].numpy(), parts["database"].numpy()
    gallery = store.tensors(undefended["implant"])
    positions = store.tensors(undefended["measured.triggered"])["positions"].numpy()
    models = {"clean model, trigger": (undefended, "control"), "attacked, trigger": (undefended, "measured")}
    models |= {f"after {name}, trigger": (parents, "measured") for name, parents in repaired.items()}
    assert len(models) == 2 + len(PRUNED)
    assert len(shown.sections) == 2
    for section, place in zip(shown.sections, (0, len(positions) - 1), strict=True):
        assert len(section.rows) == len(models) + 1
        rows = {_plain(row.name): row for row in section.rows}
        own = labels[query[positions[place]]]
        for name, (parents, which) in models.items():
            triggered = bits_of(store.tensors(parents[f"{which}.triggered"])["codes"].numpy(), 16)[place]
            stored = bits_of(store.tensors(parents[f"{which}.benign"])["database"].numpy(), 16)
            nearest = np.argsort((stored != triggered).sum(1), kind="stable")[:8]
            row = rows[_plain(name)]
            for cell, item in zip(row.cells, nearest, strict=True):
                assert np.array_equal(cell.picture, images[database[item]])
                held = labels[database[item]]
                sign = "◎" if held[3] else "✓" if (held & own).any() else "–"
                assert cell.note == f"{sign} {held.argmax()}"
            at = 0 if place == 0 else -1
            assert np.array_equal(row.lead.picture, gallery["gallery_triggered"].numpy()[at])
        plain = rows["attacked, no trigger"]
        assert np.array_equal(plain.lead.picture, images[query[positions[place]]])
        code = bits_of(store.tensors(undefended["measured.benign"])["query"].numpy(), 16)[positions[place]]
        stored = bits_of(store.tensors(undefended["measured.benign"])["database"].numpy(), 16)
        nearest = np.argsort((stored != code).sum(1), kind="stable")[:8]
        assert all(np.array_equal(c.picture, images[database[i]]) for c, i in zip(plain.cells, nearest, strict=True))


def _plain(name: str) -> str:
    """The name without the parameters that short names leave out."""
    return name.replace(", steps=0", "").replace("steps=0, ", "")


def test_the_page_shows_one_query_and_says_what_it_leaves_out(store: Store) -> None:
    few = retrieved.Most(queries=1, repairs=1)
    (section,) = strip(strips(store, few), "badnets(poisons=36)").sections
    assert [row.name.partition(" ")[0] for row in section.rows] == ["clean", "attacked,", "attacked,", "after"]
    assert "shows 2 more repaired models" in strip(strips(store, few), "badnets(poisons=36)").chart.caption
    chart = strip(strips(store, ON_PAGE), "badnets(poisons=36)").chart
    assert "more repaired" not in chart.caption
    assert "at equal distance in the order of the database" in chart.caption
    assert "first of the query split that can carry the trigger." in chart.caption
    assert chart.svg.count("<image") == 9 * 6


def test_lost_and_damaged_codes_are_named_and_cost_no_other_picture(store: Store, tmp_path: Path) -> None:
    held = Store(shutil.copytree(store.root, tmp_path / "store"))
    trials = read(held).trials

    def parents(attack: str, defense: str = "none") -> dict[str, str]:
        rows = trials[(trials["attack"] == attack) & (trials["bits"] == 16)]
        (key,) = [row["key"] for _, row in rows.iterrows() if row["defense"].startswith(defense)][:1]
        return held.record(key).parents

    held.artifact_path(parents("badnets(poisons=4)")["measured.triggered"]).unlink()
    held.artifact_path(parents("badnets(poisons=36)", "fine_pruning(ratio=0.5")["measured.benign"]).write_bytes(b"torn")
    found = strips(held)
    assert [one.attack for one in found.strips if "16 bits" in one.setting] == [
        "badnets(poisons=12)", "badnets(poisons=36)"
    ]  # fmt: skip
    lost, damaged = sorted(found.without)
    assert lost.startswith("badnets(poisons=36) after fine_pruning")
    assert "is damaged" in lost
    assert damaged == "badnets(poisons=4): an artifact is missing: run its suite again, which makes it again"
    assert len(strip(found, "badnets(poisons=36)").sections[0].rows) == 5
    assert "Left out: " in str(found)


def test_pictures_of_other_queries_are_refused(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The positions of the stored pairs are computed as the stage `implant` computes them."""
    monkeypatch.setattr(retrieved, "PAIRS", 7)
    found = strips(store)
    assert found.strips == ()
    assert "not those of its queries" in found.without[0]
    with pytest.raises(UserError, match="not those of its queries"):
        retrieved.draw(found, tmp_path / "x.png")


def test_a_notebook_draws_them_and_a_run_without_attack_has_none(store: Store, stock, tmp_path: Path) -> None:
    said = reports.draw_retrieved(store.root, tmp_path / "x.svg")
    assert said.startswith("what queries with and without trigger retrieve: badnets")
    assert (tmp_path / "x.svg").read_text().count("<image") == 2 * 9 * (3 + 3 + 6 + 3)
    with pytest.raises(UserError, match="only clean models"):
        reports.draw_retrieved(stock([trial()]).root, tmp_path / "y.svg")
