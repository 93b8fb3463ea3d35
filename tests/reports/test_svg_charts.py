"""Charts: the values that they show, and labels that never become markup."""

from __future__ import annotations

import re

import pytest

from bench.engine.record_cache import RecordCache
from reports import svg_charts
from reports.frame import read
from reports.palette import INK, attack_styles
from reports.svg_charts import Line
from tests.reports.board_data import trial
from tests.stores import record


def test_costs_are_points_at_what_a_defense_removes_and_loses(stock):
    trials = [
        trial("loud", metrics={"gain": 0.8, "map": 0.9}), trial("loud", "repair", metrics={"gain": 0.3, "map": 0.85}),
        trial("quiet", metrics={"gain": 0.5, "map": 0.9}), trial("quiet", "repair", metrics={"gain": 0.6, "map": 0.7}),
        trial("quiet", "input_detector", metrics={"gain": 0.5, "map": 0.9}),
    ]  # fmt: skip
    (chart,) = svg_charts.of_costs(read(stock(trials)).trials, str, mixed=False)
    tips = re.findall(r"<title>([^<]*)</title>", chart.svg)
    assert tips == [
        "repair against loud: +0.500 gain removed, +0.050 mAP lost",
        "repair against quiet: -0.100 gain removed, +0.200 mAP lost",
    ]


def test_points_have_names_that_are_inside_the_frame_and_hide_no_point(stock):
    def texts(*attacks, defenses=("repair",)):
        trials = [trial(a, d, metrics={"gain": 0.9 - 0.3 * i * (d != "none"), "map": 0.9 - 0.1 * j})
                  for i, a in enumerate(attacks, 1) for j, d in enumerate(("none", *defenses))]  # fmt: skip
        (chart,) = svg_charts.of_costs(read(stock(trials, folder="".join(attacks))).trials, str, mixed=False)
        figure = chart.figure(1)
        (axes,) = figure.axes
        figure.draw_without_rendering()
        boxes = [text.get_window_extent() for text in axes.texts]
        points = [axes.transData.transform(line.get_xydata()[0]) for line in axes.lines if len(line.get_xdata()) == 1]
        for box in boxes:
            assert axes.bbox.x0 <= box.x0 < box.x1 <= axes.bbox.x1
            assert not any(box.contains(*point) for point in points)
        return sorted(text.get_text() for text in axes.texts)

    assert texts("loud", "quiet") == ["loud", "quiet", "↖ better"]
    names = ("repair(ratio=1)", "repair(ratio=2)")
    assert texts("loud", defenses=names) == [*names, "↖ better"], "with one attack, its name says nothing"


def test_code_lengths_are_lines_over_what_all_have(stock):
    trials = [trial(a, bits=b, metrics={"t_map": b / 100}) for a in ("none", "loud") for b in (16, 32, 64)]
    trials += [trial("quiet", bits=16)]
    found = read(stock(trials)).trials
    (chart,) = svg_charts.of_bits(found, str, mixed=False)
    assert (chart.title, chart.setting) == ("Code length", "")
    assert "toy · net · csq" in chart.caption
    assert "loud" in chart.svg
    assert "quiet" not in chart.svg, "it has one length only"
    assert list(svg_charts.of_bits(found[found["bits"] == 16], str, mixed=False)) == []


def test_a_chart_takes_the_pages_colours_and_escapes_what_it_shows(stock):
    trials = [trial("loud(x=<b>&\"')", metrics={"gain": g}, defense=d) for d, g in (("none", 0.9), ("repair", 0.1))]
    (chart,) = svg_charts.of_costs(read(stock(trials)).trials, str, mixed=False)
    assert "<b>" not in chart.svg
    assert "against loud(x=&lt;b&gt;&amp;" in chart.svg
    assert "currentColor" in chart.svg
    assert INK not in chart.svg
    assert "<metadata>" not in chart.svg
    assert not re.search(r"<svg[^>]* (width|height)=", chart.svg)


def test_code_lengths_are_drawn_at_their_means():
    style = attack_styles(["a"])["a"]
    lines = {name: [Line("a", style, values)] for name, values in {"map": [0.5, 0.7], "t_map": [0.1, 0.2]}.items()}
    figure = svg_charts.length_figure(lines, [16, 32], 6.9)
    drawn = [axes.lines[0].get_ydata().tolist() for axes in figure.axes]
    assert drawn == [[0.5, 0.7], [0.1, 0.2]]
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["mAP", "t-mAP"]


def test_dollars_in_a_label_are_no_formula(stock):
    trials = [trial(f"loud(x={x})", bits=b) for x in (r"$\\frac$", "$a$") for b in (16, 32)]
    (chart,) = svg_charts.of_bits(read(stock(trials)).trials, str, mixed=False)
    assert r"loud(x=$\frac$)" in chart.svg or r"loud(x=$\\frac$)" in chart.svg


def test_a_sweep_is_of_one_edition_and_of_cells_that_all_values_have(stock):
    def swept(doses, **changes):
        return [trial(f"loud(poisons={n})", target=t, implant=f"{n}a", metrics={"t_map": n / 100}, **changes)
                for n in doses for t in "01"]  # fmt: skip

    store = stock(swept((2, 8)), swept((32,), version=2))
    for n in (2, 8, 32):
        store.write_record(record(f"{n}a", "implant"))
    trials = read(store, run="all").trials
    assert list(svg_charts.of_sweeps(trials, str, mixed=False)) == []
    assert len(list(svg_charts.of_sweeps(trials, str, mixed=True))) == 1


def test_attention_is_that_of_the_records(store):
    found = read(store).trials
    (chart, *_) = svg_charts.of_attention(found[found["bits"] == 16], RecordCache(store), str, mixed=False)
    assert "badnets(poisons=4)" in chart.svg
    row = found[(found["attack"] == "badnets(poisons=4)") & (found["bits"] == 16)].iloc[0]
    series = svg_charts.attention(RecordCache(store), row["key"])
    held = store.tensors(store.record(row["key"]).parents["implant"])
    assert series.index.tolist() == held["attention_epochs"].tolist()
    assert series.tolist() == pytest.approx(held["attention"].tolist())
    drawn = svg_charts.attention_figure([("x", attack_styles(["x"])["x"], series / 16)], 3.3)
    assert drawn.axes[0].lines[0].get_ydata() == pytest.approx(held["attention"].numpy() / 16)
