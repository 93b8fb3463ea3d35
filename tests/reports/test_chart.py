"""Charts at the widths of pages and papers: nothing is cut or covered, and files of a chart are equal."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from bench.api.errors import UserError
from reports import code_maps, curves, precision_recall, svg_charts, throughput
from reports.chart import PAGE_FONT, PAGE_WIDTH, STYLE, Chart
from reports.chart_layout import fitted, text_width
from reports.curves import LINES, TRAINING_LINES, Panel, Sweep
from reports.figures import default_style
from reports.palette import TARGET, attack_styles, defense_styles
from reports.picture_rows import Cell, Row, Section, figure_of, shrunk
from reports.precision_recall import Curves
from reports.retrieved import LEGEND
from reports.svg_charts import CostPoint, FrontierPanel, Line
from tests.reports.chart_data import LONG, covered, cut

pytestmark = pytest.mark.long

Draw = Callable[[float], Figure]


def sweep(names: list[str], values: list[float], lines: tuple[str, ...] = LINES) -> Sweep:
    rows = pd.DataFrame({"x": values, "own_code": "a", "target": "0", "seed": 0})
    rows = rows.assign(**dict.fromkeys([*TRAINING_LINES, "t_map_control"], 0.5))
    return Sweep(f"Strength of {LONG}", LONG, tuple(Panel(name, "poison_rate", rows, lines=lines) for name in names))


def named(count: int) -> list[str]:
    return [LONG.replace("my", f"my{i}") for i in range(count)]


def sections(names: list[str]) -> list[Section]:
    """Rows of pictures with these names, also as names of classes."""
    cell = Cell(np.zeros((1, 8, 6), np.uint8), f"◎ {names[0]}", TARGET)
    return [Section(name, [Row(name, [cell] * 8, cell), Row(name, [cell] * 8, cell)]) for name in names]


def drawings(attacks: list[str], defenses: list[str]) -> dict[str, Draw]:
    """Every kind of chart, with these names."""
    rng = np.random.default_rng(0)
    styles, marks = attack_styles(attacks), defense_styles(defenses)
    lines = [Line(a, styles[a], [0.1, 0.2, 0.9]) for a in attacks]
    points = [CostPoint(a, d, marks[d], *rng.random(2)) for a in attacks for d in defenses]
    curve = {d: [(0.0, 0.1), (0.0437, 0.9)] for d in defenses}
    frontier = [FrontierPanel(a, styles[a].colour, 0.9, curve) for a in attacks]
    series = [(a, styles[a], pd.Series([0.1, 0.4], index=[1, 20])) for a in attacks]
    codes = rng.choice(np.array([-1, 1], np.int8), size=(40, 16))
    maps = dict.fromkeys(("clean model", "attacked"), code_maps.Map(codes, codes, codes, codes))
    raced = [(a, (0.5, 1.5, 100.0)) for a in attacks]
    curves_of = dict.fromkeys(precision_recall.PANELS, np.array([[0.9, 0.1], [0.1, 1.0]]))
    swept = sweep(attacks, [0.001, 0.003, 0.01, 0.011, 0.1], TRAINING_LINES)
    return {
        "lengths": partial(svg_charts.length_figure, {"map": lines, "t_map": lines}, [16, 32, 64]),
        "costs": partial(svg_charts.cost_figure, points),
        "frontier": partial(svg_charts.frontier_figure, frontier, "own-mAP"),
        "attention": partial(svg_charts.attention_figure, series),
        "sweeps": partial(curves.figure, [swept, sweep(attacks[:1], [1, 2, 3])]),
        "sweep": partial(curves.figure, [swept], titled=False),
        "codes": partial(code_maps.drawn, maps, styles[attacks[0]]),
        "kernels": partial(throughput.bars, raced),
        "pictures": partial(figure_of, sections(attacks), LEGEND),
        "precision": partial(precision_recall.figure_of, [Curves(a, styles[a], curves_of, curves_of) for a in attacks]),
    }  # fmt: skip


NAMES = {"one": (["loud"], ["repair"]), "long": (named(1), named(2)), "many": (named(4), named(2))}
CASES = [("one", 3.3), ("long", 3.3), ("long", PAGE_WIDTH), ("many", PAGE_WIDTH), ("many", 6.9)]


@pytest.mark.parametrize("kind", drawings(["loud"], ["repair"]))
@pytest.mark.parametrize(("case", "width"), CASES)
def test_every_text_is_inside_the_figure_and_covers_no_other(case: str, kind: str, width: float) -> None:
    with default_style(STYLE | {"font.size": PAGE_FONT if width == PAGE_WIDTH else 8}):
        figure = drawings(*NAMES[case])[kind](width)
        assert cut(figure) == []
        assert covered(figure) == []
        assert figure.get_figwidth() == width
        for axes in figure.axes:
            assert axes.get_window_extent().height > 40, "pixels of a panel that its legend left"


def simple(width: float) -> Figure:
    return svg_charts.attention_figure([("loud", attack_styles(["loud"])["loud"], pd.Series([0.1, 0.4]))], width)


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
@pytest.mark.parametrize(("columns", "inches"), [(1, 3.3), (2, 6.9)])
def test_a_saved_chart_has_the_width_of_columns_and_equal_bytes(tmp_path, suffix, columns, inches) -> None:
    chart = Chart("A title", "a setting", "", simple)
    one, two = (tmp_path / f"{name}.{suffix}" for name in "ab")
    chart.save(one, columns)
    chart.save(str(two), columns)
    content = one.read_bytes()
    assert content == two.read_bytes()
    if suffix == "png":
        picture = Image.open(io.BytesIO(content))
        assert picture.width == round(inches * 300)
        assert picture.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    else:
        found = re.search(rb"/MediaBox \[ 0 0 ([\d.]+)" if suffix == "pdf" else rb'width="([\d.]+)pt"', content)
        assert float(found[1]) == pytest.approx(72 * inches)
    assert b"Type3" not in content, "publishers refuse these fonts"


def test_a_chart_is_saved_in_a_known_format_and_width(tmp_path) -> None:
    chart = Chart("A title", "", "", simple)
    with pytest.raises(UserError, match="gif"):
        chart.save(tmp_path / "x.gif")
    with pytest.raises(ValueError, match="columns"):
        chart.save(tmp_path / "x.png", 3)


def test_a_figure_can_be_changed_before_it_is_saved(tmp_path) -> None:
    figure = Chart("A title", "", "", simple).figure(2)
    assert figure.get_size_inches()[0] == 6.9
    (axes,) = figure.axes
    axes.set_xlabel("changed")
    figure.savefig(tmp_path / "x.svg")
    assert axes.xaxis.label.get_fontsize() == 8


def test_a_chart_of_the_page_has_a_name_for_screen_readers_and_letters_of_nine_pixels() -> None:
    svg = Chart('A <title> of "x"', "a setting", "", simple).svg
    assert 'role="img" aria-label="A &lt;title&gt; of &quot;x&quot; · a setting"' in svg
    shown = 371 / float(re.search(r"max-width: (\d+)px", svg)[1])  # on a phone of 390 pixels
    sizes = {float(size) for size in re.findall(r"font(?:-size)?: ([\d.]+)px", svg)}  # of the SVG's own unit, the point
    assert sizes
    assert min(sizes) * 4 / 3 * shown >= 9


def test_a_text_is_broken_between_words_and_loses_its_middle() -> None:
    assert fitted("one two", 1000, size=8) == "one two"
    assert fitted("one two", text_width("one tw", 8), size=8) == "one\ntwo"
    lines = fitted(LONG, 100, size=8).split("\n")
    assert len(lines) == 3
    assert max(text_width(line, 8) for line in lines) <= 100
    assert "".join(lines).startswith("my_attack")
    assert "".join(lines).endswith("W)")
    assert "…" in "".join(lines)


def test_a_large_picture_is_made_smaller_in_its_proportions() -> None:
    picture = np.arange(3 * 40 * 20, dtype=np.uint8).reshape(3, 40, 20)
    assert shrunk(picture, 40) is picture
    small = shrunk(picture, 20)
    assert small.shape == (3, 20, 10)
    means = picture.reshape(3, 20, 2, 10, 2).mean((2, 4))
    assert np.abs(small - means).max() <= 1
