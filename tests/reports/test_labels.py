"""Short names: what they leave out, that they never mix two components up, and that data keep whole labels."""

import io
import json
import re

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.config.trial import Spec
from bench.config.words import pieces
from reports import cells, render
from reports.board import Board
from reports.frame import read
from reports.labels import Names, label_of
from reports.selection import narrow
from reports.trial_details import page
from tests.reports.board_data import leaderboard_of, trial
from tests.stores import spec

# Labels

VALUES = st.sampled_from([1, 0.5, True, "keep", [1, 2], ["a, b", "c"], "x, y", "a(b", "c)", "]", "", "p=1, q=2"])
SPECS = st.builds(
    lambda name, given: Spec(name, given, given),
    st.sampled_from(["a", "b", "ab"]),
    st.dictionaries(st.sampled_from("pqr"), VALUES, max_size=3),
)
# a stranger's component may be called anything, another's label included
ODD = st.builds(
    Spec, st.text("ab(),=[] p1", max_size=12) | st.text(st.characters(exclude_categories=["C"]), max_size=8)
)


def specs(labels):
    return [spec(label) for label in labels]


@pytest.mark.parametrize(
    ("given", "label"),
    [
        ({}, "a"),
        ({"labels": "clean"}, "a(labels=clean)"),
        ({"sizes": [1, 2], "eps": 0.1}, "a(sizes=[1, 2], eps=0.1)"),
        ({"text": "red, or blue", "n": 1}, "a(text=red, or blue, n=1)"),
    ],
)
def test_a_component_in_print(given, label):
    assert Spec("a", {**given, "usual": 3}, given).label == label


def test_components_are_equal_if_names_and_parameters_are():
    assert Spec("a", {"x": 1}, {"x": 1}) == Spec("a", {"x": 1})
    assert len({Spec("a", {"x": 1}), Spec("a", {"x": 1}), Spec("a", {"x": 2}), Spec("b", {"x": 1})}) == 3


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a, b(x=1, y=2),c", ["a", "b(x=1, y=2)", "c"]),
        ("a(x=[1, 2], y=(3, (4, 5)))", ["a(x=[1, 2], y=(3, (4, 5)))"]),
        ("a),b", ["a)", "b"]),
        (" , ", []),
    ],
)
def test_a_list_in_pieces(text, parts):
    assert pieces(text) == parts


@pytest.mark.parametrize(
    ("labels", "short", "legend"),
    [
        (["ciba(target_share=0.5, steps=300)"], ["ciba"], ["ciba: target_share=0.5, steps=300."]),
        (
            ["ciba(poison_rate=0.05, eps=0.1, steps=500)", "ciba(poison_rate=0.05, eps=0.2, steps=500)"],
            ["ciba(eps=0.1)", "ciba(eps=0.2)"],
            ["ciba: poison_rate=0.05, steps=500."],
        ),
        (["a(x=1, y=2)", "a(x=1)"], ["a(y=2)", "a"], ["a: x=1."]),
        (["badnets", "badnets(labels=clean)"], ["badnets", "badnets(labels=clean)"], []),
        (["b(x=[1, 2])", "a(y=3)", "ab(x=1)"], ["b", "a", "ab"], ["a: y=3.", "ab: x=1.", "b: x=[1, 2]."]),
        (["a(x=[1, 2])", "a(x=[1, 3])"], ["a(x=[1, 2])", "a(x=[1, 3])"], []),
        (["a(x=1, y=2)", "a(y=2, x=1)"], ["a(x=1, y=2)", "a(y=2, x=1)"], []),
        (["none"], ["none"], []),
    ],
)
def test_what_all_variants_share_is_left_out_and_said(labels, short, legend):
    names = Names.of(specs(labels))
    assert [names.short[label] for label in labels] == short
    assert list(names.legend) == legend


@given(st.sets(SPECS | ODD, max_size=6))
def test_different_labels_stay_different(found):
    labels = {label_of(one) for one in found}
    names = Names.of(found)
    assert set(names.short) == labels
    assert len(set(names.short.values())) == len(labels)
    assert all(names.within(label) == names.short[label] for label in labels)


@given(st.sets(SPECS, min_size=1, max_size=5))
def test_short_names_and_legend_together_say_everything(found):
    names = Names.of(found)
    said = dict(line.removesuffix(".").split(": ", 1) for line in names.legend)
    for one in found:
        short, legend = names.short[one.label], said.get(one.name, "")
        assert short.partition("(")[0] == one.name
        left = short.removeprefix(one.name)
        assert all((setting in left) != (setting in legend) or left.count(setting) for setting in one.settings)
        assert len(left) + len(legend) >= len(", ".join(one.settings))


def test_names_within_a_text():
    names = Names.of(specs(["a(x=1)", "b(of=a(x=1))", "c(y=1, z=1)", "c(y=1, z=12)", "none"]))
    text = "attack a(x=1), b(of=a(x=1)); not ba(x=1): c(y=1, z=12) x none, c(y=1, z=1)"
    assert names.within(text) == "attack a, b; not ba(x=1): c(z=12) x none, c(z=1)"


def test_a_label_that_begins_another():
    given = {"x": 1, "y": "2)", "z": 3}
    names = Names.of([spec("a(x=1, y=2)"), Spec("a", given, given)])
    assert names.within("row a(x=1, y=2), z=3)") == "row a(y=2), z=3)"
    names = Names.of([spec("b(x=1)"), Spec("b(x=1)) and more")])
    assert names.within("row b(x=1)) and more") == "row b(x=1)) and more"


def test_a_label_inside_one_that_stays_whole():
    names = Names.of(specs(["a(x=1)", "b(of=a(x=1))", "b"]))
    assert names.within("b(of=a(x=1)), a(x=1)") == "b(of=a(x=1)), a"


# Boards

LOUD, SOFT = "loud(dose=0.5, steps=3, eps=0.1)", "loud(dose=0.5, steps=3, eps=0.2)"
QUIET, REPAIR, DETECTOR = "quiet(sizes=[1, 2], lr=0.1)", "repair(epochs=20, lr=0.3)", "input_detector(k=3)"
NET, WIDE = "net(depth=4, width=16)", "net(depth=4, width=32)"
LEGEND = [
    "input_detector: k=3.",
    "loud: dose=0.5, steps=3.",
    "quiet: sizes=[1, 2], lr=0.1.",
    "repair: epochs=20, lr=0.3.",
]
SCORES = ("auroc", "auroc_control", "tpr_1", "tpr_5", "caught_5", "alarms_1", "alarms_5", "alarms_1_control",
          "alarms_5_control")  # fmt: skip
DETECTED = {"detectors": {"headline": "s", "scores": {"s": dict.fromkeys(SCORES, 0.5)}}}


def results(stock, backbones=(NET,)):
    trials = [trial(a, d, backbone=b, metrics=DETECTED if d == DETECTOR else {})
             for b in backbones for a in ("none", LOUD, SOFT, QUIET) for d in ("none", REPAIR, DETECTOR)]  # fmt: skip
    for one in trials[-2:]:  # quiet after repair and input detector
        one |= {"status": "failed", "reason": f"{QUIET} broke"}
    return read(stock(trials))


def text_of(found, kind):
    file = io.StringIO()
    render.render(found, kind, file=file)
    return file.getvalue()


def test_people_read_short_names_on_every_board(stock):
    shown = render.for_people(leaderboard_of(results(stock)))
    attacks, t_map, _, _, screened, lost = shown
    assert list(attacks.table["attack"]) == ["none", "loud(eps=0.1)", "loud(eps=0.2)", "quiet"]
    assert "repair" in t_map.table
    assert t_map.metrics["repair"] == "t_map"
    assert "repair" in t_map.heat
    assert cells.words(t_map)["repair"] == ["0.800", "0.800", "0.800", "-"]
    assert t_map.basis.too_few == (f"{QUIET} x {REPAIR}",)
    assert "quiet x repair" in t_map.caption
    assert set(screened.table["input detector"]) == {"input_detector"}
    assert lost.table["which"].iloc[0] == "attack quiet; defense repair, input_detector"
    assert lost.table["reason"].iloc[0] == f"{QUIET} broke", "the words of the record"
    assert attacks.caption.split("\n")[-4:] == LEGEND
    assert not any(line in board.caption for board in shown[1:] for line in LEGEND)
    assert (attacks.title, attacks.setting) == ("Attacks", "toy · net(depth=4, width=16) · csq · 32 bits")


@pytest.mark.parametrize("kind", ["rich", "markdown", "latex"])
def test_formats_for_people(stock, kind):
    text = (
        text_of(leaderboard_of(results(stock)), kind)
        .replace("\\_", "_")
        .replace("\\", "")
        .replace("{[}", "[")
        .replace("{]}", "]")
    )
    text = re.sub(re.escape(QUIET) + " broke", "", text)
    assert not any(label in text for label in (LOUD, SOFT, QUIET, REPAIR, DETECTOR))
    assert "loud(eps=0.1)" in text
    assert all(text.count(line) == 1 for line in LEGEND)


def test_data_keep_whole_labels(stock):
    found = leaderboard_of(results(stock))
    data = json.loads(text_of(found, "json"))
    assert [row["attack"] for row in data[0]["rows"]] == ["none", LOUD, SOFT, QUIET]
    assert REPAIR in data[1]["rows"][0]
    assert f"{QUIET} x {REPAIR}" in data[1]["caption"]
    assert not any(line in board["caption"] for board in data for line in LEGEND)
    table = pd.read_csv(io.StringIO(text_of(found, "csv")))
    assert {LOUD, SOFT, QUIET} <= set(table["attack"])
    assert REPAIR in table


def test_names_depend_on_what_is_shown_and_labels_select(stock):
    whole = results(stock)
    (board, *_) = render.for_people(leaderboard_of(narrow(whole, [f"attack={LOUD}"])))
    assert list(board.table["attack"]) == ["none", "loud"]
    assert "loud: dose=0.5, steps=3, eps=0.1." in board.caption
    both = narrow(whole, [f"attack={QUIET},{SOFT}"])
    assert set(both.trials["attack"]) == {"none", QUIET, SOFT}
    sliced = render.for_people(leaderboard_of(whole, by="attack"))
    assert {name for board in sliced[:-1] for name in board.table["attack"]} == {
        "none", "loud(eps=0.1)", "loud(eps=0.2)", "quiet"}  # fmt: skip
    titles = [board.title for board in render.for_people(leaderboard_of(whole, by="defense"))]
    assert titles[1] == "Attacks after repair"


def test_a_setting_that_varies_is_short_in_titles_and_columns(stock):
    shown = render.for_people(leaderboard_of(results(stock, (NET, WIDE)), by="backbone"))
    assert {"net(width=16)", "net(width=32)"} <= set(shown[0].table)
    assert shown[0].heat == ("net(width=16)", "net(width=32)")
    assert "net: depth=4." in shown[0].caption
    assert {board.setting.split(" · ")[1] for board in shown[1:-1]} == {"net(width=16)", "net(width=32)"}


def test_nothing_to_shorten_changes_nothing(stock):
    found = leaderboard_of(read(stock([trial("loud"), trial("loud(x=1)"), trial()])))
    assert render.for_people(found) == found
    assert render.for_people([]) == []


def test_a_defense_that_is_called_like_a_column():
    table = pd.DataFrame({"attack": ["loud(x=1)"], "chance": [0.1], "chance(y=1)": [0.2]})
    board = Board(
        "t", table, "", ("attack",), heat=("chance(y=1)",), components=frozenset(specs(["loud(x=1)", "chance(y=1)"]))
    )
    (shown,) = render.for_people([board])
    assert cells.words(shown) == {"attack": ["loud"], "chance": ["0.1"], "chance(y=1)": ["0.2"]}
    assert shown.heat == ("chance(y=1)",)


def test_the_page_of_a_trial_keeps_the_whole_label(stock):
    store = stock([trial(LOUD)])
    key = read(store).trials["key"].iloc[0]
    assert LOUD in text_of(page(store, key), "rich")


def test_names_that_look_alike_are_told_apart():
    """A letter of another script inside a Latin word, or without width, shows its number; whole words are warned of."""
    names = Names.of([Spec("badnets"), Spec("b\u0430dnets"), Spec("badnets\u200b")])
    assert set(names.short.values()) == {"badnets", "b<U+0430>dnets", "badnets<U+200B>"}
    assert names.legend == ()
    (line,) = Names.of([Spec("coco"), Spec("\u0441\u043e\u0441\u043e"), Spec("\u732b")]).legend
    assert "'coco'" in line
    assert r"'\u0441\u043e\u0441\u043e'" in line
    assert Names.of([Spec("na\u00efve"), Spec("\u03b2-vae"), Spec("\u0436\u0443\u043a")]).legend == ()
