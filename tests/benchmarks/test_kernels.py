"""pytest-benchmark over the comparisons of `bench kernels`: each contender, once its result agrees with the others'."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest

from bench.kernels.kernel_benchmark import FEW, Comparison, ranking_comparisons, search_comparisons
from bench.kernels.timing import threads
from bench.kernels.workloads import Retrieval, clustered

DATA = [(54_000, 64), (54_000, 16)]
OWN = ("numba", "torch")


@cache
def database(items: int, bits: int) -> Retrieval:
    return clustered(items, FEW, bits)  # as many as slow baselines get, so that times compare


def comparisons(items: int, bits: int) -> Iterator[Comparison]:
    data = database(items, bits)
    yield from ranking_comparisons(data, 1)
    yield from search_comparisons(data, (100, 1000))


CASES = [
    pytest.param(items, bits, comparison.operation, by, id=f"{comparison.operation}-{bits}-{by}")
    for items, bits in DATA
    for comparison in comparisons(items, bits)
    for by in comparison.contenders
]


@pytest.mark.parametrize(("items", "bits", "operation", "by"), CASES)
def test_kernel(benchmark, items: int, bits: int, operation: str, by: str) -> None:
    comparison = next(comparison for comparison in comparisons(items, bits) if comparison.operation == operation)
    contender = comparison.contenders[by]
    with threads(1):
        comparison.agree()
        benchmark.extra_info["queries"] = contender.units
        if by in OWN:
            benchmark(contender.call)
        else:
            benchmark.pedantic(contender.call, rounds=3, warmup_rounds=1)
