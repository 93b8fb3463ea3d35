"""`import reports` in a notebook: frames and tables in one call, nothing heavy before it is asked for."""

from __future__ import annotations

import subprocess
import sys

import reports
from bench.metrics import METRICS


def cell(attack: str, **changes):
    return {"attack": attack, "defense": "none", "target": "0", "seed": 0, **changes}


def test_a_store_is_a_frame_whose_columns_are_explained(stock):
    root = stock([cell("none"), cell("loud", metrics={"gain": 0.6})]).root
    cells = reports.load(str(root))
    assert cells.groupby("attack")["gain"].mean()["loud"] == 0.6
    about = reports.columns()
    assert set(about.index) == set(METRICS)
    assert list(about.loc["gain", ["direction", "low", "high"]]) == [1, -1.0, 1.0]
    assert about.loc["psnr", "unit"] == "dB"
    assert set(cells.select_dtypes("number").columns) - set(about.index) <= {
        "bits", "seed", "classes", "cutoff", "seconds_attack", "seconds_defense", "training",
    }  # fmt: skip


def test_tables_show_in_a_notebook_with_what_they_hold_escaped(stock):
    root = stock([cell("none"), cell("loud(<b>x</b>)")]).root
    (board,) = reports.tables(root)
    shown = board._repr_html_()
    assert "&lt;b&gt;x&lt;/b&gt;" in shown
    assert "<b>x</b>" not in shown
    assert "Chance t-mAP" in shown
    assert len(reports.tables(root, by="attack")) == 1


def test_importing_it_loads_neither_pandas_nor_torch():
    code = "import reports, sys; print([m for m in ('pandas', 'torch', 'matplotlib') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
