"""The page of a real run: what is in it, that it needs nothing else, and how large it may get."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.api.errors import EXIT_USER, UserError
from bench.cli import report as command
from bench.cli.app import main
from bench.config.trial import Surrogate
from bench.engine.record_cache import RecordCache
from bench.engine.store import Store
from reports import cells, html_report, render, summary
from reports.chart import Chart
from reports.frame import read
from reports.page import layout
from reports.page.chapters import Chapter
from tests.reports.board_data import leaderboard_of


def unpacked(text: str) -> dict[str, Any]:
    packed = re.search(r'id="data">([^<]*)<', text)
    assert packed is not None
    found: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(packed[1])))
    return found


@pytest.mark.long
def test_its_numbers_are_those_of_the_boards(store: Store, page: Path) -> None:
    data = unpacked(page.read_text())
    expected = leaderboard_of(read(store), costs=True)
    found = {board["title"]: board for board in data["boards"]}
    for board in render.for_people(expected):
        mine = {column["name"]: column for column in found[board.heading]["columns"]}
        assert {name: column["shown"] for name, column in mine.items()} == cells.words(board)
        for name in board.metrics:
            if name in mine and name != "value":
                numbers = board.table[name].to_numpy(dtype=float)
                sorted_by = np.array([np.nan if v is None else v for v in mine[name]["sort"]])
                assert sorted_by == pytest.approx(numbers, rel=1e-5, nan_ok=True)
    assert {board["part"] for board in data["boards"]} == {"leaderboards", "strength", "code-geometry", "conventions"}


def test_only_metrics_have_a_direction_and_not_differences_of_them(page: Path) -> None:
    columns = [column for board in unpacked(page.read_text())["boards"] for column in board["columns"]]
    good = {column["name"]: column["good"] for column in columns}
    assert (good["t-mAP"], good["mAP"]) == (-1, 1)
    differences = {name for name in good if name.endswith((" lost", " removed", " back"))}
    assert differences
    assert {good[name] for name in differences} == {0}


def test_every_column_has_a_tooltip(page: Path) -> None:
    columns = [column for board in unpacked(page.read_text())["boards"] for column in board["columns"]]
    assert not {column["name"] for column in columns if not column["about"]}


def test_every_trial_is_in_it_with_the_command_that_runs_it_alone(store: Store, page: Path) -> None:
    shown = unpacked(page.read_text())["trials"]
    trials = read(store).trials
    assert shown["columns"]["key"] == list(trials["key"])
    i = list(trials["attack"]).index("badnets(poisons=12)")
    told = shown["columns"]["replay"][i]
    assert "--only 'attack=badnets(poisons=12)'" in told
    at = [name for name, _, _ in shown["metrics"]].index("t-mAP")
    assert shown["values"][at][i] == f"{trials['t_map'].iloc[i]:.3f}"
    guarded = trials[trials["defense"] == "strip"]["key"].iloc[0]
    assert shown["scores"][guarded][0][0] == "entropy *"
    facts = dict(shown["facts"][shown["columns"]["facts"][i]])
    assert facts["protocol"].startswith("digits v2")


@pytest.mark.long
def test_the_same_run_makes_the_same_file(store: Store, page: Path, tmp_path: Path) -> None:
    command.write_page(store.root, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_it_asks_for_nothing_from_outside_and_runs_one_script(page: Path) -> None:
    text = page.read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    scripts = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert policy[1] == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:"
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert all(source.startswith(("data:image/", "#", "https://")) for source in sources)
    links = re.findall(r'<a href="(https://[^"]*)"', text)
    assert "https://arxiv.org/abs/1708.06733" in links


def test_pictures_are_those_of_the_attack(store: Store, page: Path) -> None:
    text = page.read_text()
    found = re.search(r'<img src="data:image/png;base64,([^"]*)" alt="badnets\(poisons=4\): triggered"', text)
    assert found is not None
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(found[1]))))
    trials = read(store).trials
    key = trials[trials["attack"] == "badnets(poisons=4)"]["key"].iloc[0]
    triggered = store.tensors(store.record(key).parents["implant"])["gallery_triggered"].numpy()
    assert picture.shape == (16, 5 * 17 - 1, 4)
    for i in range(5):
        assert np.array_equal(picture[:, i * 17 : i * 17 + 16, 0], triggered[i, 0])
    assert (picture[:, 16, 3] == 0).all()


@pytest.mark.long
def test_what_has_no_room_is_named(store: Store, page: Path, tmp_path: Path) -> None:
    bare = len(page.read_bytes()) - sum(
        map(len, re.findall(r"<svg.*?</svg>|data:image[^\"]*", page.read_text(), re.DOTALL))
    )
    limit = bare + layout.SPARE + 30_000
    small = tmp_path / "small.html"
    html_report.draw(store, small, read(store), limit=limit)
    text = small.read_text()
    assert len(text.encode()) < limit
    assert "Left out" in text
    assert 0 < text.count("<svg") + text.count("<img") < page.read_text().count("<svg") + page.read_text().count("<img")
    with pytest.raises(UserError, match=r"0\.\d MB, more than 0.05"):
        html_report.draw(store, tmp_path / "none.html", read(store), limit=50_000)
    assert not (tmp_path / "none.html").exists()


@pytest.mark.long
def test_ten_thousand_cells_fit(stock: Any, tmp_path: Path) -> None:
    """The size grows with the cells; a tenth of them is made here, with numbers that compress as badly as real ones."""
    rng = np.random.default_rng(0)
    names = ("map", "t_map", "gain", "own_map", "anchor", "moved", "saturation", "psnr", "t_map_worst", "t_map_best")
    trials = [
        {"attack": f"loud(dose={a})" if a else "none", "defense": defense, "target": str(t), "seed": s, "bits": 16 * b,
         "metrics": dict(zip(names, rng.uniform(0, 1, len(names)).tolist(), strict=True))}
        for a in range(10) for defense in ("none", "repair", "input_detector", "sieve", "doctor")
        for t in range(5) for s in range(2) for b in (1, 2)
    ]  # fmt: skip
    made = stock(trials)
    path = tmp_path / "big.html"
    html_report.draw(made, path, read(made))
    assert len(trials) == 1000
    data = re.search(r'id="data">([^<]*)<', path.read_text())
    assert data is not None
    assert len(data[1]) * 10 < layout.LIMIT - 500_000


def test_text_of_results_is_no_markup(stock: Any, tmp_path: Path) -> None:
    evil = "loud(x=</script><img src=x onerror=alert(1)>)"
    made = stock([{"attack": evil, "defense": "none", "target": "<b>3</b>", "seed": 0}], suite="<i>s</i>")
    path = tmp_path / "evil.html"
    html_report.draw(made, path, read(made))
    text = path.read_text()
    for markup in ("<img src=x", "<b>3", "<i>s"):
        assert markup not in text
    assert "&lt;i&gt;s&lt;/i&gt;" in text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--out report.pdf", "report.pdf"),
        ("--format json", "No such option: --format"),
        ("--gain 0.5", "No such option: --gain"),
        ("--out x.html conventions", "--out stands before 'conventions'"),
        ("conventions --out x.html", "--out writes files"),
        ("reported --where attack=none", "No such option: --where"),
        ("conventons", "did you mean 'conventions'"),
        ("equal-strength --gian 1", "No such option: --gian"),
        ("equal-strength --gain much", "Invalid value for '--gain'"),
        ("equal-strength --gain 2", "gain = 2"),
        ("code-geometry --where attack=none", "board 'code-geometry'"),
        ("--where attack=badnet", "did you mean 'badnets"),
        ("--out /nowhere/x.html", "/nowhere/x.html"),
        ("--kernels /nowhere/k.json", "--kernels '/nowhere/k.json'"),
        ("--suite page --suite page", "--suite"),
    ],
)
def test_mistakes_are_one_line(store: Store, options: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = options.split()
    place = [] if words[0] == "--out" and words[-1] == "conventions" else ["--store", str(store.root)]
    with pytest.raises(SystemExit) as stop:
        main(["report", *words, *place])
    assert stop.value.code == EXIT_USER
    line, *hints = capsys.readouterr().err.strip().splitlines()
    assert all(hint.startswith("hint: ") for hint in hints)
    assert said in " ".join([line, *hints])


def test_a_file_that_is_no_measurement_of_kernels(store: Store, tmp_path: Path) -> None:
    (tmp_path / "k.json").write_text('{"rows": [{"a": 1}], "machine": {}}')
    with pytest.raises(UserError, match=r"k\.json"):
        command.write_page(store.root, tmp_path / "x.html", kernels=tmp_path / "k.json")


def test_many_small_charts_stay_below_the_limit(stock: Any) -> None:
    """What surrounds a chart takes room as well: title, caption, markup."""
    made = stock([{"attack": "loud", "defense": "none", "target": "0", "seed": 0}])

    class Blank(Chart):
        svg = "<svg></svg>"

    many = [Blank(f"chart {i} " + "t" * 300, "s" * 300, "c" * 900, lambda _: None) for i in range(400)]
    found = summary.of(read(made), RecordCache(made))
    text = layout.render([Chapter("many", "Many", charts=many)], "", read(made), found, limit=400_000)
    assert 200_000 < len(text.encode()) < 400_000


def test_trials_that_share_a_record_are_told_apart(stock: Any, tmp_path: Path) -> None:
    """A clean model serves both values of an axis that it does not read."""
    trial = {"attack": "none", "defense": "input_detector", "target": "0", "seed": 0,
            "metrics": {"detectors": {"headline": "a", "scores": {"a": {"auroc": 0.5}}}}}  # fmt: skip
    made = stock([trial | {"surrogate": "other_seed"}])
    (manifest,) = made.runs()
    (one,) = manifest.trials
    other = replace(one, trial=replace(one.trial, surrogate=Surrogate(same_seed=True)))
    made.write_run(manifest.model_copy(update={"trials": [one, other]}))
    html_report.draw(made, tmp_path / "x.html", read(made))
    trials = unpacked((tmp_path / "x.html").read_text())["trials"]
    assert trials["columns"]["surrogate"] == ["other_seed", "same"]
    assert [text.rpartition(" ")[2] for text in trials["columns"]["replay"]] == [
        "surrogate=other_seed",
        "surrogate=same",
    ]
    assert [name for name, _ in trials["scores"][one.key]] == ["a *"]


def test_half_a_character_in_a_log_stops_nothing(stock: Any, tmp_path: Path) -> None:
    failed = {"attack": "loud", "defense": "none", "target": "0", "seed": 0, "status": "failed", "reason": "x\udcff"}
    made = stock([failed])
    html_report.draw(made, tmp_path / "x.html", read(made))


@pytest.mark.long
def test_lost_and_damaged_artifacts_are_named_and_take_nothing_along(store: Store, tmp_path: Path) -> None:
    copy = tmp_path / "store"
    shutil.copytree(store.root, copy)
    held = Store(copy)
    trials = read(held).trials
    keys = {name: held.record(trials[trials["attack"] == name]["key"].iloc[0]).parents
            for name in ("badnets(poisons=4)", "badnets(poisons=12)")}  # fmt: skip
    held.artifact_path(keys["badnets(poisons=4)"]["implant"]).write_bytes(b"torn")
    held.artifact_path(keys["badnets(poisons=12)"]["measured.triggered"]).unlink()
    command.write_page(copy, tmp_path / "x.html")
    text = (tmp_path / "x.html").read_text()
    assert "badnets(poisons=4): the artifact" in text
    assert "badnets(poisons=36): triggered" in text
    assert "Codes · badnets(poisons=12)" not in text
    assert "Codes · badnets(poisons=36)" in text


def test_claims_of_ones_own_suite_come_with_its_file(store: Store, tmp_path: Path, page: Path) -> None:
    assert not any(board["part"] == "reported" for board in unpacked(page.read_text())["boards"])
    own = store.root.parent / "page.toml"
    command.write_page(store.root, tmp_path / "x.html", suites=[str(own)], where=["attack=none"])
    (claims,) = [b for b in unpacked((tmp_path / "x.html").read_text())["boards"] if b["part"] == "reported"]
    columns = {column["name"]: column["shown"] for column in claims["columns"]}
    assert set(columns["reported"]) == {"0.900"}
    assert "-" not in columns["measured"], "--where narrows the page, not what was measured of a claim"
