"""Copies of attacks whose `make_trigger` cannot read the parameters that the attack lists in `not_in_trigger`."""

from __future__ import annotations

import copy
from dataclasses import fields
from functools import cache
from types import new_class
from typing import Any, NoReturn, cast

from bench.api.attack import Attack
from bench.api.errors import UserError


def sealed(attack: Attack, name: str) -> Attack:
    """A copy of the attack on which reading a parameter of `not_in_trigger` raises UserError.

    Trials that differ only in these parameters share a trigger, which is made with default values. name: the attack's
    name, for the error.
    """
    twin = copy.copy(attack)
    object.__setattr__(twin, "__class__", _sealed_class(type(attack), name))  # a frozen dataclass refuses `=`
    for parameter in attack.not_in_trigger & vars(twin).keys():
        vars(twin)[parameter] = _Withheld()
    return twin


class _Withheld:
    """Stands in an instance's `__dict__` for a value. Nothing can compute with it, so using it fails the stage."""


@cache
def _sealed_class(cls: type[Attack], name: str) -> type[Attack]:
    """The attack's class with a property that raises in place of each parameter of `not_in_trigger`."""
    known = {item.name for item in fields(cast("Any", cls))}
    kept = [parameter for parameter in known if parameter not in cls.not_in_trigger]

    def values(attack: Attack) -> tuple[Any, ...]:
        return tuple(getattr(attack, parameter) for parameter in kept)

    def refused(parameter: str) -> property:
        def refuse(*_: Any) -> NoReturn:
            raise UserError(
                f"attack '{name}' reads '{parameter}' for its trigger, but lists it in not_in_trigger",
                f"remove '{parameter}' from not_in_trigger",
            )

        return property(refuse, refuse)  # `replace(self, ...)` and `type(self)(...)` set it

    body: dict[str, Any] = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        # these three methods of the dataclass would read all parameters
        "__repr__": lambda self: f"{cls.__qualname__}{dict(zip(kept, values(self), strict=True))}",
        "__eq__": lambda self, other: type(self) is type(other) and values(self) == values(other),
        "__hash__": lambda self: hash(values(self)),
        **{parameter: refused(parameter) for parameter in known & cls.not_in_trigger},
    }
    return cast("type[Attack]", new_class(cls.__name__, (cls,), exec_body=lambda names: names.update(body)))
