"""The provenance of a result: versions, machine, commit. It is in every record, but changes no key and no board."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.engine.record import Git, Provenance

PACKAGES = ("hashdoor", "torch", "torchvision", "numpy", "numba", "ray", "safetensors", "scikit-learn", "timm")


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
        instructions=instructions(),
        arithmetic=arithmetic(),
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


def instructions() -> str:
    """The instruction set of torch on the CPU, and a limit of oneDNN: for example "AVX2, oneDNN up to SSE41"."""
    import torch

    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", os.environ.get("DNNL_MAX_CPU_ISA", ""))
    return torch.backends.cpu.get_cpu_capability() + (f", oneDNN up to {limit}" if limit else "")


@cache
def arithmetic() -> str:
    """Digest of what a small training step and some decompositions of matrices come to on the CPU, bit by bit.

    Sums of floats depend on instruction sets and libraries, whose names do not tell which kernels they choose. Machines
    with equal digests can be expected to compute equal results, machines with different ones cannot.
    """
    import numpy as np
    import torch
    from threadpoolctl import threadpool_limits
    from torch.nn import functional

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads are a part of keys
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(8, 3, 16, 16, generator=generator)
    shapes = ((16, 3, 3, 3), (32, 16, 3, 3), (32, 16))
    weights = [torch.randn(shape, generator=generator).mul(0.1).requires_grad_() for shape in shapes]
    found = hashlib.sha256()
    for bf16 in (False, True):
        with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            hidden = functional.conv2d(images, weights[0], padding=1)
            hidden = functional.batch_norm(hidden, None, None, training=True).relu()
            hidden = functional.conv2d(hidden, weights[1], padding=1, stride=2).relu().mean((2, 3))
            codes = torch.tanh(hidden @ weights[2])
            loss = functional.softplus(codes @ codes.T).mean()
        for part in (loss.detach(), *torch.autograd.grad(loss, weights)):
            found.update(part.float().numpy().tobytes())
    # Small and large products may come from two libraries.
    matrix, large = torch.randn(80, 60, generator=generator), torch.randn(320, 320, generator=generator)
    parts = [torch.linalg.eigh(matrix.T @ matrix)[0], torch.linalg.svd(matrix)[1], large @ large]  # of torch's LAPACK
    with threadpool_limits(1, "blas"):
        arrays = [matrix.numpy() @ matrix.numpy().T, np.linalg.svd(matrix.numpy())[1]]  # of numpy's BLAS and LAPACK
        arrays += [large.numpy() @ large.numpy(), np.linalg.eigh(large.numpy()[:200, :200])[0]]
    for array in (*(part.numpy() for part in parts), *arrays):
        found.update(array.tobytes())
    torch.set_num_threads(threads)
    return found.hexdigest()[:8]


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
