"""Live progress of a run, with an estimate of what is left."""

from __future__ import annotations

import time
from collections import Counter

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.api.untrusted import strip_controls
from bench.cli.console import console, line
from bench.engine.estimator import RuntimeEstimator
from bench.engine.record import Record
from bench.graph.labels import CostGroup
from bench.graph.plan import Stage

PLAIN_EVERY = 10.0  # seconds between lines where there is no terminal


def clock(seconds: float) -> str:
    """For example `42 s`, `7 min`, `3 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


class Display:
    """Shows the progress of a run: a bar on a terminal, a line every ten seconds elsewhere."""

    def __init__(self, costs: RuntimeEstimator) -> None:
        self.slots, self.done, self.trained = 1, 0, 0
        self._costs = costs
        self._left: Counter[CostGroup] = Counter()  # by group of stages with similar times
        self._running: dict[str, str] = {}
        self._console = console(stderr=True)
        self._bar = Progress(
            TextColumn("[bold]stages"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None)
        self._spoke = time.monotonic()

    def __enter__(self) -> Display:  # noqa: PYI034 -- beartype has no Self
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._spoke = time.monotonic()
        line(text, out=self._console)

    def begin(self, stages: list[Stage]) -> None:
        self._left = Counter(stage.cost_group for stage in stages)
        self._bar.update(self._task, total=len(stages))
        if stages:
            basis = self._costs.basis(self._left)
            self.say(f"{len(stages)} stages to run: about {clock(self._remaining())} of work on one core ({basis})")

    def start(self, stage: Stage) -> None:
        self._running[stage.key] = stage.label
        self._refresh()

    def retrying(self, stage: Stage, reason: str) -> None:
        self._running.pop(stage.key, None)
        self.say(f"{stage.label}: {reason}; trying again")

    def end(self, stage: Stage, record: Record) -> None:
        self.done += 1
        self._running.pop(stage.key, None)
        self._left[stage.cost_group] -= 1
        self._costs.observe(record)
        if record.ok:
            self.trained += stage.kind in {"train", "implant"}
        elif record.cause is None:
            self.say(f"{record.status}: {stage.label}: {record.reason}")
        self._refresh()

    @property
    def expected(self) -> float:
        """Seconds of all stages that are left, on one core."""
        return self._costs.total(self._left)

    def _remaining(self) -> float:
        return self.expected / max(1, self.slots)

    def _refresh(self) -> None:
        left = f"about {clock(self._remaining())} left"
        now = " · ".join([left, *list(self._running.values())[:1]])
        self._bar.update(self._task, completed=self.done, description=strip_controls(now))
        if not self._console.is_terminal and time.monotonic() - self._spoke > PLAIN_EVERY:
            self.say(f"{self.done} of {self.done + self._left.total()} stages, {left}")
