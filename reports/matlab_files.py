"""Numeric arrays of MATLAB's files of level 5 (versions 5 to 7.2).

A reader of our own, because scipy's ends the process on damaged files. Format: MathWorks, "MAT-File Format", 2022.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np

MARK = b"MATLAB 5.0"
HEADER = 128  # bytes before the first element
COMPRESSED, MATRIX = 15, 14  # types of elements that hold others
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
COMPLEX, LOGICAL = 0x0800, 0x0200  # flags of an array
WIDEST = 8  # bytes of a number


@dataclass(frozen=True)
class MatlabArray:
    """An array that is still encoded. stored: type of its numbers in the file. kind: its type in MATLAB."""

    shape: tuple[int, ...]
    stored: np.dtype
    kind: np.dtype
    data: memoryview

    def read(self) -> np.ndarray:
        """The array; ValueError if the file does not hold as many numbers as the array claims."""
        count = math.prod(self.shape)
        if count * self.stored.itemsize != len(self.data):
            raise ValueError(f"it claims {count} numbers, the file holds {len(self.data)} bytes")
        return np.frombuffer(self.data, self.stored).reshape(self.shape, order="F").astype(self.kind)


def arrays(content: bytes, limit: int) -> Mapping[str, MatlabArray]:
    """The dense real arrays of a file by name; texts, cells, structures and sparse matrices are left out.

    ValueError or struct.error: the file is damaged. Compressed elements are unpacked up to `limit` bytes in total, and
    no array may take more.
    """
    if content[HEADER - 2 : HEADER] not in {b"IM", b"MI"}:
        raise ValueError("its header is damaged")
    order = "<" if content[HEADER - 2 : HEADER] == b"IM" else ">"
    found = {}
    for element in _elements(memoryview(content)[HEADER:], order):
        if element[0] == COMPRESSED:
            unpacked = zlib.decompressobj().decompress(element[1], limit + 1)
            limit -= len(unpacked)
            if limit < 0:
                raise ValueError("it unpacks to more than the limit")
            element = next(_elements(memoryview(unpacked), order), (0, memoryview(b"")))  # noqa: PLW2901
        if element[0] != MATRIX:
            raise ValueError(f"an element of type {element[0]}")
        if held := _array(element[1], order, limit):
            found[held[0]] = held[1]
    return found


def _array(body: memoryview, order: str, limit: int) -> tuple[str, MatlabArray] | None:
    """Name and array of a matrix; None if it is no dense array of real numbers."""
    parts = list(islice(_elements(body, order), 4))  # flags, sides, name, numbers
    if len(parts) < 4:
        return None
    (_, flags), (_, sides), (_, name), (stored, data) = parts
    (bits,) = struct.unpack_from(f"{order}I", flags)
    kind = CLASSES.get(bits & 0xFF)
    if kind is None or bits & COMPLEX:
        return None
    shape = tuple(int(side) for side in np.frombuffer(sides, f"{order}i4"))
    if stored not in NUMBERS or min(shape, default=-1) < 0:
        raise ValueError(f"numbers of type {stored} and shape {list(shape)}")
    if (size := math.prod(shape) * WIDEST) > limit:
        raise ValueError(f"it claims {size} bytes, the limit is {limit}")
    own = np.dtype(np.bool_) if bits & LOGICAL else np.dtype(kind)
    return bytes(name).decode("latin-1"), MatlabArray(shape, np.dtype(f"{order}{NUMBERS[stored]}"), own, data)


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Type and content of each element."""
    place = 0
    while place < len(data):
        kind, size = struct.unpack_from(f"{order}II", data, place)
        start = place + 8
        if kind >> 16:  # up to four bytes, which stand in the place of the size
            kind, size, start = kind & 0xFFFF, kind >> 16, place + 4
        if size > len(data) - start or (start == place + 4 and size > 4):
            raise ValueError("it is cut off")
        yield kind, data[start : start + size]
        place = place + 8 if start == place + 4 else start + size + (-size % 8 if kind != COMPRESSED else 0)
