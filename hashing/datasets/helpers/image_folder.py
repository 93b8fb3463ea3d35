"""Image trees (class/image.jpg) in a directory or an archive: the class of each image, and the decoded images."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from bench.api.archives import walk
from bench.api.errors import DataCorruptError, UserError
from bench.api.hashing import DecodedDataset
from hashing.datasets.helpers.image_buffer import canvas
from hashing.datasets.helpers.pictures import decode_pictures

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp")
PARTS = {"train": 0, "test": 1, "val": 2}  # directories above the classes: their origin
_PART = re.compile(  # the names that published archives give them: Train, training_set, validation, test_images, ...
    r"(?:(?:set|data|images?|imgs?)[ _-]?)?(?:(train)(?:ing)?|(test)(?:ing)?|(val)(?:id(?:ation)?)?)"
    r"(?:[ _-]?(?:set|data|images?|imgs?|split|folder|[0-9]+))*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Tree:
    """items: for the name of each image, in sorted order, its class number and its origin."""

    classes: tuple[str, ...]
    items: Mapping[str, tuple[int, int]]


def survey(path: Path) -> Tree:
    """Classes and images of the tree, from the names only. Directories that hold the whole tree are skipped."""
    folders, images = [], []
    for name, read in walk(path):
        if read is None:
            folders.append(name.split("/"))
        elif name.lower().endswith(SUFFIXES):
            images.append(name.split("/"))
    if not images:
        raise UserError(f"'{path}' holds no images: lay them out as class/image.jpg ({', '.join(SUFFIXES)})")
    depth = 0
    shallow = min(images, key=len)
    while len(shallow) > depth + 2 and len({parts[depth] for parts in (*images, *folders) if len(parts) > depth}) == 1:
        depth += 1
    parts_of = _parts(path, images, depth)
    level = depth + bool(parts_of)
    if len(shallow) < level + 2:
        raise UserError(f"'{path}': image {'/'.join(shallow)!r} lies in no class directory", "use class/image.jpg")
    filled = {parts[level] for parts in images}
    if empty := sorted({parts[level] for parts in folders if len(parts) == level + 1} - filled):
        raise UserError(f"'{path}': class directory {empty[0]!r} holds no images; fill or remove it")
    if len(filled) < 2:
        raise UserError(f"'{path}' holds one class, {shallow[level]!r}; retrieval needs two or more")
    classes = tuple(sorted(filled))
    number = {name: index for index, name in enumerate(classes)}
    items = {
        "/".join(parts): (number[parts[level]], PARTS[parts_of[parts[depth]]] if parts_of else 0)
        for parts in sorted(images, key="/".join)
    }
    return Tree(classes, items)


def _parts(path: Path, images: Sequence[Sequence[str]], depth: int) -> Mapping[str, str]:
    """The part (train, test, val) of each directory at this depth; empty if the directories are classes.

    UserError where they look like parts and have other names, since a class must not be the name of a part.
    """
    inside: dict[str, set[str]] = {}
    flat: dict[str, str] = {}
    for image in images:
        if len(image) > depth + 2:
            inside.setdefault(image[depth], set()).add(image[depth + 1])
        elif len(image) == depth + 2:
            flat.setdefault(image[depth], "/".join(image))
    tops = {image[depth] for image in images}
    found = {top: next(filter(None, match.groups())).lower() for top in tops if (match := _PART.fullmatch(top))}
    kinds = set(found.values())
    if {"train"} < kinds and not flat.keys() >= tops and (strange := sorted(tops - found.keys())):
        raise UserError(
            f"'{path}': {strange[0]!r} lies beside train, but is not a part ({', '.join(PARTS)})", "remove it"
        )
    if {"train"} < kinds and found.keys() == tops:
        if flat:
            raise UserError(
                f"'{path}': image {min(flat.values())!r} lies in no class directory; {', '.join(sorted(tops))} look"
                " like parts, so lay the images out as train/class/image.jpg"
            )
        if len(kinds) < len(found):
            twice = sorted(top for top, kind in found.items() if list(found.values()).count(kind) > 1)
            raise UserError(f"'{path}': {' and '.join(map(repr, twice))} are the same part: join or remove one")
        return found
    shared = set.intersection(*inside.values()) if inside.keys() == tops and not flat and len(tops) > 1 else set()
    if len(shared) > 1 and 2 * len(shared) > max(map(len, inside.values())):
        names = ", ".join(sorted(tops)[:4])
        raise UserError(
            f"'{path}': {names} hold the same folders ({', '.join(sorted(shared)[:4])}), so they look like parts,"
            f" not classes",
            f"call parts {' and '.join(list(PARTS)[:2])}, give the path of one of them, or, if they are"
            " classes, put the images of a class into one folder",
        )
    return {}


def labels_of(tree: Tree) -> tuple[Bool[Tensor, "n k"], UInt8[Tensor, " n"]]:
    """Labels and origin of every image, in the order of `tree.items`."""
    places = torch.tensor(list(tree.items.values()), dtype=torch.int64)
    labels = torch.nn.functional.one_hot(places[:, 0], len(tree.classes)).bool()
    return labels, places[:, 1].to(torch.uint8)


def decode_tree(path: Path, size: int, tree: Tree) -> DecodedDataset:
    """Every image as RGB, its centre square resized to `size`. The order is that of `tree.items`.

    DataCorruptError: names all pictures that cannot be used.
    """
    row = {name: index for index, name in enumerate(tree.items)}
    pixels = canvas(len(row), 3, size, size)
    left = {**row}
    pictures = ((left.pop(name), name, read) for name, read in walk(path) if read is not None and name in left)
    decode_pictures(pictures, pixels, source=path, word="member")
    if left:
        raise DataCorruptError(f"'{path}' changed while it was read", "run again")
    return DecodedDataset(torch.from_numpy(pixels), *labels_of(tree), tuple(tree.items))
