"""`import reports` in a notebook: frames and tables in one call, nothing heavy before it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import reports
from bench.api.errors import UserError
from bench.metrics import METRICS


def trial(attack: str, **changes):
    return {"attack": attack, "defense": "none", "target": "0", "seed": 0, **changes}


def test_a_store_is_a_frame_whose_columns_are_explained(stock):
    root = stock([trial("none"), trial("loud", metrics={"gain": 0.6})]).root
    trials = reports.load(str(root))
    assert trials.groupby("attack")["gain"].mean()["loud"] == 0.6
    about = reports.columns()
    assert set(about.index) == set(METRICS)
    assert list(about.loc["gain", ["direction", "low", "high"]]) == [1, -1.0, 1.0]
    assert about.loc["psnr", "unit"] == "dB"
    assert set(trials.select_dtypes("number").columns) - set(about.index) <= {
        "bits", "seed", "classes", "target_labels", "cutoff", "seconds_attack", "seconds_defense", "milliseconds",
        "training", "machine_count", "trusted",
    }  # fmt: skip


def test_tables_show_in_a_notebook_with_what_they_hold_escaped(stock):
    root = stock([trial("none"), trial("loud(<b>x</b>)")]).root
    (board,) = reports.tables(root)
    shown = board._repr_html_()
    assert "&lt;b&gt;x&lt;/b&gt;" in shown
    assert "<b>x</b>" not in shown
    assert "Chance t-mAP" in shown
    assert len(reports.tables(root, by="attack")) == 1


@pytest.mark.long
def test_every_table_and_chart_of_a_real_run_is_one_call(store, page, tmp_path):
    for kind, title in (
        ("conventions", "Conventions"),
        ("code-geometry", "Code geometry"),
        ("dose-response", "Dose and response"),
    ):
        assert {board.title for board in reports.tables(store.root, kind)} == {title}
    titles = [chart.title.partition(" · ")[0] for chart in reports.charts(store.root)]
    assert titles[:2] == ["Attacks without a defense", "Defenses against attacks"]
    assert {"Effects and costs of defenses", "Code length"} <= set(titles)
    assert {"Strength of attacks", "Attention to the trigger"} <= set(titles)
    shown = reports.charts(store.root)[0]._repr_html_()
    assert shown.startswith("<figure")
    assert "</svg>" in shown
    reports.write_html(store.root, tmp_path / "x.html")
    made, other = ((tmp_path / "x.html").read_text(), page.read_text())
    assert "Reported beside measured" in made
    pictures = [
        text.partition('<section id="pictures"')[2].partition('<section id="trials"')[0] for text in (made, other)
    ]
    assert pictures[0] == pictures[1] != ""
    with pytest.raises(UserError, match="did you mean 'leaderboard'"):
        reports.tables(store.root, "leaderbord")


def test_importing_it_loads_neither_pandas_nor_torch():
    code = "import reports, sys; print([m for m in ('pandas', 'torch', 'matplotlib') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
