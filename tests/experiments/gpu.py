"""The GPU check: what only a machine with a GPU can show, in a given number of minutes.

    python -m tests.experiments.gpu [--minutes M] [--out DIR] [--device cuda] [--only STEP ...]

Each step writes its rows into `gpu.json` in DIR, and a table as Markdown beside it, as soon as it ends; a step that
would outlast the time that is left is named as left out. Runs of suites and pytest are processes of their own, so that
a crash is one row.
`--device cpu` tries the check itself where there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.api import registry
from bench.api.hashing import Backbone, HashingMethod, Recipe
from bench.api.random import Rng
from bench.api.types import Split
from bench.engine.process_state import set_torch
from bench.engine.record_cache import RecordCache
from bench.engine.store import Store
from bench.kernels.throughput import random_split
from bench.kernels.timing import Contender, Samples, time_in_turn
from bench.kernels.workloads import clustered
from hashing.codes import hamming_distances
from hashing.inference import encode
from hashing.loader import Augmentation
from hashing.model import HashModel, build_model
from hashing.ranking import average_precision
from hashing.train import fit, optimizer_of

ROOT = Path(__file__).resolve().parents[2]
SIDE, BITS, CLASSES = 224, 64, 100
NETWORKS = ("resnet18", "vgg11", "vit_b_16")
MATRIX = 8192  # side of the product whose rate is taken as the card's peak


@dataclass(frozen=True)
class Row:
    """One number of the check, as it is printed."""

    step: str
    what: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Where:
    """device: torch's name. work: a folder for stores. seconds: what is left for a process."""

    device: str
    work: Path
    seconds: Callable[[], float]

    @property
    def gpu(self) -> bool:
        return self.device.startswith("cuda")


def machine(where: Where) -> Iterator[Row]:
    yield Row("machine", "torch", torch.__version__, f"Python {platform.python_version()}, {os.cpu_count()} cores")
    if where.gpu:
        about = torch.cuda.get_device_properties(where.device)
        memory = f"{about.total_memory / 2**30:.0f} GiB"
        yield Row("machine", "GPU", about.name, f"{memory}, capability {about.major}.{about.minor}")
    yield Row("machine", "matrix product in bf16", f"{peak(where) / 1e12:.0f} TFLOP/s", f"{MATRIX} x {MATRIX}")


def peak(where: Where) -> float:
    """Operations per second of a large matrix product in bf16."""
    side = MATRIX if where.gpu else 512
    a, b = (torch.randn(side, side, device=where.device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / best(where, lambda: a @ b, rounds=10)


def best(where: Where, call: Callable[[], object], *, rounds: int) -> float:
    """Seconds of the fastest call, the device's work included."""
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        call()
        waited(where)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def waited(where: Where) -> None:
    if where.gpu:
        torch.cuda.synchronize()


def tests(where: Where) -> Iterator[Row]:
    """The tests that need a device; a file whose packages are not here (faiss) does not stop the others."""
    done = ran(where, "-m", "pytest", "tests", "-m", "gpu", "-q", "--continue-on-collection-errors")
    yield Row("tests", "pytest -m gpu", last_line(done), "" if done.returncode == 0 else tail(done))


def ran(where: Where, *words: str) -> subprocess.CompletedProcess[str]:
    """A Python process with these arguments; one that takes too long ends with the exit code 124."""
    command = [sys.executable, *words]
    try:
        return subprocess.run(
            command, cwd=ROOT, text=True, capture_output=True, timeout=where.seconds(), check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", "ran out of time")


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in (done.stdout or done.stderr).splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {done.returncode}"


def tail(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stdout + done.stderr)[-1500:]


def suite(where: Where, name: str, device: str, *options: str) -> tuple[Path, subprocess.CompletedProcess[str], float]:
    """A run of a shipped suite into a store of its own."""
    store = where.work / "-".join([name, device, *(word.strip("-") for word in options)])
    start = time.perf_counter()
    done = ran(where, "-m", "bench", "run", "--suite", name, "--store", str(store), "--device", device, *options)
    return store, done, time.perf_counter() - start


def metrics_of(store: Path) -> dict[tuple[str, ...], dict[str, float]]:
    """The numbers of each finished trial."""
    opened = Store(store)
    records, found = RecordCache(opened), {}
    for manifest in opened.runs():
        for planned in manifest.trials:
            record = records.record(planned.key) if planned.key else None
            if record is not None and record.ok:
                numbers = {name: value for name, value in record.metrics.items() if isinstance(value, int | float)}
                found[tuple(map(str, planned.trial.axes().values()))] = {k: float(v) for k, v in numbers.items()}
    return found


def apart(one: Path, other: Path) -> str:
    """How far the main numbers of two stores lie from each other."""
    a, b = metrics_of(one), metrics_of(other)
    words = [f"{len(a.keys() & b.keys())} trials"]
    for name in ("map", "t_map", "own_map"):
        both = [(a[k][name], b[k][name]) for k in a.keys() & b.keys() if name in a[k] and name in b[k]]
        if both:
            gaps = np.abs(np.subtract(*np.array(both).T))
            words.append(f"{name} differs by {np.nanmean(gaps):.3f} in the mean, {np.nanmax(gaps):.3f} at most")
    return "; ".join(words)


def smoke(where: Where) -> Iterator[Row]:
    yield from against_cpu(where, "smoke", ("--executor", "serial"))


def quick(where: Where) -> Iterator[Row]:
    """`quick` on the device, four stages sharing it and one after another, beside the processor."""
    yield from against_cpu(where, "quick", ("--executor", "ray"))
    if where.gpu:
        _, done, seconds = suite(where, "quick", where.device, "--executor", "serial")
        what = f"{where.device}, one stage after another"
        yield Row("quick", what, f"{seconds:.0f} s", "" if done.returncode == 0 else tail(done))


def against_cpu(where: Where, name: str, options: tuple[str, ...]) -> Iterator[Row]:
    stores = []
    for device in dict.fromkeys((where.device, "cpu")):
        store, done, seconds = suite(where, name, device, *options)
        stores.append(store)
        yield Row(name, f"{device}, {options[-1]}", f"{seconds:.0f} s", "" if done.returncode == 0 else tail(done))
        if done.returncode != 0:
            return
    yield Row(name, f"{where.device} beside cpu", apart(stores[0], stores[-1]))


def ranking(where: Where) -> Iterator[Row]:
    """The torch kernels on the device, checked against those of the processor and timed beside them."""
    data = clustered(117_000 if where.gpu else 5_000, 1_000, BITS)
    codes = data.queries, data.database, data.relevance, data.own
    for ties in ("expected", "index"):
        ours = partial(average_precision, *codes, ties=ties, backend="numba")
        theirs = partial(average_precision, *codes, ties=ties, backend="torch", device=where.device)
        np.testing.assert_allclose(ours(), theirs(), rtol=0, atol=1e-9)
        yield from raced("ranking", f"AP, {ties}", {"numba, cpu": ours, f"torch, {where.device}": theirs}, 1_000)
    pair = data.queries.select(slice(256)), data.database
    calls = {
        "numba, cpu": partial(hamming_distances, *pair, backend="numba"),
        f"torch, {where.device}": partial(hamming_distances, *pair, backend="torch", device=where.device),
    }
    one, other = (np.asarray(call()) for call in calls.values())
    assert np.array_equal(one, other), "distances differ"
    yield from raced("ranking", "distances, result on the processor", calls, 256)


def raced(step: str, what: str, calls: dict[str, Callable[[], object]], units: int) -> Iterator[Row]:
    samples = time_in_turn({name: Contender(call, units) for name, call in calls.items()}, rounds=3)
    for name in calls:
        yield Row(step, f"{what}: {name}", f"{1e6 * samples.of(name)[1]:.1f} us a query")


def kernels(where: Where) -> Iterator[Row]:
    done = ran(where, "-m", "bench", "kernels", "--quick", "--device", where.device, "--format", "json")
    if done.returncode != 0:
        yield Row("kernels", "bench kernels", f"exit code {done.returncode}", tail(done))
        return
    for row in json.loads(done.stdout)["rows"]:
        if row["seconds"]:
            value = f"{1e6 * row['seconds'][1]:.2f} us a {row['unit']}"
            yield Row("kernels", f"{row['operation']}: {row['by']}", value, row["note"])


def network(name: str, where: Where) -> HashModel:
    method: HashingMethod = registry.create("methods", "csq", {})
    backbone: Backbone = registry.create("backbones", name, {"weights": "none"})
    model = build_model(
        backbone=backbone, method=method, bits=BITS, image_shape=(3, SIDE, SIDE), classes=CLASSES,
        train_size=1000, rng=Rng("gpu", name),
    )  # fmt: skip
    return model.to(where.device)


def plain(model: HashModel, split: Split, recipe: Recipe) -> None:
    """What a careful researcher writes: images on the device, bf16, channels last, no reading of the loss."""
    optimizer = optimizer_of(model, recipe)
    model.train()
    order = torch.randperm(len(split), device=split.images.device)
    for index in order.split(recipe.batch):
        with torch.autocast(model.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            logits = model(split.images[index].float() / 255)
        loss = model.objective(logits.float(), split.labels[index], index, 0.0)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


def training(where: Where) -> Iterator[Row]:
    """The one training loop (crops, mirroring, deterministic algorithms) beside a plain one; share of the peak."""
    limit = peak(where)
    batch, steps = (256, 16) if where.gpu else (4, 2)
    recipe = Recipe(optimizer="adam", lr=1e-4, weight_decay=0.0, batch=batch, epochs=1, precision="bf16")
    split = random_split(Rng("gpu"), batch * steps, SIDE, CLASSES).to(torch.device(where.device))
    for name in NETWORKS:
        model = network(name, where)
        flip = Augmentation(flip=True, pad=4)

        def own(model: HashModel = model, flip: Augmentation = flip) -> None:
            torch.use_deterministic_algorithms(mode=True, warn_only=True)
            fit(model, split, recipe, Rng("gpu", "fit"), augmentation=flip)
            waited(where)

        def other(model: HashModel = model) -> None:
            torch.use_deterministic_algorithms(mode=False)
            plain(model, split, recipe)
            waited(where)

        with FlopCounterMode(display=False) as flops:
            out = model(split.images[:2].float() / 255)
            out.sum().backward()
        each = flops.get_total_flops() / 2
        calls = {"hashdoor": own, "plain loop": other}
        if where.gpu:
            torch.cuda.reset_peak_memory_stats()
        samples = time_in_turn(
            {by: Contender(call, len(split)) for by, call in calls.items()}, rounds=3 if where.gpu else 1
        )
        for by in calls:
            rate = 1 / samples.of(by)[1]
            yield Row("training", f"{name}: {by}", f"{rate:.0f} images/s", f"{100 * rate * each / limit:.1f} % of peak")
        if where.gpu:
            memory = torch.cuda.max_memory_allocated() / 2**30
            yield Row("training", f"{name}: memory", f"{memory:.1f} GiB", f"batch {batch}, {SIDE} px, bf16")
        yield from encoding(where, name, model, split)


def encoding(where: Where, name: str, model: HashModel, split: Split) -> Iterator[Row]:
    images = split.images.cpu()
    call = partial(encode, model, images, device=torch.device(where.device))
    samples: Samples = time_in_turn({"encode": Contender(call, len(images))}, rounds=3 if where.gpu else 1)
    value = f"{1 / samples.of('encode')[1]:.0f} images/s"
    yield Row("encoding", name, value, f"float32, {SIDE} px, from the processor's memory")


STEPS: dict[str, tuple[Callable[[Where], Iterator[Row]], float]] = {  # with the seconds that each takes on an H100
    "machine": (machine, 10),
    "tests": (tests, 60),
    "smoke": (smoke, 60),
    "training": (training, 60),
    "ranking": (ranking, 30),
    "quick": (quick, 200),
    "kernels": (kernels, 60),
}


def main(device: str, minutes: float, out: Path, only: list[str]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * minutes
    set_torch(min(8, os.cpu_count() or 1))
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        where = Where(device, Path(folder), lambda: max(1.0, end - time.monotonic()))
        for step in only or STEPS:
            work, seconds = STEPS[step]
            start = time.monotonic()
            if end - start < seconds:
                rows.append(Row(step, "left out", f"{seconds:.0f} s are needed, {end - start:.0f} s are left"))
            else:
                try:
                    for row in work(where):
                        rows.append(row)
                        print(f"{step}: {row.what}: {row.value} {row.note}", flush=True)
                except (RuntimeError, AssertionError, ValueError, TypeError) as error:  # the other steps still run
                    rows.append(Row(step, "failed", type(error).__name__, str(error)[-1500:]))
                    print(rows[-1], flush=True)
                rows.append(Row(step, "took", f"{time.monotonic() - start:.0f} s"))
            written(rows, out)


def written(rows: list[Row], out: Path) -> None:
    content: list[dict[str, Any]] = [asdict(row) for row in rows]
    (out / "gpu.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    lines = ["| step | what | value | note |", "|---|---|---|---|"]
    for row in rows:
        note = " ".join(row.note.split()).replace("|", "/")[:300]
        lines.append(f"| {row.step} | {row.what} | {row.value} | {note} |")
    (out / "gpu.json").with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--out", type=Path, default=Path("gpu-check"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", nargs="*", choices=list(STEPS), default=[])
    given = parser.parse_args()
    main(given.device, given.minutes, given.out, given.only)
