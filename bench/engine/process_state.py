"""The state of the process that a stage runs in: equal for all stages, whatever an earlier one has left behind.

Components of users may change settings of torch, numpy or Python for the whole process, and several stages run in one
process. Their results would then depend on the order of the stages, which is in no key.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import numpy as np

from hashing.numba_threads import start_threads

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def fixed_state(threads: int) -> Iterator[None]:
    """Inside the block torch, numpy and Python have the settings of a stage with so many threads.

    Afterwards the folder, streams, environment variables, signal handlers and limits of the process are as before.
    """
    import torch
    from threadpoolctl import threadpool_limits

    with _restored(), ExitStack() as settings:
        set_torch(threads)
        settings.enter_context(threadpool_limits(threads, "blas"))  # numpy's; sums depend on the number of threads
        settings.enter_context(np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"))
        settings.enter_context(torch.inference_mode(mode=False))
        settings.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                settings.enter_context(torch.autocast(device, enabled=False))
        yield


def set_torch(threads: int) -> None:
    """Set the number of threads, float32 without short cuts, and deterministic algorithms.

    torch and numba share one OpenMP pool, so their numbers of threads are set together.
    """
    import torch
    from torch.utils import deterministic

    if torch.get_default_device().type != "cpu":
        torch.set_default_device(None)
    torch.set_default_dtype(torch.float32)
    torch.set_flush_denormal(False)
    operations: list[Any] = [getattr(torch.backends.mkldnn, name, None) for name in ("matmul", "conv", "rnn")]
    for operation in operations:
        if hasattr(operation, "fp32_precision"):  # since torch 2.9; else a CPU may multiply in bf16
            operation.fp32_precision = "ieee"
    torch.set_float32_matmul_precision("highest")
    torch.backends.mkldnn.set_flags(True)  # type: ignore[no-untyped-call]
    torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark = True, False
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs a third of encoding time
    start_threads()
    try:
        import numba
    except ImportError:
        return
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))


@contextmanager
def _restored() -> Iterator[None]:
    """Restore what the block changes of the process, as far as later stages depend on it."""
    folder = _current_folder()
    streams, environment, depth = (sys.stdout, sys.stderr), dict(os.environ), sys.getrecursionlimit()
    hooks = _global_hooks()
    main = threading.current_thread() is threading.main_thread()
    handlers = [(number, signal.getsignal(number)) for number in SIGNALS] if main else []
    try:
        yield
    finally:
        if folder is not None:
            with suppress(OSError):  # it may have been deleted
                os.fchdir(folder)
            os.close(folder)
        sys.stdout, sys.stderr = streams
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
        sys.setrecursionlimit(depth)
        for found, kept in hooks:
            found.clear()
            found.update(kept)
        for number, handler in handlers:
            if handler is not None:  # None: not set by Python, so Python cannot set it again
                signal.signal(number, handler)


def _global_hooks() -> list[tuple[dict[int, Any], dict[int, Any]]]:
    """The hooks that torch calls in every module, as the dictionary that holds them and a copy."""
    from torch.nn.modules import module

    found = [value for name, value in vars(module).items() if name.startswith("_global_") and isinstance(value, dict)]
    return [(hooks, hooks.copy()) for hooks in found]


def _current_folder() -> int | None:
    """A handle of the current folder; None if it cannot be opened, or the system has no such handles."""
    if not hasattr(os, "fchdir"):
        return None
    try:
        return os.open(".", os.O_RDONLY)
    except OSError:
        return None
