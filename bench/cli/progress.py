"""Live progress of a run: what runs, how much of each kind of stage is done, first results, and the time left."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from statistics import fmean

from rich.console import RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from bench.api.untrusted import strip_controls
from bench.artifacts.inputs import STAGES
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


class _Bar(Progress):
    """A bar with texts below it. The first, what runs now, is cut at the end of the terminal; others are wrapped."""

    below: tuple[str, ...] = ()

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        for i, text in enumerate(self.below):
            if text:
                yield Text(text, style="dim", no_wrap=i == 0, overflow="ellipsis" if i == 0 else "fold")


class Display:
    """Shows the progress of a run: a bar on a terminal, a line every ten seconds elsewhere."""

    def __init__(self, costs: RuntimeEstimator, attacks: Mapping[str, str] | None = None) -> None:
        """attacks: the attack by the key of each stage that measures a model without defense."""
        self.slots, self.done, self.trained = 1, 0, 0
        self._costs, self._attacks = costs, attacks or {}
        self._planned: Counter[str] = Counter()  # by kind of stage
        self._ended: Counter[str] = Counter()
        self._t_maps: dict[str, list[float]] = {}  # of the attacks so far
        self._left: Counter[CostGroup] = Counter()  # by group of stages with similar times
        self._running: dict[str, str] = {}  # labels by key
        self._kinds: dict[str, str] = {}  # of the running stages, by key
        self._console = console(stderr=True)
        self._bar = _Bar(
            TextColumn("[bold]stages"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=self._console,
            transient=True,
            redirect_stdout=False,  # Ray keeps the stream that it finds, and fails at the end if it is gone by then
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
        self._planned, self._ended = Counter(stage.kind for stage in stages), Counter()
        self._bar.update(self._task, total=len(stages))
        if stages:
            basis = self._costs.basis(self._left)
            self.say(f"{len(stages)} stages to run: about {clock(self._remaining())} of work on one core ({basis})")

    def start(self, stage: Stage) -> None:
        self._running[stage.key] = stage.label
        self._kinds[stage.key] = stage.kind
        self._refresh()

    def retrying(self, stage: Stage, reason: str) -> None:
        self._running.pop(stage.key, None)
        self.say(f"{stage.label}: {reason}; trying again")

    def end(self, stage: Stage, record: Record) -> None:
        self.done += 1
        self._running.pop(stage.key, None)
        self._kinds.pop(stage.key, None)
        self._left[stage.cost_group] -= 1
        self._ended[stage.kind] += 1
        self._costs.observe(record)
        if record.ok:
            self.trained += stage.kind in {"train", "implant"}
            t_map = record.metrics.get("t_map")
            if stage.key in self._attacks and isinstance(t_map, (int, float)):
                self._t_maps.setdefault(self._attacks[stage.key], []).append(float(t_map))
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
        begun = {*self._ended, *self._kinds.values()}
        kinds = " · ".join(
            f"{kind} {self._ended[kind]}/{self._planned[kind]}"
            for kind in STAGES
            if kind in begun and self._ended[kind] < self._planned[kind]
        )
        t_maps = ", ".join(f"{name} {fmean(values):.2f}" for name, values in self._t_maps.items())
        now = ", ".join(self._running.values())
        texts = (now and f"now: {now}", kinds and f"done: {kinds}", t_maps and f"t-mAP so far: {t_maps}")
        self._bar.below = tuple(map(strip_controls, texts))
        self._bar.update(self._task, completed=self.done, description=left)
        if not self._console.is_terminal and time.monotonic() - self._spoke > PLAIN_EVERY:
            self.say("; ".join(filter(None, [f"{self.done} of {self._planned.total()} stages, {left}", *texts[1:]])))
