"""What `bench kernels` times and how: fair turns, honest ratios, contenders that agree, baselines that are right."""

from __future__ import annotations

import json
import mmap
import re
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numba
import numpy as np
import pytest
import torch

from bench.api.errors import UserError
from bench.api.random import Rng
from bench.cli import kernels as command
from bench.kernels import baselines, kernel_benchmark, throughput, timing, workloads
from bench.kernels.timing import Contender, Samples
from hashing.codes import hamming_distances, pack
from hashing.ranking import average_precision

SMALL = kernel_benchmark.Size(bits=(16,), items=(2100,), queries=20, rounds=2, large=5000, ks=(5,))


def test_ratios_are_those_of_the_same_round():
    samples = Samples({"ours": np.array([1.0, 2, 4, 8]), "theirs": np.array([3.0, 6, 12, 24])})
    assert samples.ratio("theirs", "ours") == (3, 3, 3)
    assert samples.of("ours")[1] == 3
    assert list(kernel_benchmark.against_first(samples)) == [
        ("ours", samples.of("ours"), None),
        ("theirs", samples.of("theirs"), (3, 3, 3)),
    ]


def test_contenders_take_turns_and_seconds_are_per_unit():
    clock, calls = SimpleNamespace(now=0.0), []

    def work(name: str, seconds: float) -> None:
        calls.append(name)
        clock.now += seconds

    contenders = {"a": Contender(partial(work, "a", 0.02), 4), "b": Contender(partial(work, "b", 0.005), 1)}
    samples = timing.time_in_turn(contenders, rounds=3, clock=lambda: clock.now)
    assert calls[:4] == ["a", "a", "b", "b"]  # the first call, and one to find out how often to repeat
    assert "".join(calls[4:]) == "abbbbaabb"
    assert samples.seconds["a"].tolist() == pytest.approx([0.005] * 3)
    assert samples.seconds["b"].tolist() == pytest.approx([0.005] * 3)


def test_threads_are_given_back():
    torch.set_num_threads(1)
    before = numba.get_num_threads()
    with timing.threads(numba.config.NUMBA_NUM_THREADS):
        assert torch.get_num_threads() == numba.get_num_threads() == numba.config.NUMBA_NUM_THREADS
    assert (torch.get_num_threads(), numba.get_num_threads()) == (1, before)


@pytest.mark.parametrize("bits", [7, 64, 130])
def test_clustered_codes_flip_the_share_of_bits_that_they_say(bits):
    data = workloads.clustered(3000, 50, bits, classes=4)
    assert (len(data.database), len(data.queries), data.database.bits) == (3000, 50, bits)
    centres = [np.sign(data.database.unpack()[data.labels == c].sum(0)) for c in range(4)]
    flipped = np.mean([(code != centres[c]).mean() for code, c in zip(data.queries.unpack(), data.own, strict=True)])
    assert flipped == pytest.approx(workloads.FLIPPED, abs=0.06)
    assert np.array_equal(data.database.words, workloads.clustered(3000, 50, bits, classes=4).database.words)


@pytest.mark.parametrize("cutoff", [None, 7])
def test_baselines_find_what_brute_force_finds(cutoff):
    data = workloads.clustered(300, 6, 12)
    slow = data.signs(6)
    apart = (data.queries.unpack()[:, None] != data.database.unpack()).sum(2)
    for i, found in enumerate(baselines.numpy_loop(*slow, cutoff, stable=True)):
        order = sorted(range(300), key=lambda j, i=i: (apart[i, j], j))[:cutoff]
        hits = [rank for rank, j in enumerate(order, 1) if data.labels[j] == data.own[i]]
        assert found == pytest.approx(sum(n / rank for n, rank in enumerate(hits, 1)) / max(1, len(hits)))
    if cutoff is None:
        assert baselines.torch_sort(*slow, batch=4) == pytest.approx(baselines.numpy_loop(*slow, None, stable=True))


@pytest.mark.skipif(not hasattr(np, "bitwise_count"), reason="needs numpy 2")
@pytest.mark.parametrize("bits", [16, 130])
def test_numpy_distances(bits):
    data = workloads.clustered(100, 3, bits)
    out = np.empty((3, 100), np.uint8)
    baselines.numpy_distances(data.queries, data.database, out)
    assert np.array_equal(out, hamming_distances(data.queries, data.database))


def test_limits_do_all_of_their_work():
    words = np.arange(1000, dtype=np.uint64)
    assert baselines.reading(words)() == words.sum()
    stored = np.random.default_rng(0).integers(0, 2**63, baselines.RESIDENT).astype(np.uint64)
    expected = sum(int(word ^ turn).bit_count() for turn in range(3) for word in stored.tolist())
    assert baselines.counting(3)() == expected


def test_who_disagrees_is_not_timed():
    data = workloads.clustered(200, 4, 16)
    first = next(kernel_benchmark.ranking_comparisons(data, 1))
    timed = []
    lying = replace_contender(first, timed)
    with pytest.raises(AssertionError):
        list(lying.run("ranking", 2))
    assert not timed
    assert [row.by for row in first.run("ranking", 2)] == ["numba", "torch", "numpy loop", "torch argsort"]


def replace_contender(first: kernel_benchmark.Comparison, timed: list[str]) -> kernel_benchmark.Comparison:
    def disagree() -> None:
        raise AssertionError("other results")

    return replace(first, contenders={"numba": Contender(lambda: timed.append("numba"))}, agree=disagree)


class OtherSigns(workloads.Retrieval):
    """Rivals that compute with floats get other codes than the kernels."""

    def signs(self, queries: int):
        few, own, database, labels = super().signs(queries)
        return -few, own, database, labels


def test_every_comparison_checks_its_contenders(monkeypatch):
    data = OtherSigns(**vars(workloads.clustered(400, 5, 16)))
    counts = {"numba": np.ones(3), "torch": np.zeros(3)}
    monkeypatch.setattr(kernel_benchmark, "distance_histograms", lambda *a, backend: (np.ones(3), counts[backend]))
    monkeypatch.setattr(kernel_benchmark, "hamming_distances", lambda *a, **k: hamming_distances(*a, **k) ^ 1)
    monkeypatch.setattr(kernel_benchmark, "topk", lambda q, d, k: (None, np.zeros((len(q), k), np.uint8)))
    comparisons = [*kernel_benchmark.ranking_comparisons(data, 1), *kernel_benchmark.search_comparisons(data, (5,))]
    wrong = [one.operation for one in comparisons if refused(one)]
    assert wrong == ["AP, ties by index", "AP, expected", "AP@1000, ties by index", "top-5", "distances"]


def refused(one: kernel_benchmark.Comparison) -> bool:
    try:
        one.agree()
    except AssertionError:
        return True
    return False


def test_no_more_is_searched_for_than_a_database_holds():
    searches = list(kernel_benchmark.search_comparisons(workloads.clustered(300, 4, 16), (100, 1000, 5000)))
    assert [one.operation for one in searches] == ["top-100", "top-300", "distances"]
    assert not any(map(refused, searches))


def test_absent_baselines_are_named(monkeypatch):
    monkeypatch.setattr(baselines, "absent", lambda package: package in kernel_benchmark.RIVALS)
    searches = kernel_benchmark.search_comparisons(workloads.clustered(300, 4, 16), (3,))
    rows = {row.by: row for one in searches for row in one.run("search", 2)}
    for rival in kernel_benchmark.RIVALS:
        assert rows[rival].note == "not installed"
        assert rows[rival].seconds is None
    assert rows["numba"].seconds is not None


@pytest.mark.parametrize(("bits", "rivals"), [(16, kernel_benchmark.RIVALS), (20, ())])
def test_rivals_that_are_installed_agree(bits, rivals):
    """Each finds the same distances, and one that finds others is refused."""
    data = workloads.clustered(300, 4, bits)
    searches = list(kernel_benchmark.search_comparisons(data, (3,)))
    assert not any(map(refused, searches))
    here = {name for name in rivals if not baselines.absent(name)}
    assert {by for one in searches for by in one.contenders} & {*kernel_benchmark.RIVALS} == here


def test_trained_codes_are_the_same_each_time_good_and_often_equal():
    data, again = workloads.trained(3000, 50, 32), workloads.trained(3000, 50, 32)
    assert np.array_equal(data.database.words, again.database.words)
    assert np.array_equal(data.queries.words, again.queries.words)
    assert len(np.unique(data.database.words)) < 1000
    ap = average_precision(data.queries, data.database, data.relevance, data.own)
    assert ap.mean() > 0.8
    rows = list(next(kernel_benchmark.ranking_comparisons(data, 1)).run("ranking", 2))
    assert {row.operation for row in rows} == {"AP, ties by index, trained codes"}


@pytest.mark.long
def test_the_command_prints_tables_and_json(monkeypatch, capsys):
    monkeypatch.setattr(kernel_benchmark, "QUICK", SMALL)
    with pytest.raises(UserError, match="--threads 4096"):
        command.kernels(quick=True, threads=4096)
    command.kernels(quick=True, threads=1, format_="json")
    printed = json.loads(capsys.readouterr().out)
    assert printed["machine"]["cores"] >= 1
    rows = [{key: tuple(x) if isinstance(x, list) else x for key, x in row.items()} for row in printed["rows"]]
    assert {row["section"] for row in rows} == {"ranking", "search", "limits", "throughput"}
    first = next(row for row in rows if row["operation"] == "AP, ties by index" and row["by"] == "numba")
    assert first["seconds"][0] <= first["seconds"][1] <= first["seconds"][2]
    assert (first["bits"], first["items"], first["codes"], first["nbytes"]) == (16, 2100, 2100, 16800)
    loop = next(row for row in rows if row["operation"] == "AP, ties by index" and row["by"] == "numpy loop")
    assert loop["faster"][1] > 0
    ours, plain = (row for row in rows if row["operation"] == "training")
    assert (ours["by"], plain["by"]) == ("hashdoor", "plain loop, 2 loaders")
    assert plain["faster"][1] > 0
    monkeypatch.setenv("COLUMNS", "80")
    for format_ in ("markdown", "rich"):
        command.print_rows([kernel_benchmark.Row(**row) for row in rows], format_)
        text = capsys.readouterr().out
        assert {"numpy loop", "times ours"} <= {*re.findall(r"numpy loop|times ours", text)}
    assert max(map(len, text.splitlines())) <= 80


def test_the_plain_loop_takes_the_same_step():
    """In float32, on one batch and without augmentation, both leave the same network; else nothing is timed."""
    model = throughput.untrained_model("convnet", 32)
    split = throughput.random_split(Rng("tests"), 16, 32)
    recipe = replace(throughput.RECIPE, batch=16, precision="float32", optimizer="sgd", lr=1e-3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    throughput.check_step(model, split, recipe)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(AssertionError, match="training"):  # two batches, which each loop draws on its own
        throughput.check_step(model, split, replace(recipe, batch=8))


def test_an_unknown_trial_is_refused(tmp_path):
    from bench.engine.store import Store

    Store(tmp_path / "runs", create=True)
    with pytest.raises(UserError, match="'abc'"):
        command.kernels(trial="ABC", store=tmp_path / "runs")


def test_growth_is_one_call_per_size_and_memory_counts_what_is_held():
    rows = list(kernel_benchmark.growth(1, (64, 80), (5, 10, 20)))
    assert len(rows) == 2 * 3 * 2
    assert {row.items for row in rows} == {64, 80}
    with mmap.mmap(-1, 64 * 2**20) as fresh:  # pages that no allocator holds yet
        held, _ = kernel_benchmark.peak_memory(lambda: fresh.__setitem__(slice(None, None, 4096), bytes(2**14)))
    assert np.isnan(held) or 60 < held < 70


def test_packing_refuses_nothing_that_it_took():
    assert np.array_equal(pack(np.array([[np.inf, -np.inf] * 4])).unpack(), [[1, -1] * 4])
