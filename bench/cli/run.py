"""The commands `bench run` and `bench plan`."""

from __future__ import annotations

import os
import shlex
import signal
import textwrap
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bench.api.errors import EXIT_FAILED_TRIALS, EXIT_INTERRUPT, UserError
from bench.cli.console import console, echo, line, write
from bench.cli.options import (
    DEFAULT_STORE,
    Changes,
    Data,
    Device,
    Only,
    Plugins,
    StorePath,
    Suites,
    device_of,
    load_plugins,
    memory_limit,
    note_left_out,
    write_table,
)

if TYPE_CHECKING:
    from bench.cli.progress import Display
    from bench.config.suite import Suite
    from bench.engine.estimator import RuntimeEstimator
    from bench.engine.executors import Executor
    from bench.engine.interruption import Interruption
    from bench.engine.record import RunManifest
    from bench.engine.record_cache import RecordCache
    from bench.engine.scheduler import Summary
    from bench.engine.store import Store
    from bench.engine.worker import Environment
    from bench.graph.plan import Plan
    from reports.frame import Results
    from reports.text_table import TextTable

Retry = Annotated[
    str,
    typer.Option(
        "--retry",
        metavar="STATUS,...",
        help="Run trials with these statuses again: failed, timeout, oom (out of memory).",
    ),
]

MOST_WORKERS = 10**6
ExecutorName = Literal["auto", "ray", "serial"]
ExecutorOption = Annotated[
    ExecutorName,
    typer.Option(
        "--executor",
        help="ray: stages run in parallel processes. serial: stages run one after another in this process. auto:"
        " ray if the work takes more than a minute.",
    ),
]
Count = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        max=MOST_WORKERS,
        metavar="N",
        help="Number of stages that run at once. Default: one per CPU core, or 1 / num_gpus per GPU.",
    ),
]
KEPT = "and kept; start the same command again to continue"
REASON = 130  # characters of a reason to leave trials out
MEMORY = 5e9  # bytes; with less, torch ends the process without a message, or spins
SHORT = 60.0  # seconds of work that are not worth the start of Ray


def run(
    suite: Suites = ["quick"],  # noqa: B006 -- typer needs a literal
    set_: Changes = [],  # noqa: B006
    only: Only = [],  # noqa: B006
    store: StorePath = DEFAULT_STORE,
    data: Data = None,
    plugin: Plugins = [],  # noqa: B006
    executor: ExecutorOption = "auto",
    workers: Count = None,
    address: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Address of a running Ray cluster: HOST:PORT, auto, or ray://HOST:10001."),
    ] = None,
    device: Device = "auto",
    retry: Retry = "",
) -> None:
    """Run suites. Results in the store are reused. After an interruption, start the same command again."""
    from bench.engine import ray_executor
    from bench.engine.store import Store
    from bench.engine.worker import Environment

    check_machine()
    again = _statuses(retry)
    if address:
        ray_executor.reachable(address)
    held = Store(store, create=True)
    held.check_writable()
    made, loaded, chosen = planned(suite, set_, only, data, plugin, device)
    environment = Environment(
        held.root.resolve(), data.resolve() if data else None, chosen, tuple(p.resolve() for p in plugin)
    )
    local = [*(("--data", str(data)) if data else ()), *(word for path in plugin for word in ("--plugin", str(path)))]
    manifest = manifest_of(made, loaded, command_of(suite, set_, only), local)
    finished = carried_out(made, held, manifest, environment, Workers(executor, workers, address), retry=again)
    _show(finished, made, store)


@dataclass(frozen=True)
class Workers:
    """How the stages of a run are spread. count: stages that run at once. address: of a Ray cluster."""

    executor: ExecutorName = "auto"
    count: int | None = None
    address: str | None = None

    def serial(self, expected: float) -> bool:
        """Whether stages run in this process. expected: seconds of work."""
        short = self.executor == "auto" and not (self.address or self.count) and expected < SHORT
        return short or self.executor == "serial"


@dataclass(frozen=True)
class Finished:
    """A run that has ended. trained: number of trainings."""

    manifest: RunManifest
    summary: Summary
    trained: int


def carried_out(
    made: Plan,
    held: Store,
    manifest: RunManifest,
    environment: Environment,
    workers: Workers,
    *,
    retry: frozenset[str] = frozenset(),
    kept: str = KEPT,
) -> Finished:
    """Run a plan and show its progress. Exit code 130 after an interruption, with the line `kept`.

    UserError if no trial of the plan can run.
    """
    from bench.engine.interruption import Interruption
    from bench.engine.scheduler import run_plan

    if all(trial.key is None for trial in made.trials):
        raise UserError(f"no trial can run on this machine: {'; '.join(dict.fromkeys(c.skipped for c in made.trials))}")
    interruption = Interruption()
    with _going_on(held, manifest, interruption) as written, _display(held, made) as display:

        def start() -> Executor:
            serial = workers.serial(display.expected)
            started = _started(environment, interruption, display, workers, serial=serial)
            display.slots = started.slots
            return started

        try:
            with interruption.kept():
                summary = run_plan(made, held, start, retry=retry, listen=display, interruption=interruption)
        except KeyboardInterrupt:
            display.say(f"interrupted: {display.done} stages are finished {kept}")
            raise typer.Exit(EXIT_INTERRUPT) from None
    return Finished(written, summary, display.trained)


def _started(
    environment: Environment,
    interruption: Interruption,
    display: Display,
    workers: Workers,
    *,
    serial: bool,
) -> Executor:
    """The executor of a run; Ray takes some seconds to start, so the display says so."""
    from bench.engine import executors, ray_executor

    if serial:
        return executors.SerialExecutor(environment, interruption)
    count = workers.count or os.cpu_count() or 1
    display.say(f"joining Ray at {workers.address}" if workers.address else f"starting {count} workers (Ray)")
    return ray_executor.RayExecutor(environment, workers=workers.count, address=workers.address)


def _display(held: Store, made: Plan) -> Display:
    """The display of a run; it knows which stages measure an attack without defense."""
    from bench.api.kinds import Access, DefenseKind
    from bench.cli.progress import Display
    from bench.engine.estimator import RuntimeEstimator
    from reports.labels import Names, label_of

    short = Names.of(trial.trial.components["attack"] for trial in made.trials).short
    attacks = {
        trial.key: short[label_of(trial.trial.components["attack"])]
        for trial in made.trials
        if trial.key is not None and trial.defense_kind is DefenseKind.NONE and trial.access is not Access.NONE
    }
    return Display(RuntimeEstimator(held.records()), attacks)


def _show(finished: Finished, made: Plan, store: Path) -> None:
    """Print reasons of failures, boards, and last the summary of a finished run. Exit code 1 without some result."""
    from bench.cli.report import print_made, read_results
    from bench.engine.record import LASTING_FAILURES, Status
    from reports.arrange import failures_first
    from reports.board_registry import BoardData, make_boards

    cache, selections, (results,) = read_results([], store, [], finished.manifest.id)
    print_made(failures_first(make_boards("leaderboard", BoardData(results, cache))), "rich")
    for selection in selections:
        note_left_out(selection, cache)
    _closing(finished.summary, finished.trained, made)
    _print_summary(results, cache, store)
    if any(finished.summary.trials[status] for status in (*LASTING_FAILURES, Status.KILLED, Status.MISSING)):
        raise typer.Exit(EXIT_FAILED_TRIALS)


def _print_summary(results: Results, records: RecordCache, store: Path) -> None:
    """The sentences that the page begins with, and where to read more."""
    from rich.text import Text

    from reports import summary

    found = summary.of(results, records)
    if found.headlines:
        echo("")
        write(Text(found.scope, style="bold"))
        for sentence in found.sentences:
            line(f"- {sentence}")
        for warning in found.warnings:
            line(f"Warning: {warning}")
        echo("")
    where = "" if store == DEFAULT_STORE else f" --store {shlex.quote(str(store))}"
    line(f"Results: {store.resolve()} (`python -m bench leaderboard{where}` prints the boards again)")
    if found.headlines:
        line(f"Page with charts and pictures: `python -m bench report --open{where}`")


def check_machine() -> None:
    """UserError if limits or settings of this machine let no stage run."""
    from hashing.numba_threads import start_threads

    if (found := memory_limit()) is not None and found[1] < MEMORY:
        limit, size = found
        raise UserError(
            f"`{limit}` is {size / 1e9:.1f} GB of memory, and training needs {MEMORY / 1e9:.0f} GB or more",
            "raise this limit",
        )
    start_threads()


def _statuses(retry: str) -> frozenset[str]:
    """The statuses that `--retry` names."""
    from bench.engine.record import LASTING_FAILURES

    found = frozenset(word for word in retry.split(",") if word)
    if not found <= LASTING_FAILURES:
        raise UserError(f"--retry {retry}: expected some of {', '.join(sorted(LASTING_FAILURES))}, separated by commas")
    return found


def plan(
    suite: Suites = ["quick"],  # noqa: B006
    set_: Changes = [],  # noqa: B006
    only: Only = [],  # noqa: B006
    store: StorePath = DEFAULT_STORE,
    data: Data = None,
    plugin: Plugins = [],  # noqa: B006
    device: Device = "auto",
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=MOST_WORKERS, metavar="N", help="Number of stages at once, for the estimate of time."),
    ] = None,
) -> None:
    """Print the work of `run` with the same options: trials, stages, time, disk, and trials that are left out."""
    from bench.cli.progress import clock
    from bench.engine.estimator import RuntimeEstimator
    from bench.engine.scheduler import Frontier
    from bench.engine.store import Store, nearest_folder

    nearest_folder(store)
    held = Store(store) if (store / "store.json").exists() else None
    made, _, chosen = planned(suite, set_, only, data, plugin, device)
    pending = Frontier(made, held, frozenset()) if held else None
    needed = pending.needed if pending else made.stages
    costs = RuntimeEstimator(held.records() if held else ())
    write_table(_stages(made, needed, costs))
    runnable = [trial for trial in made.trials if trial.key is not None]
    parallel = workers or os.cpu_count() or 1
    groups = Counter(stage.cost_group for stage in needed.values())
    total, longest = costs.total(groups), max(map(costs.seconds, groups), default=0.0)
    echo("")
    line(f"{len(made.trials)} trials: {len(runnable)} can run here on {chosen}, "
         f"{len(made.trials) - len(runnable)} are left out.")  # fmt: skip
    if needed:
        for_whom = "" if len(runnable) == len(made.trials) else f" for the {len(runnable):,} trials that can run here"
        duration = clock(max(total / parallel, longest))
        line(f"Time: about {duration} on {parallel} workers{for_whom} ({costs.basis(groups)}).")
        line(f"Disk: about {_size(costs.total_bytes(groups))} more in {store}.")
    elif runnable and not (pending and pending.failed):
        line(f"Nothing to do: {store} holds every result.")
    _print_skipped(made)
    if pending and pending.failed:
        line(
            f"{len(pending.failed)} stages failed before and do not run again: `python -m bench leaderboard` shows the"
            " reasons, `python -m bench run --retry failed,timeout,oom` runs them again."
        )


def _stages(made: Plan, needed: Collection[str], costs: RuntimeEstimator) -> TextTable:
    """A row per kind of stage: their number, the number without a result, and the expected time of these."""
    from bench.artifacts.inputs import STAGES
    from bench.cli.progress import clock
    from reports.text_table import TextTable

    cells: dict[str, list[str]] = {name: [] for name in ("stage", "stages", "already stored", "to do", "estimate")}
    for kind in STAGES:
        every = [stage for stage in made.stages.values() if stage.kind == kind]
        left = [stage for stage in every if stage.key in needed]
        if every:
            seconds = costs.total(Counter(stage.cost_group for stage in left))
            row = (kind, str(len(every)), str(len(every) - len(left)), str(len(left)), clock(seconds))
            for name, text in zip(cells, row, strict=True):
                cells[name].append(text)
    return TextTable(cells, right=frozenset(cells) - {"stage"}, fixed=frozenset(cells))


def planned(
    suites: list[str], changes: list[str], only: list[str], data: Path | None, plugins: list[Path], device: str
) -> tuple[Plan, list[Suite], str]:
    """The plan of suites, the suites, and the device. UserError: a suite, a change or the data folder is unusable."""
    from bench.config import suite as suites_
    from bench.graph import planner as planning
    from bench.graph.settings import hardly_trained

    load_plugins(plugins)
    if data is not None and not data.is_dir():
        raise UserError(f"--data '{data}' is not a directory", "`python -m bench doctor` lists the files of data sets")
    loaded = [suites_.load(name, changes=changes, only=only) for name in suites]
    chosen = device_of(device)
    made = planning.plan(loaded, data=data, device=chosen.partition(":")[0])
    for note in dict.fromkeys([*(note for suite in loaded for note in suite.notes), *hardly_trained(made.trials)]):
        line(f"note: {note}", out=console(stderr=True))
    return made, loaded, chosen


def command_of(suites: list[str], changes: list[str], only: list[str]) -> str:
    """The command line of a run, with only the options that change results."""
    words = ["python", "-m", "bench", "run"]
    for option, values in (("--suite", suites), ("--set", changes), ("--only", only)):
        words += [word for value in values for word in (option, value)]
    return shlex.join(words)


def _texts(suites: Sequence[Suite]) -> dict[str, str]:
    """The texts of suites by name; one below the other if two suites have one name, so that none is lost."""
    texts: dict[str, dict[str, None]] = {}
    for suite in suites:
        texts.setdefault(suite.name, {})[suite.text] = None
    return {name: "\n".join(found) for name, found in texts.items()}


def manifest_of(made: Plan, suites: Sequence[Suite], command: str, local: Sequence[str] = ()) -> RunManifest:
    """The manifest of a run, for the store. local: options of the command that name files of this machine."""
    from bench.engine.provenance import provenance
    from bench.engine.record import RunManifest

    return RunManifest(
        suites=[suite.name for suite in suites],
        descriptions={suite.name: suite.description for suite in suites},
        texts=_texts(suites),
        command=command,
        local=list(local),
        trials=made.trials,
        stages=list(made.stages),
        provenance=provenance(),
    )


@contextmanager
def _going_on(store: Store, manifest: RunManifest, interruption: Interruption) -> Iterator[RunManifest]:
    """Write the manifest; inside the block `gc` does not remove the run, and signals stop it."""
    from bench.engine.running import marked

    with marked(store, manifest.id), _stopped_by_signals(interruption):
        yield store.write_run(manifest)


@contextmanager
def _stopped_by_signals(interruption: Interruption) -> Iterator[None]:
    """Let SIGTERM and SIGHUP stop a run as Ctrl-C does."""
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    before = {number: signal.getsignal(number) for number in numbers}

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        interruption.ask()

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # nohup ignores SIGHUP, and so does the run then
            signal.signal(number, stop)
    try:
        yield
    finally:
        if not interruption.asked:  # else the process ends now, with its exit code, whatever else arrives
            for number, handler in before.items():
                signal.signal(number, handler)


def _closing(summary: Summary, trained: int, made: Plan) -> None:
    outcomes = ", ".join(f"{count} {status}" for status, count in sorted(summary.trials.items()))
    outcomes += f" ({summary.collapsed} of them collapsed, see the boards)" if summary.collapsed else ""
    line(f"Trials: {outcomes}. Stages: {sum(summary.ran.values())} run ({trained} trainings), "
         f"{summary.reused} taken from the store.")  # fmt: skip
    if any(len(trial.skipped) > REASON for trial in made.trials if trial.key is None):
        line("`python -m bench doctor` lists all missing data and weights, and how to get them.")


def _print_skipped(made: Plan) -> None:
    """Print the reasons why trials are left out. Long reasons are cut if there are several."""
    cut = False
    reasons = Counter(trial.skipped for trial in made.trials if trial.key is None)
    for reason, count in reasons.most_common():
        short = textwrap.shorten(reason, REASON, placeholder=" ...") if len(reasons) > 1 else reason
        cut |= short != reason
        line(f"left out, {count} {'trial' if count == 1 else 'trials'}: {short}")
    if cut:
        line("`python -m bench doctor` lists all missing data and weights, and how to get them.")


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
