"""What a check is, and what becomes of a component that does not pass."""

from __future__ import annotations

import copy
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any
from unittest import mock

import numpy as np
import torch

from bench.api import registry
from bench.api.errors import UserError
from bench.conformance import fixture
from bench.conformance.fixture import World

# few epochs, steps and the like, whoever has them: promises hold for any number
DRAWING = ("random", "uniform", "randint", "randrange", "choice", "choices", "sample", "shuffle", "gauss", "seed")
QUICK = {"epochs": 1, "steps": 2, "iterations": 2, "warmup": 1, "overlays": 8, "width": 8}


class BrokenError(AssertionError):
    """A promise that a component does not keep, in words."""


class DoesNotApplyError(Exception):
    """A check that has nothing to look at here."""


@dataclass
class ComponentUnderTest:
    """One component under examination. params: as given; the paper's defaults hold for the rest, but for QUICK."""

    kind: str
    name: str
    params: Mapping[str, Any]

    @classmethod
    def of(cls, kind: str, name: str, params: Mapping[str, Any]) -> ComponentUnderTest:
        registry.find(kind, name)  # an unknown name or parameter is a mistake of the caller, not of the component
        params = registry.current(kind, name, params)
        if params or registry.required(kind, name):
            registry.create(kind, name, params)
        return cls(kind, name, params)

    @property
    def component(self) -> type[Any]:
        return registry.lookup(self.kind, self.name)

    def world(self) -> World:
        """A copy that a check may write to."""
        return copy.deepcopy(_small_world())

    def create(self, **params: Any) -> Any:
        """The component with the paper's defaults, but few epochs and steps, and with what was given."""
        known: dict[str, Any] = {item.name: item.default for item in fields(self.component)}
        quick = {key: few for key, few in QUICK.items() if isinstance(usual := known.get(key), int) and usual > few}
        given = {**self.params, **params}
        try:
            return registry.create(self.kind, self.name, {**quick, **given})
        except UserError:  # few may be too few for it, or what is given is wrong
            return registry.create(self.kind, self.name, given)


@cache
def _small_world() -> World:
    return fixture.make()


@dataclass(frozen=True)
class Outcome:
    """detail: what was found, or why it failed."""

    check: Check
    passed: bool
    detail: str
    seconds: float
    skipped: bool = False


@dataclass(frozen=True)
class Check:
    """fix: what to do where it fails. body: raises BrokenError, or says what it found."""

    name: str
    fix: str
    body: Callable[[ComponentUnderTest], str | None] = field(repr=False)

    def on(self, subject: ComponentUnderTest) -> Outcome:
        started = time.perf_counter()
        passed = skipped = False
        with one_thread():
            try:
                _refuse_names_of_random(subject.component)
                detail, passed = self.body(subject) or "", True
            except DoesNotApplyError as reason:
                detail, passed, skipped = str(reason), True, True
            except BrokenError as broken:
                detail = str(broken)
            except (Exception, SystemExit) as error:  # noqa: BLE001 -- a component may fail in any way; the place is shown
                place = traceback.extract_tb(error.__traceback__)[-1]
                detail = f"{type(error).__name__}: {' '.join(str(error).split())} ({place.filename}:{place.lineno})"
        return Outcome(self, passed, detail, time.perf_counter() - started, skipped)


class Checks(list[Check]):
    """The checks of a kind; `@CHECKS.add(fix)` takes a function whose docstring says what is promised."""

    def add(
        self, fix: str
    ) -> Callable[[Callable[[ComponentUnderTest], str | None]], Callable[[ComponentUnderTest], str | None]]:
        def decorate(body: Callable[[ComponentUnderTest], str | None]) -> Callable[[ComponentUnderTest], str | None]:
            self.append(Check((body.__doc__ or body.__name__).partition("\n")[0].rstrip("."), fix, body))
            return body

        return decorate


def require(kept: bool, otherwise: str) -> None:
    if not kept:
        raise BrokenError(otherwise)


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@contextmanager
def one_thread() -> Iterator[None]:
    """As in a stage; numba shares OpenMP with torch. What else a component sets for the whole process ends here."""
    import numba

    before, modes = (torch.get_num_threads(), numba.get_num_threads()), _modes()
    torch.set_num_threads(1)
    numba.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        numba.set_num_threads(before[1])
        torch.set_grad_enabled(modes["gradients"])
        torch.set_default_dtype(modes["default type"])


def _modes() -> dict[str, Any]:
    """What holds for the whole process, and hence for the components that come after."""
    return {
        "gradients": torch.is_grad_enabled(),
        "default type": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
    }


def _refuse(*_: object, **__: object) -> None:
    raise BrokenError("Python's global generator was drawn from")


def _refuse_names_of_random(component: type[Any]) -> None:
    """`from random import choice` is the global generator, too; no other component sees these names."""
    module = sys.modules[component.__module__]
    for name, value in list(vars(module).items()):
        if getattr(value, "__self__", None) is getattr(random, "_inst"):  # noqa: B009 -- no public name has it
            setattr(module, name, _refuse)


@contextmanager
def untouched_generators() -> Iterator[None]:
    """Broken where the block draws from a generator of the whole process, or changes how the process computes.

    Python's is watched through its functions, since others than the component may draw bits from it meanwhile.
    """
    numpy_state = np.random.get_state
    before, modes = (torch.get_rng_state(), repr(numpy_state())), _modes()
    refused: dict[str, Any] = dict.fromkeys(DRAWING, _refuse)
    with mock.patch.multiple(random, **refused):
        yield
    require(torch.equal(before[0], torch.get_rng_state()), "torch's global generator was drawn from")
    require(before[1] == repr(numpy_state()), "NumPy's global generator was drawn from")
    for name, value in _modes().items():
        require(value == modes[name], f"it set torch's {name} for the whole process")
