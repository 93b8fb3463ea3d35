"""Starting numba's threads, which environment variables that other programs need can prevent."""

from __future__ import annotations

import os
from functools import cache

from bench.api.errors import UserError

LAYER, COUNT = "NUMBA_THREADING_LAYER", "NUMBA_NUM_THREADS"


@cache
def start_threads() -> None:
    """Start numba's threads, if it is installed.

    UserError names the variable that asks for a library or a number of threads that cannot be had.
    """
    try:
        import numba

        numba.get_num_threads()
    except ImportError:  # torch has the kernels too
        return
    except ValueError as error:
        given = {name: os.environ[name] for name in (LAYER, COUNT) if name in os.environ}
        words = ", ".join(f"{name}={value}" for name, value in given.items()) or "its own settings"
        install = ", or install tbb (pip install tbb)" if given.get(LAYER) == "tbb" else ""
        unset = f"unset {' and '.join(given)}" if given else "check the installation of numba"
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UserError(f"numba cannot start its threads with {words} ({reason}): {unset}{install}") from None
