"""Lists the fields of a pydantic class with type, range, default and description, for `bench list` and documents."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pydantic import TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema

BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
LENGTHS = {"minLength": ">=", "minItems": ">=", "maxLength": "<=", "maxItems": "<="}
TYPES = {"number": "float", "integer": "int", "string": "text", "boolean": "bool", "object": "table", "null": "null"}


@dataclass(frozen=True)
class Parameter:
    """One field.

    values: its type, or the texts that it accepts. limits: its range, for example ">= 0". default: "required" if there
    is none, "-" for None.
    """

    name: str
    values: str
    limits: str
    default: str
    description: str


def parameters_of(cls: type[Any]) -> list[Parameter]:
    """All fields of a pydantic model or dataclass, in the order of declaration.

    The description is the docstring below the field, from the subclass if a base has one too.
    """
    described = {name: text for base in reversed(cls.__mro__) for name, text in _described(base)}
    try:
        whole = TypeAdapter(cls).json_schema(mode="validation")
    except PydanticInvalidForJsonSchema:  # a plugin's field has a type that JSON lacks
        whole = {"properties": {name: {} for name in inspect.signature(cls).parameters}}
    required = whole.get("required", [])
    return [
        Parameter(
            name,
            _values(field),
            _limits(field),
            "required" if name in required else _default(field.get("default")),
            described.get(name, ""),
        )
        for name, field in whole.get("properties", {}).items()
    ]


def _described(cls: type[Any]) -> Iterator[tuple[str, str]]:
    """The names and docstrings of the fields that a class itself declares."""
    if not (hasattr(cls, "__pydantic_fields__") or hasattr(cls, "__dataclass_fields__")):
        return
    try:
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    except (OSError, TypeError):  # a class that was not read from a file
        return
    assert isinstance(node, ast.ClassDef)
    for field, text in pairwise(node.body):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str):
            yield field.target.id, text.value.value


def _values(field: Mapping[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(text for one in field["anyOf"] if (text := _values(one)) != "null"))
    if "enum" in field or "const" in field:
        return " or ".join(json.dumps(value) for value in field.get("enum", [field.get("const")]))
    if field.get("type") == "array":
        if "prefixItems" in field:
            return f"list of {len(field['prefixItems'])} values"
        inner = _values(field.get("items", {}))
        return f"list of ({inner})" if " or " in inner else f"list of {inner}"
    if "$ref" in field:
        return "table"
    return TYPES.get(field.get("type", ""), "any value")


def _limits(field: Mapping[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(text for one in field["anyOf"] if (text := _limits(one))))
    found = [f"{sign} {_number(float(field[key]))}" for key, sign in BOUNDS.items() if key in field]
    found += [f"length {sign} {field[key]}" for key, sign in LENGTHS.items() if key in field]
    if "prefixItems" not in field and "items" in field and (inner := _limits(field["items"])):
        found.append(f"each {inner}")
    return ", ".join(found)


def _number(value: float) -> str:
    return f"{value:.0f}" if value.is_integer() else f"{value:.4g}"


def _default(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)
