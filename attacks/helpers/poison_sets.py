"""Poisoned sets in folders: which picture replaces which image of a data set, and with which label.

A folder of pictures may have an index beside it, a CSV, JSON or numpy file. Without one, the name of each picture is
the number of its image, as in the folders that BackdoorBench writes: `bd_train_dataset/CLASS/NUMBER.png`. Otherwise its
path is that of its image in the data set.
"""

from __future__ import annotations

import csv
import io
import tokenize
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor

from attacks.helpers.trigger_pictures import read_picture
from bench.api.errors import DataCorruptError, choice, in_words
from bench.api.untrusted import parse_json, read_bytes
from hashing.image_decoding import picture_size

TRAIN, QUERY = ("train", "bd_train_dataset"), ("query", "bd_test_dataset")  # ours, and BackdoorBench's
LIMIT = 2**28  # bytes of an index
LONGEST = 200  # characters of a reason
# numpy reads the header of a file with Python's own parser
_UNREADABLE = (ValueError, OSError, MemoryError, OverflowError, TypeError, EOFError, SyntaxError, RecursionError,
               AttributeError, KeyError, tokenize.TokenError, csv.Error)  # fmt: skip
COLUMNS = "file, item and, if the attacker chose labels, label"

Number = Annotated[int, Field(ge=0, lt=2**32)]
"""The number of an image in a data set, or what is added to such numbers."""


def _no_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("expected a number or a text")  # noqa: TRY004 -- pydantic makes errors of ValueErrors only
    return value


def _item(value: object) -> int | str:
    """The number or the file name of an image."""
    _no_boolean(value)
    if isinstance(value, str) and value.lstrip("+-").isdigit() and len(value) < 16:
        value = int(value)
    if isinstance(value, int) and 0 <= value < 2**32:
        return value
    if isinstance(value, str) and value:
        return value
    raise ValueError("expected the number of an image, from 0 on, or its file name")


class _Row(BaseModel):
    """A line of an index."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    file: str
    item: Annotated[int | str, BeforeValidator(_item)]
    label: Annotated[int | str | None, BeforeValidator(_no_boolean)] = None


@dataclass(frozen=True)
class Entry:
    """A picture for an image.

    item: the number or the file name of the image. label: number of a class, or a text with its name or number; "": not
    given. path: of a picture without an index, in its folder, which may be the image's name too.
    """

    file: Path
    item: int | str
    label: int | str = ""
    path: str = ""


def pictures_folder(base: Path, names: Sequence[str]) -> Path | None:
    """The folder of pictures: the first of `names` that exists in `base`."""
    return next((base / name for name in names if (base / name).is_dir()), None)


def index_files(base: Path, names: Sequence[str]) -> tuple[Path, ...]:
    """The index files that exist; `read_entries` refuses more than one."""
    return tuple(file for ending in READERS if (file := base / f"{names[0]}{ending}").is_file())


def pictures_in(folder: Path) -> tuple[Path, ...]:
    """All files of a folder and its subfolders in the order of their paths, without hidden ones.

    DataCorruptError: a link leads to no file.
    """
    found = sorted(path for path in folder.rglob("*") if not path.name.startswith("."))
    if lost := next((path for path in found if path.is_symlink() and not path.is_file()), None):
        raise DataCorruptError(f"'{lost}' is a link that leads to no file", "put the pictures themselves there")
    return tuple(path for path in found if path.is_file())


def read_entries(base: Path, names: Sequence[str], first: int) -> tuple[Entry, ...]:
    """What each picture replaces. first: the number of the image that the set calls 0.

    DataCorruptError: the index and the pictures do not belong together, or two pictures are for one image.
    """
    folder = pictures_folder(base, names)
    assert folder is not None, "`files` found it"
    files, indexes = pictures_in(folder), index_files(base, names)
    if len(indexes) > 1:
        raise DataCorruptError(f"'{base}' has {' and '.join(file.name for file in indexes)}", "keep one of them")
    entries = _listed(folder, files, indexes[0]) if indexes else [_unlisted(file, folder) for file in files]
    known: dict[int | str, Entry] = {}
    for entry in entries:
        if (other := known.setdefault(entry.item, entry)) is not entry:
            raise DataCorruptError(
                f"'{other.file}' and '{entry.file}' are both for image {entry.item}", "keep one of them"
            )
    return tuple(entry if isinstance(entry.item, str) else replace(entry, item=entry.item + first) for entry in entries)


def _unlisted(file: Path, folder: Path) -> Entry:
    path = file.relative_to(folder).as_posix()
    number = file.stem.isascii() and file.stem.isdigit() and len(file.stem) < 16
    return Entry(file, int(file.stem) if number else path, path=path)


def numbered(entries: Sequence[Entry], numbers: Mapping[str, int], index: str) -> dict[int, Entry]:
    """The entries by the numbers of their images.

    numbers: by the file names of the data set. index: name of the index, for the error. DataCorruptError: a name is
    none of the data set's, or may be a name as well as a number.
    """
    bare: dict[str, list[int]] = {}  # a PNG may replace a JPEG
    for name, place in numbers.items():
        bare.setdefault(_bare(name), []).append(place)
    found: dict[int, Entry] = {}
    for entry in entries:
        number: int | None = entry.item if isinstance(entry.item, int) else numbers.get(entry.item)
        if number is None and isinstance(entry.item, str):
            alike = bare.get(entry.item) or bare.get(_bare(entry.item)) or []
            if len(alike) > 1:
                raise DataCorruptError(
                    f"'{entry.file}' may be for several images of the data set, whose names differ in the suffix",
                    f"give it the whole name of its image, or write {index}.csv with the columns {COLUMNS}",
                )
            number = alike[0] if alike else None
        if number is None:
            raise DataCorruptError(
                f"'{entry.file}' is for '{str(entry.item)[:LONGEST]}', and the data set has no image of this"
                f" {'name' if numbers else 'name, as its images are not files'}",
                f"name pictures by the number of the image they replace, like 17.png, or write {index}.csv with the"
                f" columns {COLUMNS}",
            )
        if isinstance(entry.item, int) and _bare(entry.path) in bare:
            raise DataCorruptError(
                f"'{entry.file}' may be for image {entry.item} or for the file '{_bare(entry.path)}' of the data set",
                f"write {index}.csv with the columns {COLUMNS}",
            )
        if (other := found.setdefault(number, entry)) is not entry:
            raise DataCorruptError(f"'{other.file}' and '{entry.file}' are both for image {number}", "keep one of them")
    return found


def _bare(name: str) -> str:
    """A file name without its suffix."""
    stem, point, suffix = name.rpartition(".")
    return stem if point and "/" not in suffix else name


def _listed(folder: Path, files: Sequence[Path], index: Path) -> list[Entry]:
    """The entries of an index, checked against the pictures."""
    try:
        rows = READERS[index.suffix](index, [file.relative_to(folder).as_posix() for file in files])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise DataCorruptError(f"'{index}': {place}: {in_words(first['msg'])}", f"give {COLUMNS}") from error
    except _UNREADABLE as error:
        hint = "write whole numbers with numpy.save" if index.suffix == ".npy" else f"give {COLUMNS}"
        reason = " ".join(str(error).split())[:LONGEST]
        raise DataCorruptError(f"'{index}' cannot be read: {reason or type(error).__name__}", hint) from error
    held, listed = {file.relative_to(folder).as_posix(): file for file in files}, {row.file for row in rows}
    if len(listed) < len(rows):
        raise DataCorruptError(f"'{index}' names a picture twice", "give each picture one line")
    if lost := sorted(listed - held.keys()):
        name = lost[0][:LONGEST]
        raise DataCorruptError(f"'{index}' names {name!r}, which is not in '{folder}'", choice(name, sorted(held)[:5]))
    if left := sorted(held.keys() - listed):
        more = f" (and {len(left) - 1} more)" if len(left) > 1 else ""
        raise DataCorruptError(f"'{index}' does not name '{left[0]}' of '{folder}'{more}", "add a line, or remove it")
    return [Entry(held[row.file], row.item, "" if row.label is None else row.label) for row in rows]


def _from_csv(index: Path, names: Sequence[str]) -> list[_Row]:
    del names
    lines = csv.DictReader(io.StringIO(read_bytes(index, LIMIT).decode("utf-8-sig")), strict=True)
    if len(set(names := lines.fieldnames or [])) < len(names):
        raise ValueError("two columns have one name")
    rows = [{"more" if key is None else key: cell for key, cell in line.items()} for line in lines]
    return TypeAdapter(list[_Row]).validate_python(rows)


def _from_json(index: Path, names: Sequence[str]) -> list[_Row]:
    del names
    return TypeAdapter(list[_Row]).validate_python(parse_json(read_bytes(index, LIMIT)))


def _from_numpy(index: Path, names: Sequence[str]) -> list[_Row]:
    """A whole number for each picture in the order of their paths, or two: item and label."""
    found: Any = np.load(index, mmap_mode="r", allow_pickle=False)  # mapped: a header cannot claim more than is there
    if found.dtype.kind not in "iu" or found.shape not in {(len(names),), (len(names), 2)}:
        raise ValueError(
            f"it holds {found.dtype} of shape {list(found.shape)}, not whole numbers of shape [{len(names)}] or"
            f" [{len(names)}, 2]"
        )
    keys = ("item", "label")
    rows = [
        {"file": name, **dict(zip(keys, np.atleast_1d(values).tolist(), strict=False))}
        for name, values in zip(names, found, strict=True)
    ]
    return TypeAdapter(list[_Row]).validate_python(rows)


READERS: Mapping[str, Callable[[Path, Sequence[str]], list[_Row]]] = {
    ".csv": _from_csv,
    ".json": _from_json,
    ".npy": _from_numpy,
}


def check_pictures(files: Sequence[Path]) -> None:
    """DataCorruptError unless all files are pictures of one size. Their pixels are not decoded."""
    sizes = {file: picture_size(file, f"'{file}'") for file in files}
    odd = next((file for file, size in sizes.items() if size != sizes[files[0]]), None)
    if odd is not None:
        (w, h), (other_w, other_h) = sizes[odd], sizes[files[0]]
        raise DataCorruptError(
            f"'{odd}' has {w} x {h} pixels, '{files[0]}' {other_w} x {other_h}",
            "give all pictures the size of the images of the data set",
        )


def read_pictures(entries: Sequence[Entry], image_shape: tuple[int, ...]) -> UInt8[Tensor, "n c h w"]:
    """The pictures of the entries. DataCorruptError: one is no picture, has another size, or is not opaque."""
    pixels = torch.empty((len(entries), *image_shape), dtype=torch.uint8)
    for row, entry in enumerate(entries):
        pixels[row : row + 1], opacity = read_picture(entry.file, image_shape)
        if not (opacity == 255).all():
            raise DataCorruptError(f"'{entry.file}' is partly transparent", "save it without transparency")
    return pixels


def label_vector(entry: Entry, classes: Sequence[str]) -> Bool[Tensor, " k"]:
    """The label of an entry: a class, or several with a plus between them.

    DataCorruptError: a class does not exist, or a text is the name of one and the number of another.
    """
    vector = torch.zeros(len(classes), dtype=torch.bool)
    text = str(entry.label)
    for name in [text] if text in classes else text.split("+"):
        number = int(name) if name.isascii() and name.isdigit() and len(name) < 16 else len(classes)
        named = isinstance(entry.label, str) and name in classes
        if named and number < len(classes) and classes[number] != name:
            raise DataCorruptError(
                f"'{entry.file}' gets the label '{name}', the name of one class and the number of '{classes[number]}'",
                "write an index in JSON: numbers there are numbers of classes, texts are names",
            )
        if not named and number >= len(classes):
            raise DataCorruptError(
                f"'{entry.file}' gets the label '{name[:LONGEST]}', and the data set has {len(classes)} classes, 0 to"
                f" {len(classes) - 1}",
                choice(name, classes),
            )
        vector[list(classes).index(name) if named else number] = True
    return vector
