"""Checks, their outcomes, and the component under test."""

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
from bench.api.errors import STOPS, UserError, text_of
from bench.conformance import fixture
from bench.conformance.fixture import World

DRAWING = ("random", "uniform", "randint", "randrange", "choice", "choices", "sample", "shuffle", "gauss", "seed")
# values for parameters of these names, for speed; checks must pass for any value
QUICK = {"epochs": 1, "steps": 2, "iterations": 2, "warmup": 1, "rounds": 20, "overlays": 8, "width": 8}


class BrokenError(AssertionError):
    """A component fails a check. The message gives the reason."""


class DoesNotApplyError(Exception):
    """A check does not apply to this component."""


@dataclass
class ComponentUnderTest:
    """The tested component. params: given parameters; the others have their defaults or values of QUICK."""

    kind: str
    name: str
    params: Mapping[str, Any]

    @classmethod
    def of(cls, kind: str, name: str, params: Mapping[str, Any]) -> ComponentUnderTest:
        registry.find(kind, name)  # raises UserError here, since a wrong name or parameter is the caller's mistake
        params = registry.current(kind, name, params)
        if params or registry.required(kind, name):
            registry.create(kind, name, params)
        return cls(kind, name, params)

    @property
    def component(self) -> type[Any]:
        return registry.lookup(self.kind, self.name)

    def world(self) -> World:
        """A copy of the world, which a check may change."""
        return copy.deepcopy(_small_world())

    def create(self, **params: Any) -> Any:
        """The component with the given parameters, values of QUICK, and defaults."""
        known: dict[str, Any] = {item.name: item.default for item in fields(self.component)}
        quick = {key: few for key, few in QUICK.items() if isinstance(usual := known.get(key), int) and usual > few}
        given = {**self.params, **params}
        try:
            return registry.create(self.kind, self.name, {**quick, **given})
        except UserError:  # values of QUICK may be too small
            return registry.create(self.kind, self.name, given)


@cache
def _small_world() -> World:
    return fixture.make()


@dataclass(frozen=True)
class Outcome:
    """The outcome of a check. detail: a measured value, or the reason of a failure."""

    check: Check
    passed: bool
    detail: str
    seconds: float
    skipped: bool = False


@dataclass(frozen=True)
class Check:
    """One check. fix: advice after a failure. body: raises BrokenError, or returns the outcome's detail."""

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
            except STOPS:
                raise
            except BaseException as error:  # noqa: BLE001 -- a component may raise anything
                place = traceback.extract_tb(error.__traceback__)[-1]
                detail = f"{type(error).__name__}: {' '.join(text_of(error).split())} ({place.filename}:{place.lineno})"
        return Outcome(self, passed, detail, time.perf_counter() - started, skipped)


class Checks(list[Check]):
    """The checks of a kind. `@CHECKS.add(fix)` adds a function; the first line of its docstring is the name."""

    def add(
        self, fix: str
    ) -> Callable[[Callable[[ComponentUnderTest], str | None]], Callable[[ComponentUnderTest], str | None]]:
        def decorate(body: Callable[[ComponentUnderTest], str | None]) -> Callable[[ComponentUnderTest], str | None]:
            self.append(Check((body.__doc__ or body.__name__).partition("\n")[0].rstrip("."), fix, body))
            return body

        return decorate


def require(kept: bool, otherwise: str) -> None:
    """BrokenError with the message `otherwise` unless `kept`."""
    if not kept:
        raise BrokenError(otherwise)


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    """Whether two mappings have the same names and tensors."""
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread, as in a stage (numba shares OpenMP with torch). Restores the global modes of torch at the end."""
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
    """Global settings that a component must not change for others."""
    return {
        "gradients": torch.is_grad_enabled(),
        "default type": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
    }


def _refuse(*_: object, **__: object) -> None:
    raise BrokenError("it used Python's global generator")


def _refuse_names_of_random(component: type[Any]) -> None:
    """Replace names from `from random import choice` and the like, which use the global generator."""
    module = sys.modules[component.__module__]
    for name, value in list(vars(module).items()):
        if getattr(value, "__self__", None) is getattr(random, "_inst"):  # noqa: B009 -- there is no public name
            setattr(module, name, _refuse)


@contextmanager
def untouched_generators() -> Iterator[None]:
    """BrokenError if the block uses a global generator or changes a global mode.

    The functions of Python's generator are replaced, since other code may use the generator at the same time.
    """
    numpy_state = np.random.get_state
    before, modes = (torch.get_rng_state(), repr(numpy_state())), _modes()
    refused: dict[str, Any] = dict.fromkeys(DRAWING, _refuse)
    with mock.patch.multiple(random, **refused):
        yield
    require(torch.equal(before[0], torch.get_rng_state()), "it used torch's global generator")
    require(before[1] == repr(numpy_state()), "it used NumPy's global generator")
    for name, value in _modes().items():
        require(value == modes[name], f"it set torch's {name} for the whole process")
