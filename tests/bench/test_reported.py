"""Numbers of papers in suites: nested tables become single numbers, and mistakes are named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from bench.api import registry
from bench.api.errors import UserError
from bench.config import schema, suite
from bench.config.expand import Skipped
from bench.config.reported import MEANINGS, Kind, ReportedNumber, ReportedTable, reported_numbers
from bench.engine.record import RunManifest
from bench.engine.store import Store
from bench.graph import planner
from hashing.datasets import cifar10, voc_animals
from hashing.pretrained import Pretrained
from reports import frame
from reports.reported import claims

AXES = list(schema.AXES.values())


def table(**changes) -> ReportedTable:
    usual = {
        "source": "A Paper, Table 1", "kind": "absolute", "metric": "t_map_drop", "by": ["attack", "bits"],
        "where": {"dataset": "digits"},
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
        ({"metric": "t_mapdrop"}, "'t_mapdrop'.*t_map_drop"),
        ({"by": ["atack", "bits"]}, "'atack'.*attack"),
        ({"where": {"target_class": "x"}}, "'target_class'"),
        ({"percent": False}, "11.1.*`percent = true`"),
        ({"values": {"none": 3.0}}, "none = 3.0.*bits"),
        ({"values": {"none": {"16": "a"}}}, "none.16 = 'a'"),
        ({"values": {"none": {"16": True}}}, "none.16 = True"),
        ({"kind": "behaviour", "bound": "at least"}, "kind 'behaviour' with statement ''.*needs a statement"),
        ({"kind": "behaviour", "statement": "It works."}, "and bound ''.*needs a statement and a bound"),
        ({"statement": "It works.", "bound": "at least"}, "kind 'absolute' with statement 'It works.'"),
    ],
)
def test_mistakes_are_named(changes, words):
    with pytest.raises(UserError, match=f"suite 's': .*'A Paper, Table 1': .*{words}"):
        reported_numbers("suite 's'", [table(**changes)], AXES)


def test_a_suite_holds_claims(tmp_path):
    file = tmp_path / "s.toml"
    file.write_text(
        '[[reported]]\nsource = "P"\nkind = "order"\nmetric = "map"\nby = ["bits"]\n[reported.values]\n16 = 0.5\n',
        encoding="utf-8",
    )
    (claim,) = suite.load(str(file)).reported
    assert (claim.source, claim.metric, claim.axes, claim.value) == ("P", "map", {"bits": "16"}, 0.5)
    assert claim.kind == "order"
    file.write_text(file.read_text().replace("order", "orders"), encoding="utf-8")
    with pytest.raises(UserError, match=r"kind.*'absolute', 'order' or 'behaviour'"):
        suite.load(str(file))
    file.write_text(file.read_text().replace('kind = "orders"\n', ""), encoding="utf-8")
    with pytest.raises(UserError, match="kind"):
        suite.load(str(file))
    file.write_text('[[reported]]\nsource = "P"\nmetrics = "map"\n[reported.values]\n16 = 0.5\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"'reported\.0\.metrics'.*'metric'"):
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
        "ciba_fig4": 4, "darkhash": 2,
    }  # fmt: skip


def test_what_a_paper_gives_a_bound_for_is_no_number():
    assert {(claim.bound, claim.value) for claim in suite.load("darkhash").reported} == {("at least", 0.8)}
    assert {claim.bound for claim in suite.load("ciba_table1").reported} == {""}


def test_every_kind_of_comparison_has_a_meaning_and_is_used():
    assert (
        set(MEANINGS)
        == set(get_args(Kind))
        == {one.kind for name in suite.names() for one in suite.load(name).reported}
    )


def test_only_suites_with_the_paper_s_data_compare_numbers():
    found = {name for name in suite.names() for one in suite.load(name).reported if one.kind == "absolute"}
    assert found == {"ciba_table1", "ciba_table2", "ciba_table3", "ciba_fig4"}


def test_a_bound_is_kept_on_its_side_and_at_the_bound():
    one = ReportedNumber("P", "map", {}, 0.5, "", "at least", kind="absolute")
    assert [one.holds(value) for value in (0.4, 0.5, 0.6)] == [False, True, True]
    assert [replace(one, bound="at most").holds(value) for value in (0.4, 0.5, 0.6)] == [True, True, False]
    assert replace(one, bound="").holds(0.5) is None


PAPERS = ("ciba_table1", "ciba_table2", "ciba_table3", "ciba_fig4", "ciba_fig5", "darkhash", "badhash")


def write_lists(known: Any, data: Path) -> None:
    """Lists of the published lengths; of the images only the first of each list, at which a plan looks."""
    folder, images = data / known.folder, data / (known.images or known.folder)
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "test", "database"):
        lines = [f"{part}/{n}.jpg {n % known.labels}" for n in range(known.checked.get(part, known.labels))]
        (folder / f"{part}.txt").write_text("\n".join(lines))
        (images / part).mkdir(parents=True, exist_ok=True)
        (images / part / "0.jpg").touch()


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[suite.Suite], Path]:
    """A folder with files that stand for the data sets and weights of a suite: a plan looks at no more than these."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

    def make(loaded: suite.Suite) -> Path:
        trials = [given.trial if isinstance(given, Skipped) else given for given in loaded.trials(None)]
        for spec in {trial.dataset for trial in trials}:
            dataset = registry.create("datasets", spec.name, spec.params)
            if hasattr(dataset, "published"):
                write_lists(dataset.published(), tmp_path)
        networks = [registry.lookup("backbones", spec.name) for spec in {trial.backbone for trial in trials}]
        weights = [f"torch/hub/checkpoints/{one.published.file}" for one in networks if issubclass(one, Pretrained)]
        for file in (cifar10.JPEG, voc_animals.ARCHIVE, *weights):
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).touch()
        return tmp_path

    return make


@pytest.mark.long
@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_suites_plan_on_a_machine_with_their_data(name: str, data: Callable[..., Path]) -> None:
    """Every trial gets a key, and every reported number meets the trials of one row."""
    loaded = suite.load(name)
    folder = data(loaded)
    made = planner.plan([loaded], data=folder, device="cpu")
    assert made.trials
    assert {trial.skipped for trial in made.trials} == {""}
    store = Store(folder / "store", create=True)
    store.write_run(RunManifest(suites=[name], trials=made.trials))
    trials = frame.read(store).trials
    for board in claims(trials, loaded.reported):
        assert board.table["cells"].notna().all(), "a number without trials"
    for number in loaded.reported:
        assert trials[trials["attack"] == number.axes["attack"]]["augment"].nunique() == 1


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
