"""Fuzz one target for as long as wanted: `python -m tests.fuzz.run TARGET --seconds 600`.

With atheris (pip install atheris), inputs follow what the readers' code does with them; without it they are those of
the tests, under other numbers. What breaks a target lies in the folder that is printed.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import random
import sys
import tempfile
from pathlib import Path

FOLLOWED = ["bench.config.suite", "bench.config.reported",
            "bench.engine.store", "bench.engine.record", "bench.api.untrusted",
            "hashing.datasets",
            "hashing.weight_files", "reports.frame", "reports.trial_details", "reports.score", "reports.code_files",
            "reports.code_formats", "reports.matlab_files", "reports.throughput",
            "reports.boards", "reports.render", "tarfile", "zipfile", "tomllib"]  # fmt: skip
SEEDS = 300  # inputs to begin with
LARGEST = 2**16  # bytes of an input


def main() -> None:
    """Exit code 0 where nothing was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--seconds", type=float, default=600)
    given = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        _plain(given.target, given.seconds)
    else:
        _followed(given.target, given.seconds)


def _plain(name: str, seconds: float) -> None:
    from tests.fuzz.inputs import make
    from tests.fuzz.targets import TARGETS, timed

    first = random.SystemRandom().getrandbits(48)
    print(f"no atheris here: the tests' inputs, from number {first}")
    with tempfile.TemporaryDirectory() as folder:
        stream = (make(name, seed) for seed in itertools.count(first))
        count, accepted = timed(TARGETS[name], stream, Path(folder), seconds)
    print(f"{name}: {count} inputs, {accepted} accepted")


def _followed(name: str, seconds: float) -> None:
    import atheris

    with atheris.instrument_imports(include=FOLLOWED, enable_loader_override=False):
        from tests.fuzz.targets import TARGETS, holds
    from tests.fuzz.inputs import make

    root = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    for part in ("corpus", "work", "found"):
        (root / part).mkdir()
    for seed in range(SEEDS):
        (root / "corpus" / str(seed)).write_bytes(make(name, seed)[:LARGEST])
    print(f"{name}: {root}", flush=True)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        made = make(name, seed) if seed % 3 == 0 else atheris.Mutate(data, most)
        return bytes(made[:most])

    options = [f"-max_total_time={int(seconds)}", "-timeout=30", f"-max_len={LARGEST}", "-print_final_stats=1",
               "-rss_limit_mb=4096", f"-artifact_prefix={root}/found/", "-verbosity=0"]  # fmt: skip
    atheris.Setup(
        [sys.argv[0], *options, str(root / "corpus")],
        lambda data: holds(TARGETS[name], bytes(data), root / "work") and None,
        custom_mutator=mutate,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
