"""Where a number comes from: versions, machine, commit. Part of every record, never of a key or a board."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.engine.record import Git, Provenance

PACKAGES = ("hashdoor", "torch", "torchvision", "numpy", "numba", "ray", "safetensors", "scikit-learn")


@cache
def provenance() -> Provenance:
    """Everything that does not change while the process lives; the device depends on the run."""
    from bench import metrics

    return Provenance(
        python=platform.python_version(),
        packages={name: installed(name) for name in PACKAGES},
        metrics=metrics.VERSION,
        system=f"{platform.system()} {platform.machine()}",
        processor=processor(),
        git=git(),
    )


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()


@cache
def git() -> Git | None:
    """Commit of the checkout and whether it has changes; None for an installed package."""
    folder = Path(__file__).parent

    def ask(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return Git(commit=ask("rev-parse", "HEAD"), dirty=bool(ask("status", "--porcelain")))
    except (OSError, subprocess.SubprocessError):
        return None
