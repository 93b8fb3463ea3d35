"""Numbers of papers in suites: nested tables become claims, and mistakes are named."""

from __future__ import annotations

import pandas as pd
import pytest

from bench.api import registry
from bench.api.errors import UserError
from bench.config import schema, suite
from bench.config.reported import ReportedTable, reported_numbers
from bench.graph import planner
from hashing.pretrained import Pretrained
from reports.frame import coordinates
from reports.reported import _matching

AXES = list(schema.AXES.values())


def table(**changes) -> ReportedTable:
    usual = {
        "source": "A Paper, Table 1", "metric": "t_map_drop", "by": ["attack", "bits"], "where": {"dataset": "digits"},
        "percent": True, "values": {"none": {"16": 11.1, "32": 8.52}, "ciba": {"16": 51.8}},
    }  # fmt: skip
    return ReportedTable.model_validate(usual | changes)


def test_every_leaf_is_a_claim_in_the_metric_s_unit():
    found = {(c.axes["attack"], c.axes["bits"]): c.value for c in reported_numbers("suite 's'", [table()], AXES)}
    assert found == pytest.approx({("none", "16"): 0.111, ("none", "32"): 0.0852, ("ciba", "16"): 0.518})
    assert all(c.axes["dataset"] == "digits" for c in reported_numbers("suite 's'", [table()], AXES))
    (single,) = reported_numbers("suite 's'", [table(by=[], values=40.0, percent=True)], AXES)
    assert single.value == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"metric": "t_mapdrop"}, "metric 't_mapdrop' is unknown.*t_map_drop"),
        ({"by": ["atack", "bits"]}, "'atack' is no axis.*attack"),
        ({"where": {"target_class": "x"}}, "'target_class' is no axis"),
        ({"percent": False}, "11.1 is no t-mAP drop@R; is `percent = true` missing"),
        ({"values": {"none": 3.0}}, "none = 3.0 is no table by bits"),
        ({"values": {"none": {"16": "a"}}}, "none.16 = 'a' is no number: values are nested by attack, bits"),
        ({"values": {"none": {"16": True}}}, "none.16 = True is no number"),
    ],
)
def test_mistakes_are_named(changes, words):
    with pytest.raises(UserError, match=f"suite 's': reported numbers of 'A Paper, Table 1': .*{words}"):
        reported_numbers("suite 's'", [table(**changes)], AXES)


def test_a_suite_holds_claims(tmp_path):
    file = tmp_path / "s.toml"
    file.write_text(
        '[[reported]]\nsource = "P"\nmetric = "map"\nby = ["bits"]\n[reported.values]\n16 = 0.5\n', encoding="utf-8"
    )
    (claim,) = suite.load(str(file)).reported
    assert (claim.source, claim.metric, claim.axes, claim.value) == ("P", "map", {"bits": "16"}, 0.5)
    file.write_text('[[reported]]\nsource = "P"\nmetrics = "map"\n[reported.values]\n16 = 0.5\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"unknown key 'reported.0.metrics'.*did you mean 'metric'"):
        suite.load(str(file))


def mean_gap(name: str, **where: str) -> float:
    """CIBA minus Tri+Adv over the code lengths, in points."""
    found = {
        (c.axes["attack"], c.axes["bits"]): 100 * c.value
        for c in suite.load(name).reported
        if c.metric == "t_map_drop" and all(c.axes[axis] == value for axis, value in where.items())
    }
    lengths = sorted({bits for _, bits in found})
    assert lengths == ["16", "32", "48", "64"]
    return sum(found["ciba", bits] - found["tri_adv", bits] for bits in lengths) / 4


@pytest.mark.parametrize(
    ("name", "where", "gap"),
    [
        ("ciba_table1", {"dataset": "imagenet100"}, 8.075),
        ("ciba_table1", {"dataset": "places365"}, 9.35),
        ("ciba_table1", {"dataset": "coco80"}, 4.575),
        ("ciba_table2", {"method": "hashnet"}, 5.975),
        ("ciba_table2", {"method": "dch"}, 4.425),
    ],
)
def test_published_tables_have_the_means_that_the_paper_states(name, where, gap):
    """METHODOLOGY.md#reported-numbers: arithmetic that a mistyped number would break."""
    assert mean_gap(name, **where) == pytest.approx(gap, abs=1e-9)


def test_published_tables_are_whole():
    names = ("ciba_table1", "ciba_table2", "ciba_table3", "ciba_fig4", "darkhash")
    counts = {name: len(suite.load(name).reported) for name in names}
    assert counts == {
        "ciba_table1": 5 * 12 + 2 * 12, "ciba_table2": 5 * 8 + 2 * 8, "ciba_table3": 7 + 8,
        "ciba_fig4": 4, "darkhash": 4,
    }  # fmt: skip


def test_what_a_paper_gives_a_bound_for_is_no_number():
    assert {(claim.bound, claim.value) for claim in suite.load("darkhash").reported} == {("at least", 0.8)}
    assert {claim.bound for claim in suite.load("ciba_table1").reported} == {""}


PAPERS = ("ciba_table1", "ciba_table2", "ciba_table3", "ciba_fig4", "ciba_fig5", "darkhash", "badhash")
LABELS = {
    "imagenet100": 100,
    "places365": 36,
    "coco80": 80,
    "voc2012": 20,
    "flickr25k": 24,
    "cifar10": 10,
    "voc_animals": 20,
}


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_suites_plan_on_a_machine_with_their_data(name, tmp_path, monkeypatch):
    """Data of the right number of labels and any weights: every cell gets a key, every claim meets cells of its row."""
    for kind, labels in LABELS.items():
        cls = registry.lookup("datasets", kind)
        monkeypatch.setattr(cls, "files", lambda self, root: ())
        monkeypatch.setattr(cls, "protocol", lambda self, root: ("test", None))
        monkeypatch.setattr(cls, "classes", lambda self, root, n=labels: tuple(f"label {i}" for i in range(n)))
    monkeypatch.setattr(Pretrained, "files", lambda self: ())
    loaded = suite.load(name)
    made = planner.plan([loaded], data=tmp_path, device="cpu")
    assert made.trials
    assert {trial.skipped for trial in made.trials} == {""}
    trials = pd.DataFrame([coordinates(planned.trial) for planned in made.trials])
    for claim in loaded.reported:
        found = _matching(trials, claim)
        assert len(found), claim.axes
        assert len({(trial["attack"], trial["augment"]) for _, trial in found.iterrows()}) == 1


def test_rows_of_the_published_tables_have_the_sums_of_the_paper():
    """Summed from the printed tables, row by row over data sets (or methods) and lengths."""
    table1 = {"none": 241.02, "tri": 511.2, "tri_noise": 474.1, "tri_adv": 755.7, "ciba": 843.7}
    table2 = {"none": 141.9, "tri": 474.0, "tri_noise": 450.2, "tri_adv": 627.2, "ciba": 668.8}
    for name, metric, sums in (
        ("ciba_table1", "t_map_drop", table1),
        ("ciba_table1", "map_drop", {"none": 868.5, "ciba": 871.3}),
        ("ciba_table2", "t_map_drop", table2),
        ("ciba_table2", "map_drop", {"none": 574.7, "ciba": 576.0}),
    ):
        for attack, total in sums.items():
            values = [c.value for c in suite.load(name).reported if c.metric == metric and c.axes["attack"] == attack]
            assert 100 * sum(values) == pytest.approx(total, abs=1e-6), (name, metric, attack)
