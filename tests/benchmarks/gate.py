"""Compares the speed of the kernels in the working tree with that of another revision, on this machine.

    python tests/benchmarks/gate.py [--quick] [--against REVISION]

Three processes run: the working tree, the base revision, and the base revision once more (its twin), which shows the
noise of this machine. In each round all three time every case, in changing order, in processor time of one thread. A
case fails if the whole interval of the ratio (99 %, of the median over rounds) lies above both the twin's interval and
LIMIT, or if the working tree raises an error. Without a base revision, or if the base lacks a function, the answer is
"not comparable".
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from scipy.stats import binom

ROOT = Path(__file__).parents[2]
LIMIT = 1.10  # a smaller loss is not worth a red light
WORKER = r"""
import json, os, sys, time
import numpy as np
sys.path.insert(0, sys.argv[1])
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
def load():
    import numba
    from hashing.codes import hamming_distances, pack, topk
    from hashing.ranking import Relevance, average_precision
    numba.set_num_threads(1)
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((10, 64))
    def draw(n):
        labels = rng.integers(10, size=n)
        return (centres[labels] + rng.standard_normal((n, 64))).astype(np.float32), labels
    (x, own), (y, labels) = draw(200), draw(54_000)
    q, d, r = pack(x), pack(y), Relevance(labels)
    tight_q, tight = pack(centres[own] + 0.4 * (x - centres[own])), pack(centres[labels] + 0.4 * (y - centres[labels]))
    return {
        "AP, ties by index": lambda: average_precision(q, d, r, own, ties="index"),
        "AP, expected": lambda: average_precision(q, d, r, own),
        "AP@1000, ties by index": lambda: average_precision(q, d, r, own, 1000, ties="index"),
        "AP, expected, codes of a few clusters": lambda: average_precision(tight_q, tight, r, own),
        "AP by index, codes of a few clusters": lambda: average_precision(tight_q, tight, r, own, ties="index"),
        "top-1000": lambda: topk(q, d, 1000)[1],
        "top-100": lambda: topk(q, d, 100)[1],
        "distances": lambda: hamming_distances(q.select(slice(50)), d),
        "packing": lambda: pack(y).words,
    }
try:
    cases, broken = load(), ""
except Exception as error:
    cases, broken = {}, f"{type(error).__name__}: {error}"
for line in sys.stdin:
    name, first = line.strip().removesuffix("!"), line.strip().endswith("!")
    try:
        if broken:
            raise RuntimeError(broken)
        found = {"result": float(np.nansum(cases[name]().astype(np.float64)))} if first else {}
        start, times = time.process_time(), 0
        while time.process_time() - start < 0.03:
            cases[name]()
            times += 1
        found["seconds"] = (time.process_time() - start) / times
    except Exception as error:
        found = {"broken": f"{type(error).__name__}: {error}"}
    print(json.dumps(found), file=answers, flush=True)
"""
CASES = (
    "AP, ties by index", "AP, expected", "AP@1000, ties by index", "AP, expected, codes of a few clusters",
    "AP by index, codes of a few clusters", "top-1000", "top-100", "distances", "packing",
)  # fmt: skip


class Worker:
    """One tree in a process of its own."""

    def __init__(self, tree: Path, cache: Path) -> None:
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tree)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment, cwd=cache,
        )  # fmt: skip

    def ask(self, case: str, *, first: bool = False) -> dict[str, Any]:
        """seconds, and the result's sum the first time; or what is broken."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{case}{'!' * first}\n")
            self._process.stdin.flush()
            answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        except (OSError, ValueError):
            return {"broken": "the process ended"}
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def git(*arguments: str, root: Path = ROOT) -> str | None:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def base_revision(wanted: str | None, root: Path = ROOT) -> str | None:
    """What was asked for; else HEAD where the tree differs from it, the merge-base with origin/main, or HEAD~1."""
    if wanted is not None:
        return git("rev-parse", "--verify", f"{wanted}^{{commit}}", root=root)
    if git("status", "--porcelain", "--untracked-files=no", root=root):
        return git("rev-parse", "HEAD", root=root)
    head, fork = git("rev-parse", "HEAD", root=root), git("merge-base", "HEAD", "origin/main", root=root)
    return fork if fork is not None and fork != head else git("rev-parse", "--verify", "HEAD~1", root=root)


def unpacked(revision: str, folder: Path, root: Path = ROOT) -> Path:
    """The revision's files, without touching the checkout."""
    archive = subprocess.run(["git", "-C", str(root), "archive", revision], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def interval(ratios: list[float], level: float = 0.99) -> tuple[float, float, float]:
    """The median and its distribution-free interval (order statistics)."""
    ordered = sorted(ratios)
    below = int(binom.ppf((1 - level) / 2, len(ordered), 0.5))
    return ordered[max(0, below - 1)], statistics.median(ordered), ordered[min(len(ordered) - 1, len(ordered) - below)]


Ratios = dict[str, list[float]]


def compare(workers: dict[str, Worker], rounds: int, cases: tuple[str, ...] = CASES) -> dict[str, Ratios | str]:
    """Ratios to the base of the working tree and of the twin, per case; or what is broken, and where."""
    found: dict[str, Ratios | str] = {}
    for case in cases:
        first = {name: worker.ask(case, first=True) for name, worker in workers.items()}
        broken = next((name for name in workers if "broken" in first[name]), None)
        if broken is not None:
            found[case] = f"{broken}: {first[broken]['broken']}"
            continue
        found[case] = {"tree": [], "twin": []}
        if abs(first["tree"]["result"] / first["base"]["result"] - 1) > 1e-9:
            print(f"{case:26} gives another result than the base: say so in the changelog, or mend it")
    names = list(workers)
    for turn in range(rounds):
        for case, ratios in found.items():
            if isinstance(ratios, str):
                continue
            order = names[turn % 3 :] + names[: turn % 3]
            times = {name: workers[name].ask(case) for name in order}
            broken = next((name for name in workers if "broken" in times[name]), None)
            if broken is not None:
                found[case] = f"{broken}: {times[broken]['broken']}"
                continue
            for name in ("tree", "twin"):
                ratios[name].append(times[name]["seconds"] / times["base"]["seconds"])
    return found


def report(found: dict[str, Ratios | str]) -> int:
    """Prints a line per case; returns how many are slower, or broken in the working tree."""
    bad = 0
    for case, ratios in found.items():
        if isinstance(ratios, str):
            where, _, why = ratios.partition(": ")
            bad += where == "tree"
            print(f"{case:26} {f'BROKEN: {why}' if where == 'tree' else f'not comparable: the base has {why}'}")
            continue
        low, middle, high = interval(ratios["tree"])
        noise = interval(ratios["twin"])
        slower = low > max(LIMIT, noise[2])
        bad += slower
        print(
            f"{case:26} {middle:5.2f} x the base's time ({low:.2f} to {high:.2f}), the base against itself"
            f" {noise[0]:.2f} to {noise[2]:.2f}: {'SLOWER' if slower else 'ok'}"
        )
    return bad


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--against", metavar="REVISION", help="the base; default: merge-base or the commit before")
    options = parser.parse_args(arguments)
    revision = base_revision(options.against)
    if revision is None:
        print(f"not comparable: {options.against or 'there is no earlier revision here'}")
        return 0 if options.against is None else 2
    with tempfile.TemporaryDirectory() as folder:
        base = unpacked(revision, Path(folder) / "base")
        caches = {name: Path(folder) / f"cache-{name}" for name in ("tree", "base", "twin")}
        for cache in caches.values():
            cache.mkdir()
        trees = {"tree": ROOT, "base": base, "twin": base}
        workers = {name: Worker(tree, caches[name]) for name, tree in trees.items()}
        try:
            print(f"working tree against {revision[:10]}, processor time of one thread")
            found = compare(workers, 25 if options.quick else 61)
        finally:
            for worker in workers.values():
                worker.close()
    return 1 if report(found) else 0


if __name__ == "__main__":
    sys.exit(main())
