"""pytest-benchmark over the races of `bench kernels`: each contender, once its result agrees with the others'."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest

from bench.kernels.kernel_benchmark import FEW, Race, ranking_races, search_races
from bench.kernels.timing import threads
from bench.kernels.workloads import Retrieval, clustered

DATA = [(54_000, 64), (54_000, 16)]
OWN = ("numba", "torch")


@cache
def database(items: int, bits: int) -> Retrieval:
    return clustered(items, FEW, bits)  # as many as slow rivals get, so that times compare


def races(items: int, bits: int) -> Iterator[Race]:
    data = database(items, bits)
    yield from ranking_races(data, 1)
    yield from search_races(data, (100, 1000))


CASES = [
    pytest.param(items, bits, race.operation, by, id=f"{race.operation}-{bits}-{by}")
    for items, bits in DATA
    for race in races(items, bits)
    for by in race.contenders
]


@pytest.mark.parametrize(("items", "bits", "operation", "by"), CASES)
def test_kernel(benchmark, items: int, bits: int, operation: str, by: str) -> None:
    race = next(race for race in races(items, bits) if race.operation == operation)
    contender = race.contenders[by]
    with threads(1):
        race.agree()
        benchmark.extra_info["queries"] = contender.units
        if by in OWN:
            benchmark(contender.call)
        else:
            benchmark.pedantic(contender.call, rounds=3, warmup_rounds=1)
