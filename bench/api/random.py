"""Named streams of random numbers. The name of a stream lists exactly the axes that its numbers depend on."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

__all__ = ["Rng"]


class Rng:
    """A named stream of random numbers.

    Equal names give equal numbers on every machine and device, since the CPU draws them. A draw does not change other
    streams. `child` opens an independent stream, so that more draws in one place do not change another. A stream does
    not hold its name: the streams of a defense lead to no seed, except by trying all seeds.
    """

    def __init__(self, *path: str | int) -> None:
        """`path`: the axes that the stream depends on, for example `Rng("split", "digits", 0)`. ValueError: no axis."""
        if not path:
            raise ValueError("a stream needs a name: give the axes that it depends on")
        self._open(hashlib.sha256(json.dumps(path)[:-1].encode()))

    def _open(self, name: hashlib._Hash) -> None:
        """name: hash of the path as JSON, without the closing bracket. A hash cannot be read back."""
        self._name = name
        whole = name.copy()
        whole.update(b"]")
        self._seed = int.from_bytes(whole.digest()[:8], "big") >> 1
        self._generator = torch.Generator().manual_seed(self._seed)

    def __deepcopy__(self, memo: dict[int, Any]) -> Rng:
        """A stream of the same name in the same state."""
        del memo
        copied = copy.copy(self)
        copied._name = self._name.copy()  # noqa: SLF001 -- another stream of this class
        copied._generator = torch.Generator()  # noqa: SLF001 -- as above
        copied._generator.set_state(self._generator.get_state())  # noqa: SLF001 -- as above
        return copied

    def child(self, *path: str | int) -> Rng:
        """An independent stream: that of the path which continues this one's, such as `Rng("a").child(1)`: "a", 1."""
        name = self._name.copy()
        name.update("".join(f", {json.dumps(part)}" for part in path).encode())
        opened = copy.copy(self)
        opened._open(name)  # noqa: SLF001 -- another stream of this class
        return opened

    @property
    def seed(self) -> int:
        """The seed as a 63-bit integer, for libraries that need one."""
        return self._seed

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Float32 in [0, 1)."""
        return torch.rand(*shape, generator=self._generator)

    def normal(self, shape: Sequence[int]) -> Float[Tensor, "*shape"]:
        """Standard normal, float32."""
        return torch.randn(*shape, generator=self._generator)

    def integers(self, high: int, shape: Sequence[int]) -> Int64[Tensor, "*shape"]:
        """Integers in [0, high)."""
        return torch.randint(high, tuple(shape), generator=self._generator)

    def permutation(self, n: int) -> Int64[Tensor, " n"]:
        """The numbers 0..n-1 in random order."""
        return torch.randperm(n, generator=self._generator)

    def choose(self, pool: Int64[Tensor, " n"], count: int) -> Int64[Tensor, " m"]:
        """`count` different entries of `pool`, in the pool's order."""
        if count > len(pool):
            raise ValueError(f"cannot choose {count} of {len(pool)}")
        return pool[self.permutation(len(pool))[:count].sort().values.to(pool.device)]

    @contextmanager
    def ambient(self) -> Iterator[None]:
        """Seed torch's global generators inside the block, for initialisation and dropout. Restores them at the end."""
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(self._seed)
            yield
