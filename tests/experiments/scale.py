"""What a large suite costs before and between its stages: planning, and the driver with an executor that does nothing.

    python -m tests.experiments.scale [TRIALS] [--profile]

Printed: seconds and memory of planning, then of a driver whose stages end as soon as they start, in batches as Ray's
do. Their records go into a store on this disk; what writing them takes is taken off, so that the driver's own time is
left, progress display included. The second run finds everything in the store.
"""

from __future__ import annotations

import cProfile
import io
import pstats
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path

from bench.cli.progress import Display
from bench.config import suite as suites
from bench.engine.estimator import RuntimeEstimator
from bench.engine.executors import Done
from bench.engine.record import Cost, Record, encoded
from bench.engine.scheduler import Summary, run_plan
from bench.engine.store import Store
from bench.engine.worker import describe
from bench.graph import planner as planning
from bench.graph.plan import Plan, Stage

SUITE = """
name = "scale"
[axes]
datasets = [{ name = "digits", train = 300, query = 100 }]
backbones = [{ name = "convnet", width = 8 }]
attacks = [
  "none",
  { name = "badnets", poison_rate = [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1] },
  { name = "blend", alpha = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9] },
]
defenses = [
  "none", "strip", "spectral_signatures", "neural_cleanse",
  { name = "fine_pruning", steps = 0, ratio = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6] },
]
targets = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
bits = [8, 12, 16, 24, 32]
seeds = [SEEDS]
"""  # 10,000 trials a seed


class Instant:
    """Stages that end at once, four at a time. seconds: what the executor itself took."""

    slots = 4

    def __init__(self, store: Store) -> None:
        self._store, self._running, self.seconds = store, list[Stage](), 0.0

    def fits(self, stage: Stage) -> bool:
        return len(self._running) < self.slots

    def submit(self, stage: Stage) -> None:
        self._running.append(stage)

    def poll(self, seconds: float) -> list[Done]:
        started = time.perf_counter()
        done = [Done(stage.key, self._record(stage)) for stage in self._running]
        self._running.clear()
        self.seconds += time.perf_counter() - started
        return done

    def _record(self, stage: Stage) -> Record:
        cost = Cost(seconds=0.01 * (1 + len(stage.label) % 7), started=0.0, host="here")
        record = describe(stage).model_copy(update={"cost": cost, "inputs": dict.fromkeys(stage.parents)})
        path = self._store.root / "records" / f"{stage.key}.json"
        with path.open("wb") as file:  # as Store.write_record, without waiting for the disk
            file.write(encoded(record))
        return record

    def close(self) -> None: ...


def memory() -> str:
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB at most"


def timed(words: str, work: Callable[[], object], count: Callable[[], int], off: Callable[[], float]) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    each = 1000 * (wall - off()) / max(1, count())
    print(f"{words}: {wall:.1f} s, {cpu:.1f} s of CPU; {each:.3f} ms each without the executor; {memory()}", flush=True)


def main(trials: int) -> None:
    made: list[Plan] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scale.toml"
        path.write_text(SUITE.replace("SEEDS", ", ".join(map(str, range(max(1, trials // 10_000))))))

        def plan() -> None:
            made.append(planning.plan([suites.load(str(path))], data=None, device="cpu"))

        timed("planning", plan, lambda: len(made[0].trials), lambda: 0.0)
        (planned,) = made
        print(f"{len(planned.trials)} trials, {len(planned.stages)} stages", flush=True)
        store = Store(Path(folder) / "store", create=True)
        for words in ("first run", "second run"):
            executor, found = Instant(store), list[Summary]()

            def run(executor: Instant = executor, found: list[Summary] = found) -> None:
                with redirect_stderr(io.StringIO()), Display(RuntimeEstimator(store.records())) as display:
                    found.append(run_plan(planned, store, lambda: executor, listen=display))

            timed(words, run, lambda: len(planned.stages), lambda e=executor: e.seconds)
            print(dict(found[0].ran), dict(found[0].trials), f"{found[0].reused} reused", flush=True)


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--profile"]
    profile = cProfile.Profile()
    if "--profile" in sys.argv:
        profile.enable()
    main(int(words[0]) if words else 100_000)
    if "--profile" in sys.argv:
        profile.disable()
        pstats.Stats(profile).sort_stats("cumulative").print_stats(45)
