"""The provenance of a result: versions, machine, commit. It is in every record, but changes no key and no board."""

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
    """The provenance of this process, without the device, which depends on the run."""
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
    """The version of a package; None if the package is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def processor() -> str:
    """The name of the CPU model, or of its architecture on systems without /proc/cpuinfo."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()


@cache
def git() -> Git | None:
    """The checkout's commit, and whether files have changed since; None for an installed package."""
    folder = Path(__file__).parent

    def ask(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return Git(commit=ask("rev-parse", "HEAD"), dirty=bool(ask("status", "--porcelain")))
    except (OSError, subprocess.SubprocessError):
        return None
