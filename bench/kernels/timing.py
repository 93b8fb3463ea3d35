"""Timing of contenders in turn, in one process, so that other work on the machine slows all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from jaxtyping import Float64

from hashing.numba_threads import start_threads

LEAST = 0.01  # seconds of a sample at least; short calls are repeated
Quantiles = tuple[float, float, float]  # 10 %, median, 90 %


@dataclass(frozen=True)
class Contender:
    """call: works on `units` queries, items or images; seconds are per unit."""

    call: Callable[[], Any]
    units: int = 1


@dataclass(frozen=True)
class Samples:
    """Seconds per unit of each contender, one per round."""

    seconds: Mapping[str, Float64[np.ndarray, " r"]]

    def of(self, name: str) -> Quantiles:
        return quantiles(self.seconds[name])

    def ratio(self, slow: str, fast: str) -> Quantiles:
        """How many times longer `slow` takes, round by round."""
        return quantiles(self.seconds[slow] / self.seconds[fast])


def timed(call: Callable[[], object], times: int = 1, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds that so many calls take together."""
    start = clock()
    for _ in range(times):
        call()
    return clock() - start


def quantiles(values: Float64[np.ndarray, " r"]) -> Quantiles:
    low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
    return float(low), float(middle), float(high)


def time_in_turn(
    contenders: Mapping[str, Contender], *, rounds: int, clock: Callable[[], float] = time.perf_counter
) -> Samples:
    """Every contender once per round, each round beginning with another; first calls, which compile, do not count."""
    names = list(contenders)
    repeats = {}
    for name in names:
        contenders[name].call()
        repeats[name] = max(1, round(LEAST / max(timed(contenders[name].call, clock=clock), 1e-7)))
    found: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            times = repeats[name]
            found[name].append(timed(contenders[name].call, times, clock) / times / contenders[name].units)
    return Samples({name: np.array(values) for name, values in found.items()})


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Sets the number of threads of numba, torch, OpenMP, BLAS and faiss inside the block."""
    start_threads()
    import numba
    import torch
    from threadpoolctl import threadpool_limits

    before, faiss_before = (numba.get_num_threads(), torch.get_num_threads()), 0
    numba.set_num_threads(count)
    torch.set_num_threads(count)
    if find_spec("faiss"):
        import faiss

        faiss_before = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        if faiss_before:
            faiss.omp_set_num_threads(faiss_before)
        numba.set_num_threads(before[0])
        torch.set_num_threads(before[1])  # last: libraries may share OpenMP's count
