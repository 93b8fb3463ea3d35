"""Image trees (class/image.jpg) in a directory or an archive: the class of every image, and all images decoded."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from bench.api.errors import DataCorruptError, UserError
from bench.api.hashing import Pool
from hashing.datasets._archives import walk
from hashing.datasets._canvas import canvas

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp")
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")
PIXEL_LIMIT = 2**26
PARTS = {"train": 0, "test": 1, "val": 2}  # directories above the classes, and their origin


@dataclass(frozen=True)
class Tree:
    """items: name of each image, sorted, with the number of its class and its origin."""

    classes: tuple[str, ...]
    items: Mapping[str, tuple[int, int]]


def survey(path: Path) -> Tree:
    """The tree's classes and images, from names alone. One directory around everything is looked through."""
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
        raise UserError(f"'{path}': {strange[0]!r} lies beside train, but is no part ({', '.join(PARTS)}); remove it")
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


def decode_tree(path: Path, size: int, tree: Tree) -> Pool:
    """Every image as RGB, its centre square resized to `size`; ordered by name, whatever holds the tree."""
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
    return Pool(torch.from_numpy(pixels), labels, places[:, 1].to(torch.uint8))


def decode_image(data: bytes, size: int, where: str, *, whole: bool = False) -> UInt8[np.ndarray, "3 h w"]:
    """The centre square, or with `whole` all of the picture squeezed, at `size`.

    What does not decode, or is too large for a picture, is an error naming `where`.
    """
    try:
        picture = _rgb(data)
    except Exception as error:  # decoders fail in any way on damaged input
        cause = " ".join(str(error).split()) or type(error).__name__
        raise DataCorruptError(f"{where} does not decode: {cause}; get it again or remove it") from error
    if whole:
        picture = picture.resize((size, size), Image.Resampling.BILINEAR)  # of several pixels where it shrinks
    elif picture.size != (size, size):
        side = min(picture.size)
        left, top = ((length - side) // 2 for length in picture.size)
        square = picture.crop((left, top, left + side, top + side))
        picture = square.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(picture).transpose(2, 0, 1)


def _rgb(data: bytes) -> Image.Image:
    with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if image.width * image.height > PIXEL_LIMIT:  # from the header: nothing is unpacked yet
            raise ValueError(f"{image.width} x {image.height} pixels, limit {PIXEL_LIMIT}")
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"pixels are of kind {image.mode}, not 8 bits")
        return image.convert("RGB")
