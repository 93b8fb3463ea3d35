"""The columns of Parquet files that hold pictures and labels, and the class names of their metadata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.api.errors import DataCorruptError, UserError, choice
from bench.api.untrusted import UntrustedError, parse_json
from hashing.datasets.helpers.parquet_shards import Shard
from hashing.parquet_files import holds_lists, opened

if TYPE_CHECKING:
    from pyarrow import DataType, Schema

METADATA = b"huggingface"  # key in the metadata of the schema
USUAL = ("label", "labels")  # names that decide if several columns could hold the labels


@dataclass(frozen=True)
class Columns:
    """image: column of the pictures. field: the one of its structure that holds the bytes; "": it is no structure.

    names: class names of the Hugging Face metadata; None: the labels are the classes.
    """

    image: str
    field: str
    label: str
    names: tuple[str, ...] | None


def columns_of(shards: Sequence[Shard], image: str, label: str) -> Columns:
    """The columns of the first file. UserError if another file lacks them or has others of their names."""
    schemas = []
    for shard in shards:
        with opened(shard.path) as file:
            schemas.append(file.schema_arrow)
    if twice := next((one for one in schemas if len({*one.names}) < len(one.names)), None):
        raise UserError(f"'{shards[schemas.index(twice)].path}' has two columns of one name", "rename one")
    found = _image(shards[0], schemas[0], image), _label(shards[0], schemas[0], label)
    known: dict[tuple[str, ...], Shard] = {}
    kinds = set()
    for shard, schema in zip(shards, schemas, strict=True):
        _image(shard, schema, found[0])
        _label(shard, schema, found[1])
        kinds.add((_bytes_in(schema.field(found[0]).type), label_kind(schema.field(found[1]).type)))
        if len(kinds) > 1:
            raise UserError(
                f"'{shard.path}': column '{found[0]}' or '{found[1]}' has another type than in '{shards[0].path}'",
                "use files of one data set",
            )
        if "number" in label_kind(schema.field(found[1]).type) and (names := _class_names(shard, schema, found[1])):
            known.setdefault(names, shard)
    if len(known) > 1:
        one, other = list(known.values())[:2]
        raise UserError(f"'{one.path}' and '{other.path}' have different class names", "use files of one data set")
    return Columns(found[0], kinds.pop()[0] or "", found[1], next(iter(known), None))


def _image(shard: Shard, schema: Schema, wanted: str) -> str:
    fitting = [field.name for field in schema if _bytes_in(field.type) is not None]
    return _choose(shard, schema, wanted, fitting, "image", "bytes, or a structure with a field bytes")


def _bytes_in(kind: DataType) -> str | None:
    """The field that holds bytes: "" for bytes themselves; None for columns of other types."""
    from pyarrow import types

    if types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return "bytes" if place >= 0 and _bytes_in(kind.field(place).type) == "" else None
    return "" if types.is_binary(kind) or types.is_large_binary(kind) else None


def _label(shard: Shard, schema: Schema, wanted: str) -> str:
    fitting = [field.name for field in schema if label_kind(field.type)]
    likely = [name for name in fitting if _class_names(shard, schema, name)] or fitting
    usual = [name for name in likely if name in USUAL]
    fitting = fitting if wanted else usual if len(usual) == 1 else likely
    return _choose(shard, schema, wanted, fitting, "label", "integers, strings, or lists of these")


def label_kind(kind: DataType) -> str:
    """What the values are: "number", "text", or a list of these; "" for columns of other types."""
    from pyarrow import types

    if holds_lists(kind):
        inner = label_kind(kind.value_type)
        return f"list of {inner}" if inner in {"number", "text"} else ""
    plain = kind.value_type if types.is_dictionary(kind) else kind
    if types.is_string(plain) or types.is_large_string(plain):
        return "text"
    return "number" if types.is_integer(plain) else ""


def _choose(shard: Shard, schema: Schema, wanted: str, fitting: Sequence[str], parameter: str, expected: str) -> str:
    """The wanted column, else the only one that fits."""
    if not wanted:
        if len(fitting) == 1:
            return fitting[0]
        held = f"several columns of {expected}: {', '.join(fitting)}" if fitting else f"no column of {expected}"
        hint = f"write {parameter} = '{fitting[0]}'" if fitting else f"its columns: {', '.join(schema.names)}"
        raise UserError(f"'{shard.path}' holds {held}", hint)
    if wanted not in schema.names:
        raise UserError(f"'{shard.path}' has no column {parameter} = '{wanted}'", choice(wanted, schema.names))
    if wanted not in fitting:
        raise UserError(
            f"'{shard.path}': column {parameter} = '{wanted}' holds {schema.field(wanted).type}, not {expected}",
            choice(wanted, fitting),
        )
    return wanted


def _class_names(shard: Shard, schema: Schema, label: str) -> tuple[str, ...] | None:
    """The names of Hugging Face's ClassLabel; None without them."""
    try:
        about = parse_json((schema.metadata or {}).get(METADATA, b"{}"))
    except UntrustedError as error:
        raise DataCorruptError(f"'{shard.path}': its Hugging Face metadata cannot be read: {error}") from error
    match about:
        case {"info": {"features": {**features}}}:
            return _names_in(features.get(label))
        case _:
            return None


def _names_in(feature: Any) -> tuple[str, ...] | None:
    match feature:
        case {"_type": "ClassLabel", "names": [*names]} if names and all(isinstance(name, str) for name in names):
            return tuple(names)
        case {"feature": inner} | [inner]:  # a list of classes, in today's and in an older form
            return _names_in(inner)
        case _:
            return None
