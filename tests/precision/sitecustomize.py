"""Gives the Python processes that tests start the meaning of `precision = "auto"` that `pytest --precision` chose.

Python imports a module of this name at its start. `tests/conftest.py` puts this folder on PYTHONPATH. The function that
`hashing.train.fast_precision` asks is replaced as soon as torch is imported, so that a process without torch stays one.
"""

import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

PRECISION = "HASHDOOR_TESTS_PRECISION"


class TorchCpuFinder(MetaPathFinder):
    """Finds `torch.cpu` once, as the other finders do, and changes the module after its import."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "torch.cpu":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        assert spec is not None
        assert spec.loader is not None
        original = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            original(module)
            assert hasattr(module, "_is_avx512_bf16_supported"), "fast_precision asks another function now"
            module._is_avx512_bf16_supported = lambda: os.environ[PRECISION] == "bf16"

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if PRECISION in os.environ:
    sys.meta_path.insert(0, TorchCpuFinder())
