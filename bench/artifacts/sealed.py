"""Copies of attacks whose `make_trigger` cannot read the parameters that the attack lists in `not_in_trigger`."""

from __future__ import annotations

import copy
from dataclasses import Field
from functools import cache
from types import new_class
from typing import Any, ClassVar, Protocol, cast

from bench.api.attack import Attack
from bench.api.errors import UserError


def sealed(attack: Attack, name: str) -> Attack:
    """A copy of the attack on which reading a parameter of `not_in_trigger` raises UserError.

    Trials that differ only in these parameters share a trigger, which is made with default values. name: the attack's
    name, for the error.
    """
    twin = copy.copy(attack)
    object.__setattr__(twin, "__class__", _sealed_class(type(attack), name))  # a frozen dataclass refuses `=`
    for parameter in attack.not_in_trigger:  # a base class may list parameters that the attack lacks
        vars(twin).pop(parameter, None)
    return twin


class _Component(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


@cache
def _sealed_class(cls: type[Attack], name: str) -> type[Attack]:
    """The attack's class with a property that raises in place of each parameter of `not_in_trigger`."""
    known = cast("type[_Component]", cls).__dataclass_fields__
    kept = {parameter: item for parameter, item in known.items() if parameter not in cls.not_in_trigger}

    def values(attack: Attack) -> tuple[Any, ...]:
        return tuple(getattr(attack, parameter) for parameter in kept)

    def refused(parameter: str) -> property:
        def read(_: Attack) -> Any:
            raise UserError(
                f"attack '{name}' reads '{parameter}' for its trigger, but lists it in not_in_trigger:"
                f" remove '{parameter}' from not_in_trigger"
            )

        return property(read)

    body: dict[str, Any] = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "__dataclass_fields__": kept,  # fields(), asdict() and replace() read this
        # these three methods of the dataclass would read all parameters
        "__repr__": lambda self: f"{cls.__qualname__}{dict(zip(kept, values(self), strict=True))}",
        "__eq__": lambda self, other: type(self) is type(other) and values(self) == values(other),
        "__hash__": lambda self: hash(values(self)),
        **{parameter: refused(parameter) for parameter in known.keys() & cls.not_in_trigger},
    }
    return cast("type[Attack]", new_class(cls.__name__, (cls,), exec_body=lambda names: names.update(body)))
