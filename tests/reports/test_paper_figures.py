"""`bench figures`: every chart of the page as files, with equal bytes for equal runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.api.errors import UserError
from bench.cli.app import main
from bench.engine.collection import opened
from bench.engine.record_cache import RecordCache
from bench.engine.store import Store
from reports import findings, paper_figures
from reports.board_registry import BoardData
from reports.frame import read
from reports.page.chapters import chapters_of
from tests.reports.board_data import trial

pytestmark = pytest.mark.long


def data_of(store: Store) -> BoardData:
    return BoardData(read(store), RecordCache(store))


def test_it_has_every_chart_and_gallery_of_the_page(store: Store) -> None:
    data = data_of(store)
    charts, without = paper_figures.charts_and_pictures(data)
    found = {chart.heading for chart in charts}
    chapters = list(chapters_of(data, findings.of(data), None, ([], [])))
    assert {chart.heading for chapter in chapters for chart in chapter.charts} <= found
    blocks = [block for chapter in chapters for block in chapter.galleries]
    assert [c.title for c in charts if c.title.startswith("Images")] == [f"Images · {block.title}" for block in blocks]
    assert without == []


def test_every_chart_is_there_in_every_format_twice_the_same(stock, tmp_path: Path, capsys) -> None:
    given = [trial(a, d, metrics={"gain": g}) for a in ("loud", "quiet") for d, g in (("none", 0.9), ("repair", 0.1))]
    made = stock([trial(), *given])
    for name in "ab":
        with pytest.raises(SystemExit) as ended:
            main(["figures", str(tmp_path / name), "--columns", "2", "--store", str(made.root)])
        assert ended.value.code == 0
    assert "3 charts as png, pdf, svg, and captions.txt" in capsys.readouterr().out.replace("\n", " ")
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in "ab")
    assert one == two
    assert {"captions.txt", *(f"effects-and-costs-of-defenses.{end}" for end in ("png", "pdf", "svg"))} <= set(one)
    assert b"A point per attack and defense." in one["captions.txt"]
    text = one["effects-and-costs-of-defenses.svg"]
    assert b'width="496.8pt"' in text


def test_settings_tell_files_apart_and_names_that_stay_equal_are_numbered(stock, tmp_path: Path) -> None:
    given = [
        trial("loud", d, bits=b, metrics={"gain": g}) for b in (16, 32) for d, g in (("none", 0.9), ("repair", 0.1))
    ]
    paper_figures.write_all(data_of(stock(given)), tmp_path / "x", 1)
    names = {path.stem for path in (tmp_path / "x").iterdir()}
    assert {"effects-and-costs-of-defenses-toy-net-csq-16-bits", "code-length"} <= names


def test_a_run_without_charts_and_a_folder_that_is_a_file_are_one_line(stock, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no chart"):
        paper_figures.write_all(data_of(stock([trial()])), tmp_path / "x", 1)
    (tmp_path / "file").touch()
    both = [trial("loud", d, metrics={"gain": g}) for d, g in (("none", 0.9), ("repair", 0.1))]
    with pytest.raises(UserError, match="cannot write into"):
        paper_figures.write_all(data_of(stock(both, folder="other")), tmp_path / "file", 1)


def test_a_bundle_has_charts_and_one_reason_for_all_missing_pictures(tmp_path: Path) -> None:
    bundle = opened(Path("reference"))
    data = BoardData(read(bundle, suite="quick"), RecordCache(bundle))
    said = paper_figures.write_all(data, tmp_path, 1)
    assert said.endswith("Without a picture: badnets, blend, badhash, ciba, darkhash: a bundle holds no pictures")
