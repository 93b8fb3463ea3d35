"""Image trees (class/image.jpg) in a directory or an archive: the class of each image, and the decoded images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.api.errors import DataCorruptError, UserError
from bench.api.hashing import DecodedDataset
from hashing.datasets.helpers.archives import walk
from hashing.datasets.helpers.image_buffer import canvas
from hashing.image_decoding import decode_image

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp")
PARTS = {"train": 0, "test": 1, "val": 2}  # directories above the classes: their origin


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
    tops = {parts[depth] for parts in images}
    deep = len(shallow) > depth + 2
    if deep and {"train"} < tops & set(PARTS) and (strange := sorted(tops - set(PARTS))):
        raise UserError(
            f"'{path}': {strange[0]!r} lies beside train, but is not a part ({', '.join(PARTS)}); remove it"
        )
    split = deep and "train" in tops and tops <= set(PARTS)
    level = depth + split
    if len(shallow) < level + 2:
        raise UserError(f"'{path}': image {'/'.join(shallow)!r} lies in no class directory; use class/image.jpg")
    filled = {parts[level] for parts in images}
    if empty := sorted({parts[level] for parts in folders if len(parts) == level + 1} - filled):
        raise UserError(f"'{path}': class directory {empty[0]!r} holds no images; fill or remove it")
    if len(filled) < 2:
        raise UserError(f"'{path}' holds one class, {shallow[level]!r}; retrieval needs two or more")
    classes = tuple(sorted(filled))
    number = {name: index for index, name in enumerate(classes)}
    items = {
        "/".join(parts): (number[parts[level]], PARTS[parts[depth]] if split else 0)
        for parts in sorted(images, key="/".join)
    }
    return Tree(classes, items)


def decode_tree(path: Path, size: int, tree: Tree) -> DecodedDataset:
    """Every image as RGB, its centre square resized to `size`. The order is that of `tree.items`."""
    row = {name: index for index, name in enumerate(tree.items)}
    pixels = canvas(len(row), 3, size, size)
    left = len(row)
    for name, read in walk(path):
        if read is not None and name in row:
            pixels[row[name]] = decode_image(read(), size, f"'{path}': member {name!r}")
            left -= 1
    if left:
        raise DataCorruptError(f"'{path}' changed while it was read: run again")
    places = torch.tensor(list(tree.items.values()), dtype=torch.int64)
    labels = torch.nn.functional.one_hot(places[:, 0], len(tree.classes)).bool()
    return DecodedDataset(torch.from_numpy(pixels), labels, places[:, 1].to(torch.uint8))
