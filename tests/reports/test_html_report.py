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

from bench.api.errors import UserError
from bench.cli import report as command
from bench.engine.store import Store
from reports import html_report, render
from reports._charts import Chart
from reports.boards import leaderboard as boards
from reports.frame import read


def unpacked(text: str) -> dict[str, Any]:
    packed = re.search(r'id="data">([^<]*)<', text)
    assert packed is not None
    found: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(packed[1])))
    return found


def test_its_numbers_are_those_of_the_boards(store: Store, page: Path) -> None:
    data = unpacked(page.read_text())
    expected = boards.everything(read(store), costs=True)
    found = {board["title"]: board for board in data["boards"]}
    for board in render.for_people(expected):
        mine = {column["name"]: column for column in found[board.title]["columns"]}
        assert {name: column["shown"] for name, column in mine.items()} == render.words(board)
        for name in board.metrics:
            if name in mine and name != "value":
                numbers = board.table[name].to_numpy(dtype=float)
                sorted_by = np.array([np.nan if v is None else v for v in mine[name]["sort"]])
                assert sorted_by == pytest.approx(numbers, rel=1e-5, nan_ok=True)
    assert {board["part"] for board in data["boards"]} == {"leaderboards", "strength", "code-geometry", "conventions"}


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
    assert facts["protocol"].startswith("digits v1")


def test_the_same_run_makes_the_same_file(store: Store, page: Path, tmp_path: Path) -> None:
    command.report(store=store.root, out=tmp_path / "again.html")
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


def test_what_has_no_room_is_named(store: Store, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = len(page.read_bytes()) - sum(
        map(len, re.findall(r"<svg.*?</svg>|data:image[^\"]*", page.read_text(), re.DOTALL))
    )
    monkeypatch.setattr(html_report, "LIMIT", bare + html_report.SPARE + 30_000)
    small = tmp_path / "small.html"
    command.report(store=store.root, out=small)
    text = small.read_text()
    assert len(text.encode()) < html_report.LIMIT
    assert "Left out, so that this file stays below its limit: " in text
    assert 0 < text.count("<svg") + text.count("<img") < page.read_text().count("<svg") + page.read_text().count("<img")
    monkeypatch.setattr(html_report, "LIMIT", 50_000)
    with pytest.raises(UserError, match=r"the tables alone make 0\.\d MB, more than 0.05: narrow the report"):
        command.report(store=store.root, out=tmp_path / "none.html")
    assert not (tmp_path / "none.html").exists()


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
    assert len(data[1]) * 10 < html_report.LIMIT - 500_000


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
    ("options", "words"),
    [
        ({"out": Path("report.pdf")}, "--out 'report.pdf': the report is a web page"),
        ({"options": ["gain=0.5"]}, "--set says nothing to `report html`"),
        ({"what": "conventions", "out": Path("x.html")}, "--out says nothing to `report conventions`"),
        ({"format_": "json"}, "--format says nothing to `report html`"),
        ({"what": "reported", "where": ["attack=none"]}, "--where says nothing to `report reported`"),
        ({"what": "conventons"}, "did you mean 'conventions'"),
        ({"what": "conventions", "options": ["gain=1"]}, "board 'conventions' has no option 'gain'. Known: none"),
        ({"what": "equal-strength", "options": ["gian=1"]}, "did you mean 'gain'"),
        (
            {"what": "code-geometry", "where": ["attack=none"]},
            "board 'code-geometry' is empty: no attack has a result here",
        ),
        ({"where": ["attack=badnet"]}, "did you mean 'badnets"),
        ({"out": Path("/nowhere/x.html")}, "cannot write '/nowhere/x.html'"),
        ({"kernels": Path("/nowhere/k.json")}, "--kernels '/nowhere/k.json' cannot be read"),
        ({"suites": ["page", "page"]}, "a page is about one run"),
    ],
)
def test_mistakes_are_one_line(store: Store, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        command.report(store=store.root, **options)
    assert words in str(caught.value)


def test_a_file_that_is_no_measurement_of_kernels(store: Store, tmp_path: Path) -> None:
    (tmp_path / "k.json").write_text('{"rows": [{"a": 1}], "machine": {}}')
    with pytest.raises(UserError, match="is not what `bench kernels --format json` prints"):
        command.report(store=store.root, kernels=tmp_path / "k.json")


def test_many_small_charts_stay_below_the_limit(stock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What surrounds a chart takes room as well: title, caption, markup."""
    made = stock([{"attack": "loud", "defense": "none", "target": "0", "seed": 0}])
    many = [Chart(f"chart {i} " + "t" * 300, "s" * 300, "c" * 900, "<svg></svg>") for i in range(400)]
    monkeypatch.setattr(html_report, "charts", lambda *_, **__: {"Leaderboards": many})
    monkeypatch.setattr(html_report, "LIMIT", 400_000)
    html_report.draw(made, tmp_path / "x.html", read(made))
    assert 200_000 < (tmp_path / "x.html").stat().st_size < 400_000


def test_trials_that_share_a_record_are_told_apart(stock: Any, tmp_path: Path) -> None:
    """A clean model serves both values of an axis that it does not read."""
    trial = {"attack": "none", "defense": "input_detector", "target": "0", "seed": 0,
            "metrics": {"detectors": {"headline": "a", "scores": {"a": {"auroc": 0.5}}}}}  # fmt: skip
    made = stock([trial | {"surrogate": "other_seed"}])
    (manifest,) = made.runs()
    (one,) = manifest.trials
    other = replace(one, trial=replace(one.trial, surrogate="same"))
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


def test_lost_and_damaged_artifacts_are_named_and_take_nothing_along(store: Store, tmp_path: Path) -> None:
    copy = tmp_path / "store"
    shutil.copytree(store.root, copy)
    held = Store(copy)
    trials = read(held).trials
    keys = {name: held.record(trials[trials["attack"] == name]["key"].iloc[0]).parents
            for name in ("badnets(poisons=4)", "badnets(poisons=12)")}  # fmt: skip
    held.artifact_path(keys["badnets(poisons=4)"]["implant"]).write_bytes(b"torn")
    held.artifact_path(keys["badnets(poisons=12)"]["measured.triggered"]).unlink()
    command.report(store=copy, out=tmp_path / "x.html")
    text = (tmp_path / "x.html").read_text()
    assert "Without a picture: badnets(poisons=4): the artifact" in text
    assert "badnets(poisons=36): triggered" in text
    assert "Codes · badnets(poisons=12)" not in text
    assert "Codes · badnets(poisons=36)" in text


def test_claims_of_ones_own_suite_come_with_its_file(store: Store, tmp_path: Path, page: Path) -> None:
    assert "of a suite of your own give the file" in page.read_text()
    own = store.root.parent / "page.toml"
    command.report(store=store.root, suites=[str(own)], out=tmp_path / "x.html", where=["attack=none"])
    (claims,) = [b for b in unpacked((tmp_path / "x.html").read_text())["boards"] if b["part"] == "reported"]
    columns = {column["name"]: column["shown"] for column in claims["columns"]}
    assert set(columns["reported"]) == {"0.900"}
    assert "-" not in columns["measured"], "--where narrows the page, not what was measured of a claim"
