"""Every reader of a store, and a process in which they run: one that waits for ever is ended, and not waited for."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import shutil
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.security.hostile import HOSTILE, Stranger

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
SECONDS = 90  # a reader that takes longer hangs, on a slow machine too
Words = Callable[["Place"], list[str]]


@dataclass(frozen=True)
class Place:
    """Where a reader works. store: the hostile one. intact: an honest one. out: a folder for what it writes."""

    store: Path
    intact: Path
    out: Path
    key: str
    suite: Path
    bundle: Path

    def words(self, *given: str) -> list[str]:
        return [*given, "--store", str(self.store)]


@dataclass(frozen=True)
class Ended:
    """How a reader ended. code: of the command; None where it did not end in time. error: what it raised.

    changed: a file of the store that a reader changed which should change none.
    """

    code: int | None
    said: str = ""
    error: str = ""
    changed: str = ""


COMMANDS: dict[str, Words] = {
    "leaderboard": lambda at: at.words("leaderboard"),
    "leaderboard csv": lambda at: at.words("leaderboard", "--format", "csv", "--costs", "--mixed"),
    "leaderboard json": lambda at: at.words("leaderboard", "--format", "json", "--run", "all"),
    "leaderboard latex": lambda at: at.words("leaderboard", "--format", "latex", "--by", "bits"),
    "leaderboard markdown": lambda at: at.words("leaderboard", "--format", "markdown", "--by", "attack"),
    "leaderboard where": lambda at: at.words("leaderboard", "--where", "attack=badnets"),
    "page": lambda at: at.words("report", "--out", str(at.out / "r.html")),
    "verify": lambda at: at.words("verify"),
    "verify --set-aside": lambda at: at.words("verify", "--set-aside"),
    "rescore": lambda at: at.words("rescore"),
    "compare": lambda at: ["compare", str(at.store), str(at.intact)],
    "compare with itself": lambda at: ["compare", str(at.store), str(at.store), "--format", "csv"],
    "show": lambda at: at.words("show", at.key),
    "show json": lambda at: at.words("show", at.key, "--format", "json"),
    "gallery": lambda at: at.words("show", "--gallery", str(at.out / "g.png")),
    "gallery of one": lambda at: at.words("show", at.key, "--gallery", str(at.out / "g.svg")),
    "curves": lambda at: at.words("show", "--curves", str(at.out / "c.png")),
    "leaderboard at a terminal": lambda at: at.words("leaderboard"),
    "compare at a terminal": lambda at: ["compare", str(at.store), str(at.store)],
    "show at a terminal": lambda at: at.words("show", at.key),
    "runs": lambda at: at.words("runs"),
    "runs csv": lambda at: at.words("runs", "--format", "csv"),
    "gc --dry-run": lambda at: at.words("gc", "--dry-run", "--repaired", "--damaged"),
    "gc": lambda at: at.words("gc", "--repaired"),
    "plan": lambda at: at.words("plan", "--suite", str(at.suite)),
    "run": lambda at: at.words("run", "--suite", str(at.suite), "--executor", "serial", "--device", "cpu"),
    "doctor": lambda at: at.words("doctor"),
    "bundle: leaderboard": lambda at: ["leaderboard", "--store", str(at.bundle)],
    "bundle: leaderboard beside": lambda at: ["leaderboard", "--store", str(at.intact), "--beside", str(at.bundle)],
    "bundle: page": lambda at: ["report", "--out", str(at.out / "b.html"), "--store", str(at.bundle)],
    "bundle: verify": lambda at: ["verify", "--store", str(at.bundle)],
    "bundle: show": lambda at: ["show", at.key, "--store", str(at.bundle)],
    "bundle: gallery": lambda at: ["show", "--gallery", str(at.out / "b.png"), "--store", str(at.bundle)],
    "bundle: runs csv": lambda at: ["runs", "--format", "csv", "--store", str(at.bundle)],
    "bundle: merge": lambda at: ["merge", str(at.bundle), "--store", str(at.out / "others"), "--own", str(at.intact)],
    "publish": lambda at: at.words("publish", "--out", str(at.out / "b.zip"), "--evidence"),
}
WRITES = {"verify --set-aside", "rescore", "gc", "run"}


def _boards() -> list[str]:
    from reports.board_registry import all_boards

    return [*all_boards()]


def _tables(at: Place) -> None:
    import reports
    from bench.api.errors import UserError

    for name in _boards():
        with suppress(UserError):
            for board in reports.tables(at.store, name):
                board._repr_html_()


def _all_boards(at: Place) -> None:
    """`bench report BOARD` for each board."""
    from bench.cli.app import main

    for name in _boards():
        for format_ in ("rich", "csv"):
            try:
                main(at.words("report", name, "--format", format_))
            except SystemExit as error:
                if error.code not in {0, 2}:
                    raise


NOTEBOOKS: dict[str, Callable[[Place], object]] = {
    "report BOARD": _all_boards,
    "reports.load": lambda at: __import__("reports").load(at.store)._repr_html_(),
    "reports.tables": _tables,
    "reports.charts": lambda at: [chart._repr_html_() for chart in __import__("reports").charts(at.store)],
    "reports.write_html": lambda at: __import__("reports").write_html(at.store, at.out / "n.html"),
    "reports.draw_attacks": lambda at: __import__("reports").draw_attacks(at.store, at.out / "n.png"),
}
READERS = (*COMMANDS, *NOTEBOOKS)


def read(reader: str, at: Place) -> Ended:
    """Run a reader in this process."""
    from bench.api.errors import UserError
    from bench.cli.app import main

    out, err = io.StringIO(), io.StringIO()
    if "terminal" in reader:
        os.environ |= {"FORCE_COLOR": "1", "COLUMNS": "60"}
    else:
        os.environ.pop("FORCE_COLOR", None)
    with redirect_stdout(out), redirect_stderr(err):
        try:
            if reader in COMMANDS:
                main(COMMANDS[reader](at))
            NOTEBOOKS[reader](at)
            code: object = 0
        except SystemExit as error:
            code = error.code or 0
        except UserError as error:
            code = 2
            err.write(str(error))
        except BaseException:  # noqa: BLE001 -- whatever a reader raises is what the test asks for
            return Ended(70, out.getvalue() + err.getvalue(), traceback.format_exc())
    return Ended(int(str(code)), out.getvalue() + err.getvalue())


def _serve(connection: Any, places: dict[str, str]) -> None:
    """Answer requests in a process of its own."""
    base = {name: Path(value) for name, value in places.items()}
    os.chdir(base["work"])
    while True:
        try:
            row, reader = json.loads(connection.recv())
        except EOFError:
            return
        store = base["work"] / "store"
        for old in (store, base["work"] / "out"):
            shutil.rmtree(old, ignore_errors=True)
        shutil.copytree(base["intact"], store)
        (base["work"] / "out").mkdir()
        stranger = Stranger(store)
        key = stranger.measured()["key"]
        HOSTILE[row](stranger)
        bundle = stranger.bundle(base["work"] / "bundle.zip")
        at = Place(store, base["intact"], base["work"] / "out", key, base["suite"], bundle)
        before = _tree(store)
        ended = read(reader, at)
        changed = "" if reader in WRITES else ", ".join(name for name, _ in sorted(before ^ _tree(store)))
        connection.send(json.dumps([ended.code, ended.said, ended.error, changed]))


def _tree(store: Path) -> set[tuple[str, str]]:
    """Every name in a store, with size and time."""
    found = set()
    for folder, _, names in os.walk(store):
        for path in (Path(folder), *(Path(folder, name) for name in names)):
            about = path.lstat()
            found.add((str(path.relative_to(store)), f"{about.st_mode} {about.st_size} {about.st_mtime_ns}"))
    return found


class Reading:
    """A process that reads hostile stores; it starts again after a reader that had to be ended."""

    def __init__(self, intact: Path, suite: Path, work: Path) -> None:
        self._places = {"intact": str(intact), "suite": str(suite), "work": str(work)}
        self._process: Any = None

    def __call__(self, row: str, reader: str, seconds: float = SECONDS) -> Ended:
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self._ours, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(theirs, self._places), daemon=True)
            with pytest.MonkeyPatch.context() as patch:
                for name in THREADS:
                    patch.setenv(name, "1")  # tests run beside each other
                self._process.start()
            theirs.close()
        self._ours.send(json.dumps([row, reader]))
        if not self._ours.poll(seconds):
            self.close()
            return Ended(None, error=f"longer than {seconds:g} s")
        try:
            return Ended(*json.loads(self._ours.recv()))
        except EOFError:
            code = self._process.exitcode
            self.close()
            return Ended(None, error=f"the process ended by itself: {code}")

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._ours.close()
            self._process = None
