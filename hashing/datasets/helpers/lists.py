"""Image lists in the format of hashing repositories: `train.txt`, `test.txt`, `database.txt`, one image per line.

A line is `path/of/image.jpg 0 1 0 ...` (0 or 1 for each label) or `path/of/image.jpg 7` (the number of its only class).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from bench.api.archives import LIMITS
from bench.api.errors import DataCorruptError, DataMissingError
from bench.api.untrusted import has_no_controls, read_bytes
from hashing.datasets.helpers.image_buffer import canvas
from hashing.datasets.helpers.pictures import decode_pictures
from hashing.image_decoding import PictureError

BIT = {"train": 1, "test": 2, "database": 4}  # `DecodedDataset.origin` is their sum
FILES = {"train": ("train.txt",), "test": ("test.txt", "query.txt"), "database": ("database.txt",)}  # CIBA: query.txt
NAMES = "classes.txt"
LIST_LIMIT = 2**30  # bytes per list
CELLS = 2**31  # entries of the label table


@dataclass(frozen=True)
class Lists:
    """names: every image once, sorted. member: sum of the BITs of its lists. bare: number of images without labels.

    digest: of names, labels and membership, independent of the order of lines and of line ends.
    """

    names: tuple[str, ...]
    labels: Bool[Tensor, "n k"]
    member: UInt8[Tensor, " n"]
    sizes: Mapping[str, int]
    bare: int
    digest: str


@dataclass(frozen=True)
class _Part:
    """lines: line number and labels ("0100", or a class number) of each image. width: number of labels in a line.

    outside: the number of the first line of each absolute path outside the images' folder.
    """

    file: Path
    lines: Mapping[str, tuple[int, str]]
    width: int
    outside: Mapping[str, int]


def read_lists(files: Mapping[str, Path], images: Path) -> Lists:
    """The three lists, checked against each other. Files that do not change are read once per process.

    images: the folder of the images. Absolute paths of images in it are made relative to it; other absolute paths are
    an error that names the prefix to cut off.
    """
    stamps = tuple((part, path, path.stat().st_size, path.stat().st_mtime_ns) for part, path in files.items())
    return _read(stamps, tuple(dict.fromkeys((os.path.abspath(images), os.path.realpath(images)))))  # noqa: PTH100


@lru_cache(maxsize=8)
def _read(stamps: tuple[tuple[str, Path, int, int], ...], folders: tuple[str, ...]) -> Lists:
    """folders: spellings of the images' folder."""
    parts = {part: _parse(path, folders) for part, path, _, _ in stamps}
    if outside := [(part, name) for part in parts.values() for name in part.outside]:
        raise _outside(outside, folders[0])
    first = parts["train"]
    for other in parts.values():
        if other.width != first.width:
            raise DataCorruptError(
                f"'{other.file}' gives {other.width} labels per line, '{first.file}' {first.width}", "make them alike"
            )
    _check_between(parts)
    names = tuple(sorted(set().union(*(part.lines for part in parts.values()))))
    text = [next(part.lines[name][1] for part in parts.values() if name in part.lines) for name in names]
    labels = _multi_hot(text) if first.width > 1 else _one_hot(text, first.file.parent)
    member = np.array([sum(BIT[p] for p, part in parts.items() if name in part.lines) for name in names], np.uint8)
    digest = hashlib.sha256("\n".join(names).encode() + labels.tobytes() + member.tobytes()).hexdigest()[:8]
    sizes = {name: len(part.lines) for name, part in parts.items()}
    bare = int((~labels.any(1)).sum())
    return Lists(names, torch.from_numpy(labels), torch.from_numpy(member), sizes, bare, digest)


def _outside(found: Sequence[tuple[_Part, str]], folder: str) -> DataCorruptError:
    """The error for absolute paths outside the folder; names the prefix without which the images are in it."""
    part, first = found[0]
    words = first.strip("/").split("/")
    inside = [n for n in range(1, len(words)) if os.path.isfile("/".join((folder, *words[n:])))]  # noqa: PTH113
    shared = os.path.commonpath([name.rpartition("/")[0] or "/" for _, name in found])
    prefix = f"/{'/'.join(words[: inside[0]])}/" if inside else f"{shared.rstrip('/')}/"
    if prefix == "/":
        hint = "write paths relative to it"
    elif inside:
        hint = f"cut off '{prefix}', and the first of them is found there"
    else:
        hint = f"all of them begin with '{prefix}': cut it off if it was the folder of the images elsewhere"
    return DataCorruptError(
        f"'{part.file}' line {part.outside[first]} names '{first}', which is not in the image folder '{folder}'"
        f"{_more(len(found), 'such paths in the lists')}; {hint}"
    )


def _relative(name: str, folders: Sequence[str]) -> str:
    """An absolute path relative to the folder that holds it; unchanged if none does."""
    for folder in folders:
        if name.startswith(f"{folder.rstrip('/')}/"):
            return name[len(folder.rstrip("/")) + 1 :]
    return name


def _parse(path: Path, folders: Sequence[str]) -> _Part:
    try:
        content = read_bytes(path, LIST_LIMIT)
    except (OSError, ValueError) as error:
        raise DataCorruptError(f"'{path}' cannot be read: {error}", "put a list of images there") from error
    try:
        rows = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataCorruptError(f"'{path}' line {line} is not UTF-8 text: save the list as UTF-8") from error
    while rows and not rows[-1].strip():
        rows.pop()
    if not rows:
        raise DataCorruptError(f"'{path}' is empty", "write one image per line, its path and its labels")
    lines: dict[str, tuple[int, str]] = {}
    outside: dict[str, int] = {}
    width, wrong = len(rows[0].split()) - 1, []
    for number, row in enumerate(rows, start=1):
        name, text, why = _entry(row, width, folders)
        if name.startswith("/") and not why:
            outside.setdefault(name, number)
            continue
        if not why and name in lines:
            why = f"names '{name}' again (first in line {lines[name][0]}): keep one of them"
        if why:
            wrong.append(f"'{path}' line {number} {why}")
        else:
            lines[name] = (number, text)
    if wrong:
        raise DataCorruptError(wrong[0] + _more(len(wrong), "lines with errors"))
    return _Part(path, lines, width, outside)


def _entry(row: str, width: int, folders: Sequence[str]) -> tuple[str, str, str]:
    """(image, labels as text, error); the error is "" for a correct line. A path outside the folders stays absolute."""
    words = row.split()
    if len(words) < 2:
        return "", "", "holds no image with labels: write its path and its labels, and no spaces in the path"
    given, labels = words[0], words[1:]
    text = "".join(labels)
    parts = given.split("/")
    name = "/".join(part for part in parts if part not in {"", "."})
    if given.startswith("/") and name:
        name = _relative(f"/{name}", folders)
    if not has_no_controls(given) or not name:
        why = "which holds control characters: rename the image" if name else "which is no image: write its path"
        return "", "", f"names {given!r}, {why}"
    if ".." in parts or "\\" in given or "\0" in given or given[1:2] == ":":
        return "", "", f"leads out of the image folder with '{given}': write paths relative to it, with /"
    if len(labels) != width:
        return "", "", f"has {len(labels)} labels where line 1 has {width}: give each line as many"
    number = width == 1 and text.isascii() and text.isdigit() and len(text) < 7
    if not number and (width == 1 or len(text) != width or text.strip("01")):
        odd = next((word for word in labels if word not in {"0", "1"}), text)
        return (
            "",
            "",
            f"has the label '{odd}': give 0 or 1 for each label, or one class number (no spaces in the path)",
        )
    return name, text, ""


def _check_between(parts: Mapping[str, _Part]) -> None:
    """DataCorruptError if a query is in another list, or if an image has different labels in two lists."""
    test, train, database = (parts[name] for name in ("test", "train", "database"))
    for other in (train, database):
        if shared := [name for name in test.lines if name in other.lines]:
            raise DataCorruptError(
                f"'{test.file}' line {test.lines[shared[0]][0]}: '{shared[0]}' is in '{other.file}' too: a query "
                f"must be in no other list{_more(len(shared), 'such images')}"
            )
    if differ := [name for name, (_, text) in train.lines.items() if database.lines.get(name, (0, text))[1] != text]:
        raise DataCorruptError(
            f"'{train.file}' line {train.lines[differ[0]][0]} gives '{differ[0]}' other labels than '{database.file}' "
            f"line {database.lines[differ[0]][0]}",
            f"correct one{_more(len(differ), 'such images')}",
        )


def _multi_hot(text: Sequence[str]) -> Bool[np.ndarray, "n k"]:
    return np.asarray(np.frombuffer("".join(text).encode(), np.uint8).reshape(len(text), -1) == ord("1"))


def _one_hot(text: Sequence[str], folder: Path) -> Bool[np.ndarray, "n k"]:
    numbers = np.array([int(word) for word in text])
    kinds = np.unique(numbers)
    if len(kinds) < 2 or len(kinds) != kinds[-1] + 1:
        raise DataCorruptError(
            f"the lists in '{folder}' hold {len(kinds)} class numbers from {kinds[0]} to {kinds[-1]}: number two or "
            "more classes from 0 without gaps"
        )
    if len(numbers) * len(kinds) > CELLS:
        raise DataCorruptError(
            f"the lists in '{folder}' hold {len(kinds)} classes for {len(numbers)} images: number the classes, not the"
            " images"
        )
    return np.asarray(numbers[:, None] == kinds)


def class_names(folder: Path, count: int) -> tuple[str, ...]:
    """The lines of `classes.txt`, or "label 0", "label 1", ... without this file."""
    if not (folder / NAMES).is_file():
        return tuple(f"label {number}" for number in range(count))
    try:
        content = read_bytes(folder / NAMES, 2**24).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataCorruptError(f"'{folder / NAMES}' is not UTF-8 text: save it as UTF-8") from error
    except (OSError, ValueError) as error:
        raise DataCorruptError(f"'{folder / NAMES}' cannot be read: {error}", "put one name per line there") from error
    names = tuple(line.strip() for line in content.strip().split("\n"))
    if odd := next((name for name in names if not has_no_controls(name)), None):
        raise DataCorruptError(f"'{folder / NAMES}' holds {odd!r}, which holds control characters", "rename the class")
    if len(names) != count or len(set(names)) != count or "" in names:
        raise DataCorruptError(
            f"'{folder / NAMES}' holds {len(set(names) - {''})} different names, the lists {count} labels",
            "write one name per line, in the order of the labels",
        )
    return names


def decode_listed(names: Sequence[str], folder: Path, size: int) -> UInt8[Tensor, "n 3 h w"]:
    """Every image resized to `size` x `size`. Missing images are reported before the first is decoded.

    DataCorruptError: names all pictures that cannot be used.
    """
    paths = [Path(path) for path in _locate(names, folder)]
    pixels = canvas(len(paths), 3, size, size)
    named = enumerate(zip(names, paths, strict=True))
    pictures = ((row, name, partial(_content, name, path)) for row, (name, path) in named)
    decode_pictures(pictures, pixels, source=folder, word="image", whole=True)
    return torch.from_numpy(pixels)


def _content(name: str, path: Path) -> bytes:
    try:
        if path.stat().st_size > LIMITS.member:
            raise PictureError(name, f"has more than {LIMITS.member} bytes and is refused")
        return path.read_bytes()
    except OSError as error:
        raise PictureError(name, f"cannot be read: {error.strerror}") from error


def _locate(names: Sequence[str], folder: Path) -> list[str]:
    """Real paths of the images. Links within the folder are followed; links out of it are refused."""
    top = os.path.realpath(folder).rstrip(os.sep) + os.sep
    parents: dict[str, str] = {}  # each directory is resolved once, for speed
    paths, missing, outside = [], [], []
    for name in names:
        parent, _, file = name.rpartition("/")
        if parent not in parents:
            parents[parent] = os.path.realpath(folder / parent)
        path = f"{parents[parent]}{os.sep}{file}".replace(os.sep * 2, os.sep)
        path = os.path.realpath(path) if os.path.islink(path) else path  # noqa: PTH114 -- Path is slow
        if not path.startswith(top):
            outside.append(name)
        elif not os.path.isfile(path):  # noqa: PTH113
            missing.append(name)
        paths.append(path)
    if outside:
        raise DataCorruptError(
            f"'{folder}': image '{outside[0]}' is a link that leaves the folder",
            f"put the file itself there{_more(len(outside), 'such images')}",
        )
    if missing:
        raise DataMissingError(
            f"image '{missing[0]}' of the lists is not in '{folder}'",
            f"put it there, or give another `images` folder{_more(len(missing), f'of {len(names)} images missing')}",
        )
    return paths


def _more(count: int, what: str) -> str:
    return f" (and {count - 1} more {what})" if count > 1 else ""
