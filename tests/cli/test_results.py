"""`leaderboard`, `show` and `score` on a real store: trained, attacked, defended and measured by the harness."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.api.errors import StoreError, UserError
from bench.cli import results
from bench.config import suite
from bench.engine.executors import SerialExecutor
from bench.engine.scheduler import run_plan
from bench.engine.store import Store
from bench.engine.worker import Environment
from bench.graph import planner
from tests.stores import write_run


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The smallest run with every kind of stage."""
    root = tmp_path_factory.mktemp("real") / "runs"
    made = Store(root, create=True)
    changes = ["training.epochs=6"]  # a clean model that learns nothing counts as collapsed
    planned = planner.plan([suite.load("smoke", changes=changes)], data=None, device="cpu")
    write_run(made, planned, "smoke")
    summary = run_plan(planned, made, lambda: SerialExecutor(Environment(store=root, data=None, device="cpu")))
    assert summary.trials == {"ok": len(planned.trials)}
    return root


def printed(capsys):
    return capsys.readouterr().out


def test_the_board_holds_what_the_records_hold(store, capsys):
    results.leaderboard(store=store, format_="json")
    found = json.loads(printed(capsys))
    rows = {row["attack"]: row for row in found[0]["rows"]}
    records = [record for record in Store(store).records() if record.stage == "measure"]
    assert {rows[name]["t-mAP"] for name in rows} <= {record.metrics["t_map"] for record in records}
    assert rows["badnets"]["gain"] == pytest.approx(rows["badnets"]["t-mAP"] - rows["badnets"]["control"])
    assert rows["none"]["gain"] == 0
    assert rows["badnets"]["cells"] == "1/1"
    kinds = {board["title"].split(" · ")[0] for board in found}
    assert kinds == {
        "Attacks",
        "Input detectors",
        "t-mAP after each defense",
        "own-mAP after each defense",
        "mAP after each defense",
        "Repairs without re-indexing",
    }
    assert all("protocol digits, version 2" in board["caption"] for board in found)


def test_two_prints_are_equal(store, capsys):
    results.leaderboard(store=store)
    first = printed(capsys)
    results.leaderboard(store=store)
    assert printed(capsys) == first
    assert "seconds" not in first
    results.leaderboard(store=store, costs=True)
    assert "seconds" in printed(capsys)


def test_show_follows_a_key_of_the_board(store, capsys):
    results.leaderboard(store=store, format_="json", where=["attack=badnets"])
    key = json.loads(printed(capsys))[0]["rows"][1]["key"]
    results.show(key, store=store)
    text = printed(capsys)
    assert "badnets/none target 0 seed 0" in text
    for stage in ("load", "train", "make_trigger", "implant", "encode", "encode_triggered", "measure"):
        assert f"\n{stage} " in text
    assert "--only attack=badnets" in text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"by": "attak"}, "did you mean 'attack'"),
        ({"where": ["attack=badnet"]}, "did you mean 'badnets'"),
        ({"suite": "smok"}, "did you mean 'smoke'"),
    ],
)
def test_mistakes_name_the_nearest(store, options, words):
    with pytest.raises(UserError) as caught:
        results.leaderboard(store=store, **options)
    assert words in str(caught.value)


def test_no_store(tmp_path):
    with pytest.raises(StoreError, match="nowhere"):
        results.leaderboard(store=tmp_path / "nowhere")


def test_show_of_an_unknown_key(store):
    with pytest.raises(UserError, match="xyz"):
        results.show("xyz", store=store)


def test_score_prints_a_board(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name, size in (("q", 20), ("d", 100)):
        np.savez(tmp_path / f"{name}.npz", codes=rng.normal(size=(size, 70)), labels=rng.integers(0, 4, size))
    results.score(tmp_path / "q.npz", tmp_path / "d.npz", format_="json")
    rows = {row["metric"]: row["value"] for row in json.loads(printed(capsys))[0]["rows"]}
    assert 0.2 < rows["mAP"] < 0.4
    assert rows["queries"] == 20
    results.score(tmp_path / "q.npz", tmp_path / "d.npz", target="2")
    assert "t-mAP" in printed(capsys)


def test_a_board_waits_for_no_large_library(store):
    """Boards show within seconds, because nothing is imported that they do not need."""
    code = (
        "import sys, pathlib; from bench.cli import results\n"
        "print('BEFORE', {'torch', 'pandas', 'numba', 'scipy'} & set(sys.modules))\n"
        "results.leaderboard(store=pathlib.Path(sys.argv[1]))\n"
        "large = {'torch', 'torchvision', 'ray', 'numba', 'sklearn', 'matplotlib', 'scipy.stats', 'scipy.optimize'}\n"
        "print('AFTER', large & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(store)], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0] == "BEFORE set()"
    assert lines[-1] == "AFTER set()"


def test_every_record_says_how_its_victim_fared(store):
    records = [record for record in Store(store).records() if record.stage == "measure"]
    for record in records:
        found = record.metrics
        assert found["map_change"] == pytest.approx(found["map"] - found["map_clean"])
        assert 0.05 < found["map_chance"] < 0.2 < found["map_clean"]
        assert found["collapsed"] == 0.0


def test_a_gallery_of_the_run_and_of_a_trial(store, tmp_path, capsys):
    results.show(store=store, gallery=tmp_path / "all.png")
    line = printed(capsys)
    assert line.startswith(f"{tmp_path / 'all.png'}: 1 attack (badnets)")
    results.leaderboard(store=store, format_="json", where=["attack=badnets"])
    key = json.loads(printed(capsys))[0]["rows"][1]["key"]
    results.show(key.upper(), store=store, gallery=tmp_path / "one.png")
    one, every = (Image.open(tmp_path / name) for name in ("one.png", "all.png"))
    assert one.size == every.size
    # 6 rows of 8 pictures of 16 x 16 pixels, six times as large; the trigger's corner is white
    assert one.size[0] > 8 * 96
    assert one.size[1] > 6 * 96
    measured = [record for record in Store(store).records() if record.stage == "measure"]
    none = next(record.key for record in measured if "implant" not in record.parents)
    with pytest.raises(UserError, match=none[:8]):
        results.show(none, store=store, gallery=tmp_path / "none.png")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "KEY"),
        ({"suite": "smoke"}, "--suite"),
        ({"key": "ab", "suite": "smoke"}, "--suite"),
        ({"gallery": Path("x.jpeg")}, "jpeg"),
        ({"gallery": Path("x.png"), "suite": "smok"}, "did you mean 'smoke'"),
        ({"gallery": Path("no/such/folder/x.png")}, "no/such/folder/x.png"),
        ({"gallery": Path("x.png"), "key": "zz"}, "zz"),
    ],
)
def test_show_refuses_in_one_line(store, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        results.show(**arguments, store=store)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_gallery_needs_no_torch(store, tmp_path):
    code = (
        "import sys, pathlib; from bench.cli import results\n"
        "results.show(store=pathlib.Path(sys.argv[1]), gallery=pathlib.Path(sys.argv[2]))\n"
        "print('HEAVY', {'torch', 'matplotlib.pyplot'} & set(sys.modules))"
    )
    arguments = [sys.executable, "-c", code, str(store), str(tmp_path / "x.svg")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY set()"
