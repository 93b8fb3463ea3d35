"""`bench kernels`: the speed of the kernels on this machine, beside other libraries and the limits of the machine."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.api.errors import UserError
from bench.cli.console import console, echo, say
from bench.cli.options import DEFAULT_STORE, Format, StorePath, device_of, emit, emit_all

if TYPE_CHECKING:
    from bench.kernels.kernel_benchmark import Row
    from bench.kernels.workloads import Retrieval

TITLES = {
    "ranking": "Ranking",
    "search": "Search and distances, one thread",
    "limits": "Limits of this machine",
    "throughput": "Packing, encoding and training",
    "growth": "Growth",
}
IN_TITLE = {"operation", "bits", "items", "threads"}


def kernels(
    quick: Annotated[bool, typer.Option("--quick", help="Measure one database size only (about one minute).")] = False,
    trial: Annotated[
        str | None, typer.Option(metavar="KEY", help="Measure also with the codes of this trial's model.")
    ] = None,
    store: StorePath = DEFAULT_STORE,
    threads: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Number of threads of all libraries; 0: all cores. Search and distances always use one thread.",
        ),
    ] = 0,
    device: Annotated[str, typer.Option(help="Device on which encoding and training are timed.")] = "cpu",
    format_: Format = "rich",
) -> None:
    """Measure the speed of packing, distances, top-k and average precision, beside numpy, torch, faiss and others."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads of one library would slow the others
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from bench.kernels.workloads import of_trial

    stored = None if trial is None else of_trial(store, trial.strip().lower())
    where = device_of(device)
    rows: list[Row] = []
    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
    with Progress(*columns, transient=True, console=console(stderr=True)) as progress:
        task = progress.add_task("compiling", total=None)
        for row in _measured(quick, stored, threads, where):
            rows.append(row)
            progress.update(task, description=f"{row.operation}, {row.by}, {row.items:,} items")
    print_rows(rows, format_)


def _measured(quick: bool, stored: Retrieval | None, wanted: int, device: str) -> Iterator[Row]:
    from bench.kernels import kernel_benchmark, throughput, workloads

    size = kernel_benchmark.QUICK if quick else kernel_benchmark.FULL
    workers = wanted or kernel_benchmark.cores()
    if workers > kernel_benchmark.cores():
        raise UserError(f"--threads {workers}: at most {kernel_benchmark.cores()} can be used here")
    databases = [workloads.clustered(n, size.queries, bits) for n in size.items for bits in size.bits]
    databases.append(workloads.trained(size.items[len(size.items) // 2], size.queries, size.bits[len(size.bits) // 2]))
    for data in [*databases, *([stored] if stored is not None else [])]:
        for comparison in kernel_benchmark.ranking_comparisons(data, workers):
            yield from comparison.run("ranking", size.rounds)
        for comparison in kernel_benchmark.search_comparisons(data, size.ks):
            yield from comparison.run("search", size.rounds)
    yield from kernel_benchmark.one_query(size.large, 64, workers, size.rounds)
    yield kernel_benchmark.popcount_rate(size.rounds)
    yield from kernel_benchmark.packing(size.rounds, 54_000)
    networks = ("convnet",) if quick else ("convnet", "resnet18", "mobilenet_v2")
    yield from throughput.encoding_and_training(
        networks, 128 if quick else 1000, 32, 2 if quick else 20, workers, size.rounds, device
    )
    if not quick:
        yield from kernel_benchmark.growth(workers)


def print_rows(rows: list[Row], format_: str) -> None:
    """Print measured rows as one table per comparison (rich), one table per section, or JSON with the machine."""
    from dataclasses import asdict

    from bench.engine.provenance import installed, provenance

    made = provenance()
    machine: dict[str, Any] = {
        "processor": made.processor,
        "cores": os.cpu_count() or 1,
        "packages": {**made.packages, **{name: installed(name) for name in ("faiss-cpu", "usearch", "numkong")}},
    }
    if format_ == "json":
        import json

        echo(json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=1))
        return
    sections = {title: [row for row in rows if row.section == section] for section, title in TITLES.items()}
    if format_ == "rich":
        for title, mine in sections.items():
            if mine:
                _print_section(title, mine)
    else:
        emit_all({title: _without_empty(map(_words, mine)) for title, mine in sections.items() if mine}, format_)
    if format_ in {"rich", "markdown"}:
        packages = ", ".join(f"{name} {version or 'not installed'}" for name, version in machine["packages"].items())
        say(
            f"{machine['processor']}, {machine['cores']} cores. {packages}.\n"
            "time: for one query, code, pass or image; median over rounds in which all rows take turns.\n"
            "10-90 %: the 10 % and the 90 % quantile over the rounds, divided by the median.\n"
            "times ours: how many times longer than HashDoor's kernel (the first row) in the same round.\n"
            "limit: share of the speed at which this machine reads memory."
        )


def _print_section(title: str, rows: list[Row]) -> None:
    """A table for each comparison: its sizes stand in the title, so that the columns fit into 80 characters."""
    say(f"{title.upper()}\n")
    for (operation, bits, items, threads), comparison in groupby(
        rows, lambda row: (row.operation, row.bits, row.items, row.threads)
    ):
        sizes = [f"{bits} bits"] * (bits > 0) + [f"{items:,} items"] * (items > 0)
        lines = [{key: text for key, text in _words(row).items() if key not in IN_TITLE} for row in comparison]
        if any(line["times ours"] for line in lines):
            lines = [{key: text for key, text in line.items() if key != "10-90 %"} for line in lines]
        emit(", ".join([operation, *sizes, f"{threads} thread{'s' * (threads > 1)}"]), _without_empty(lines), "rich")


def _without_empty(rows: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    """Rows without the columns that no row fills."""
    held = list(rows)
    kept = [key for key in held[0] if any(row[key] for row in held)]
    return [{key: row[key] for key in kept} for row in held]


def _words(row: Row) -> dict[str, str]:
    per = row.seconds[1] if row.seconds else float("nan")
    rates = {
        "Gcodes/s": f"{row.codes / per / 1e9:.3g}" if row.codes > 1 else "",
        "GB/s": f"{row.nbytes / per / 1e9:.3g}" if row.nbytes else "",
        "images/s": f"{1 / per:.4g}" if row.unit == "image" else "",
    }
    return {
        "operation": row.operation,
        "by": row.by,
        "bits": str(row.bits or ""),
        "items": f"{row.items:,}" if row.items else "",
        "threads": str(row.threads),
        "time": _time(per) if row.seconds else "",
        "10-90 %": f"{row.seconds[0] / per:.2f}-{row.seconds[2] / per:.2f}" if row.seconds else "",
        **(rates if row.seconds else dict.fromkeys(rates, "")),
        "times ours": f"{row.faster[1]:.3g} ({row.faster[0]:.3g}-{row.faster[2]:.3g})" if row.faster else "",
        "limit": f"{row.limit:.0%}" if row.limit is not None else "",
        "note": row.note,
    }


def _time(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"
