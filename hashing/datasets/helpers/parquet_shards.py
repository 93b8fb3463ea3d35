"""Parquet files in a folder: which of them belong to a data set, and the part of each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from bench.api.errors import UserError
from bench.api.untrusted import has_no_controls
from hashing.datasets.helpers.image_folder import PARTS

SUFFIX = ".parquet"
# The words that Hugging Face's documentation ("File names and splits") gives for parts, and the part of each.
_WORDS = {"training": "train", "testing": "test", "eval": "test", "evaluation": "test", "valid": "val",
          "validation": "val", "dev": "val", **{part: part for part in PARTS}}  # fmt: skip
_NUMBERED = re.compile(r"(.*)-\d{5}-of-(\d{5})")
_WORD = re.compile(rf"(?<![a-z])({'|'.join(sorted(_WORDS, key=len, reverse=True))})(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Shard:
    """A file. name: relative to the folder of the data set. origin: number of its part."""

    path: Path
    name: str
    origin: int


def shards_of(path: Path, pattern: str) -> tuple[Shard, ...]:
    """The file, or all visible ones below the folder whose names fit the pattern, in the order of their names.

    pattern: "" for all; alternatives are separated by |; a * stands for any characters. Links to files are followed,
    since the download cache of Hugging Face consists of them. UserError: there is none, only some are in a part, some
    are missing, or folders hold files of equal names, which are several data sets.
    """
    if path.is_file():
        return (Shard(path, path.name, PARTS["train"]),)
    if lost := next((one for one in sorted(path.rglob("*")) if one.is_symlink() and not one.is_file()), None):
        raise UserError(f"'{lost}' is a link that leads to no file", "get the data set again, or remove the link")
    found = {one.relative_to(path).as_posix(): one for one in path.rglob(f"*{SUFFIX}") if one.is_file()}
    names = sorted(name for name in found if not any(word.startswith(".") for word in name.split("/")))
    if odd := next((name for name in names if not has_no_controls(name)), None):
        raise UserError(f"'{path}': the name of {odd!r} holds control characters", "rename the file")
    if not names:
        raise UserError(f"'{path}' holds no *{SUFFIX} file", "give the folder, or the path of a file")
    fitting = [name for name in names if any(fnmatchcase(name, one) for one in (pattern or "*").split("|"))]
    if not fitting:
        raise UserError(
            f"'{path}': pattern '{pattern}' fits none of {len(names)} files", f"the first of them is '{names[0]}'"
        )
    if not pattern:
        _check_whole(path, fitting)
    origins = _origins(path, fitting)
    return tuple(Shard(found[name], name, origins[name]) for name in fitting)


def _check_whole(path: Path, names: Sequence[str]) -> None:
    """UserError: files of a numbered series are missing, or two folders hold files of one name and part."""
    series: dict[tuple[str, int], int] = {}
    places: dict[tuple[str, str], str] = {}
    for name in names:
        if match := _NUMBERED.fullmatch(name.removesuffix(SUFFIX)):
            start, count = match[1], int(match[2])
            series[start, count] = series.get((start, count), 0) + 1
        folder, _, file = name.rpartition("/")
        if (other := places.setdefault((file, _part(name)), folder)) != folder:
            raise UserError(
                f"'{path}': folders '{other}' and '{folder}' both hold '{file}', which may be of several data sets",
                f"choose one, for example pattern = '{folder or other}/*', or read all with pattern = '*'",
            )
    for (start, count), held in series.items():
        if held < count:
            raise UserError(
                f"'{path}' holds {held} of the {count} files of '{start}'",
                "get the others, or read what is there with pattern = '*'",
            )


def _origins(path: Path, names: Sequence[str]) -> Mapping[str, int]:
    """The part of each file, if there are several and train is among them; else all are of one part."""
    parts = {name: _part(name) for name in names}
    known = {part for part in parts.values() if part}
    if known and (strange := next((name for name, part in parts.items() if not part), "")):
        beside = next(name for name, part in parts.items() if part)
        raise UserError(
            f"'{path}': the name of '{strange}' says no part ({', '.join(PARTS)}), that of '{beside}' does",
            "leave it out with pattern, or rename it",
        )
    return {name: PARTS[part] if {"train"} < known else PARTS["train"] for name, part in parts.items()}


def _part(name: str) -> str:
    """The part that the name of a file says, or else that of the nearest directory; "" if there is none."""
    for word in reversed(name.removesuffix(SUFFIX).split("/")):
        if match := _WORD.search(word):
            return _WORDS[match[1].lower()]
    return ""
