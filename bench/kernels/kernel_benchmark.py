"""The measurements of `bench kernels`: each kernel beside other libraries and the limits of the machine.

The results of all contenders are compared before they are timed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.kernels import baselines
from bench.kernels.timing import Contender, Quantiles, Samples, threads, time_in_turn, timed
from bench.kernels.workloads import Retrieval, clustered
from hashing.codes import Backend, PackedCodes, hamming_distances, pack, topk
from hashing.ranking import Denominator, Ties, average_precision, distance_histograms

KINDS: tuple[Ties, Ties] = ("expected", "index")
OWN: tuple[Backend, Backend] = ("numba", "torch")
RIVALS = ("faiss", "usearch", "numkong")
FEW = 8  # number of queries for slow baselines, whose time is linear in it
CUTOFF = 1000
DENOMINATOR: tuple[Denominator, Denominator] = ("relevant", "hits")  # of AP; of AP@k, as in papers


@dataclass(frozen=True)
class Size:
    """Sizes of the measurement. large: number of items in a database that exceeds every cache, for one query."""

    bits: tuple[int, ...]
    items: tuple[int, ...]
    queries: int
    rounds: int
    large: int
    ks: tuple[int, ...] = (100, 1000, 5000)


QUICK = Size(bits=(64,), items=(54_000,), queries=256, rounds=5, large=4_000_000, ks=(100, 1000))
FULL = Size(bits=(16, 32, 64, 128, 256), items=(10_000, 54_000, 117_000), queries=256, rounds=7, large=10_000_000)


@dataclass(frozen=True)
class Row:
    """One contender in one comparison.

    seconds: per unit (10 %, median, 90 %); None: it did not run, for the reason in `note`. codes, nbytes: compared and
    read per unit. faster: how many times longer it takes than HashDoor's kernel in this comparison. limit: share of the
    speed at which this machine reads memory.
    """

    section: str
    operation: str
    by: str
    threads: int
    bits: int = 0
    items: int = 0
    unit: str = "query"
    seconds: Quantiles | None = None
    codes: int = 0
    nbytes: int = 0
    faster: Quantiles | None = None
    limit: float | None = None
    note: str = ""


@dataclass
class Comparison:
    """One operation on one database; contenders[0] is HashDoor's kernel.

    agree: raises AssertionError if two contenders differ. missing: baselines that cannot run here, with the reason.
    """

    operation: str
    data: Retrieval
    threads: int
    contenders: Mapping[str, Contender]
    agree: Callable[[], None]
    missing: Mapping[str, str] = field(default_factory=dict)

    def run(self, section: str, rounds: int) -> Iterator[Row]:
        bits, items = self.data.database.bits, len(self.data.database)
        with threads(self.threads):
            self.agree()
            samples = time_in_turn(self.contenders, rounds=rounds)
        nbytes = self.data.database.words.nbytes
        operation = self.operation + (f", {self.data.name} codes" if self.data.name else "")
        row = Row(section, operation, "", self.threads, bits, items, codes=items, nbytes=nbytes)
        for by, seconds, faster in against_first(samples):
            yield replace(row, by=by, seconds=seconds, faster=faster)
        for by, why in self.missing.items():
            yield replace(row, by=by, note=why)


def against_first(samples: Samples) -> Iterator[tuple[str, Quantiles, Quantiles | None]]:
    """Name, seconds, and ratio to the first contender's seconds (None for the first) of each contender."""
    first, *others = samples.seconds
    yield first, samples.of(first), None
    for name in others:
        yield name, samples.of(name), samples.ratio(name, first)


def cores() -> int:
    """The number of threads that numba was started with and this process may use."""
    import numba

    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(here, int(numba.config.NUMBA_NUM_THREADS))


def ranking_comparisons(data: Retrieval, workers: int) -> Iterator[Comparison]:
    """Average precision in three forms: ties by index, expected over ties, and cut off at k."""
    q, base, own, relevance = data.queries, data.database, data.own, data.relevance
    few, slow = min(FEW, len(q)), data.signs(FEW)

    def ap(backend: Backend, count: int, cutoff: int | None = None, ties: Ties = "index") -> Contender:
        part, labels, below = q.select(slice(count)), own[:count], DENOMINATOR[cutoff is not None]
        work = partial(average_precision, part, base, relevance, labels, cutoff, ties=ties, denominator=below)
        return Contender(partial(work, backend=backend), count)

    def loop(cutoff: int | None) -> Contender:
        return Contender(partial(baselines.numpy_loop, *slow, cutoff), few)

    def same(cutoff: int | None) -> None:
        for backend in OWN:
            expected = baselines.numpy_loop(*slow, cutoff, stable=True)
            np.testing.assert_allclose(ap(backend, few, cutoff).call(), expected, rtol=0, atol=1e-12)

    def equal_counts() -> None:
        part = q.select(slice(few)), base, relevance, own[:few]
        one, two = (distance_histograms(*part, backend=backend) for backend in OWN)
        assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True)), "the back ends count differently"

    sort = Contender(partial(baselines.torch_sort, *slow), few)
    index = {
        "numba": ap("numba", len(q)),
        "torch": ap("torch", len(q)),
        "numpy loop": loop(None),
        "torch argsort": sort,
    }
    yield Comparison("AP, ties by index", data, workers, index, partial(same, None))
    expected = {"numba": ap("numba", len(q), ties="expected"), "torch": ap("torch", len(q), ties="expected")}
    yield Comparison("AP, expected", data, workers, {**expected, "numpy loop": loop(None)}, equal_counts)
    cut = {"numba": ap("numba", len(q), CUTOFF), "torch": ap("torch", len(q), CUTOFF), "numpy loop": loop(CUTOFF)}
    yield Comparison(f"AP@{CUTOFF}, ties by index", data, workers, cut, partial(same, CUTOFF))


def search_comparisons(data: Retrieval, ks: tuple[int, ...]) -> Iterator[Comparison]:
    """Top-k and all distances, with one thread, because libraries differ in how they use several."""
    q, base = data.queries, data.database
    count = min(256, len(q))
    part, few = q.select(slice(count)), q.select(slice(min(FEW, len(q))))
    missing = {name: why for name in RIVALS if (why := _missing(name, base.bits))}
    index, asked = (None, None) if "faiss" in missing else (baselines.faiss_index(base), baselines.nbytes(part))
    for k in dict.fromkeys(
        min(k, len(base)) for k in ks
    ):  # faiss pads results where the database holds fewer than k items
        contenders = {"numba": Contender(partial(topk, part, base, k), count)}
        checks: list[Callable[[], None]] = []
        if index is not None and asked is not None:
            counted = partial(index.search, asked, k)
            contenders["faiss"] = Contender(counted, count)
            checks.append(partial(_as_far, "faiss", partial(_first_of, counted), part, base, k))
        if "usearch" not in missing:
            search = baselines.usearch_search(few, base, k)
            contenders["usearch"] = Contender(search, len(few))
            checks.append(partial(_as_far, "usearch", partial(_distances_of, search), few, base, k))
        absent = {name: why for name, why in missing.items() if name != "numkong"}
        yield Comparison(f"top-{k}", data, 1, contenders, partial(_all, checks), absent)
    if hasattr(np, "bitwise_count"):
        out = np.empty((len(part), len(base)), np.uint8 if base.bits <= 255 else np.uint16)
        baselines.numpy_distances(part, base, out)
        calls = {name: partial(hamming_distances, part, base, backend=name) for name in OWN}
        contenders = {str(name): Contender(call, len(part)) for name, call in calls.items()}
        contenders["numpy bitwise_count"] = Contender(partial(baselines.numpy_distances, part, base, out), len(part))
        checks = [partial(_equal, part, base, out)]
        if "numkong" not in missing:
            theirs = baselines.numkong_distances(part, base)
            contenders["numkong"] = Contender(theirs, len(part))
            checks.append(partial(_as_numpy, theirs, out))
        absent = {name: why for name, why in missing.items() if name == "numkong"}
        yield Comparison("distances", data, 1, contenders, partial(_all, checks), absent)


def one_query(items: int, bits: int, workers: int, rounds: int) -> Iterator[Row]:
    """One query against a database that exceeds every cache, beside reading the same bytes."""
    data = clustered(items, 1, bits)
    words = data.database.words.reshape(-1)
    head = data.database.select(slice(1000))
    _equal(data.queries, head, (data.queries.unpack()[:, None] != head.unpack()).sum(2))
    assert baselines.reading(words)() == words.sum(dtype=np.uint64)
    contenders = {
        "numba": Contender(partial(hamming_distances, data.queries, data.database)),
        "reading memory": Contender(baselines.reading(words)),
    }
    for used in sorted({1, workers}):
        with threads(used):
            samples = time_in_turn(contenders, rounds=rounds)
        share = 1 / samples.ratio("numba", "reading memory")[1]
        row = Row("limits", "distances of one query", "numba", used, bits, items, codes=items, nbytes=words.nbytes)
        yield replace(row, seconds=samples.of("numba"), limit=share)
        yield replace(row, by="reading memory", seconds=samples.of("reading memory"))


def popcount_rate(rounds: int) -> Row:
    """The rate of XOR and popcount of one core on words in its cache."""
    with threads(1):
        samples = time_in_turn({"popcount": Contender(baselines.counting(1000), 1000)}, rounds=rounds)
    size = baselines.RESIDENT
    row = Row("limits", "xor and popcount in cache", "popcount", 1, 64, size, unit="pass", codes=size, nbytes=8 * size)
    return replace(row, seconds=samples.of("popcount"))


def packing(rounds: int, items: int) -> Iterator[Row]:
    logits = np.random.default_rng(0).standard_normal((items, 64), np.float32)
    flat = np.packbits((logits > 0).reshape(-1), bitorder="little")
    assert np.array_equal(pack(logits).words.T.reshape(-1).view(np.uint8), flat)
    contenders = {
        "pack": Contender(partial(pack, logits), items),
        "numpy packbits": Contender(lambda: np.packbits((logits > 0).reshape(-1), bitorder="little"), items),
    }
    with threads(1):
        samples = time_in_turn(contenders, rounds=rounds)
    for by, seconds, faster in against_first(samples):
        yield Row("throughput", "packing", by, 1, 64, items, "code", seconds, codes=1, nbytes=256, faster=faster)


def growth(
    workers: int,
    sizes: Sequence[int] = (10**4, 10**5, 10**6, 10**7),
    counts: Sequence[int] = (10**2, 10**3, 10**4),
) -> Iterator[Row]:
    """Time and memory of both kinds of AP as database and queries grow; each is one call, after a small first one.

    sizes: of databases. counts: of queries.
    """
    for items in sizes:
        data = clustered(items, max(counts), 64)
        relevance = data.relevance
        for queries in counts:
            for ties in KINDS:
                work = partial(average_precision, data.queries.select(slice(queries)), data.database, relevance)
                call = partial(work, data.own[:queries], ties=ties)
                with threads(workers):
                    average_precision(data.queries.select(slice(1)), data.database, relevance, data.own[:1], ties=ties)
                    memory, seconds = peak_memory(call)
                row = Row("growth", f"AP, {ties}, {queries:,} queries", "numba", workers, 64, items, codes=items)
                per, note = seconds / queries, f"{memory:.0f} MiB beside the codes"
                yield replace(row, seconds=(per, per, per), nbytes=8 * items, note=note)


def peak_memory(call: Callable[[], object]) -> tuple[float, float]:
    """Largest growth of the process's memory during a call in MiB (NaN if the system does not tell), and seconds."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    try:
        reset.write_text("5", encoding="ascii")  # resets the kernel's high-water mark to the present use
        before = _kib(status, "VmRSS")
    except OSError:
        return float("nan"), timed(call)
    took = timed(call)
    return (_kib(status, "VmHWM") - before) / 1024, took


def _kib(status: Path, name: str) -> float:
    line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith(name))
    return float(line.split()[1])


def _missing(name: str, bits: int) -> str:
    """Why this library cannot run here; empty if it can."""
    return "not installed" if baselines.absent(name) else "takes whole bytes only" if bits % 8 else ""


def _all(checks: Sequence[Callable[[], None]]) -> None:
    for check in checks:
        check()


def _first_of(search: Callable[[], tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    return search()[0]


def _distances_of(search: Callable[[], Any]) -> np.ndarray:
    return np.asarray(search().distances)


def _as_far(name: str, search: Callable[[], np.ndarray], part: PackedCodes, base: PackedCodes, k: int) -> None:
    assert np.array_equal(np.sort(search(), 1), topk(part, base, k)[1]), f"{name} finds other distances"


def _as_numpy(theirs: Callable[[], object], out: np.ndarray) -> None:
    assert np.array_equal(np.asarray(theirs()), out), "numkong finds other distances"


def _equal(part: PackedCodes, base: PackedCodes, out: np.ndarray) -> None:
    for name in OWN:
        assert np.array_equal(hamming_distances(part, base, backend=name), out), "numpy finds other distances"
