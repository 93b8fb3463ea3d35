"""Hash codes packed into 64-bit words, and the array types that packing and kernels share.

Bit j of an item is bit j % 64 of word j // 64. The array has one row (plane) per word, so that a database is read one
plane at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int8, Int64, Integer, UInt8, UInt16, UInt64

MAX_BITS = 65_535  # distances are uint16 at most

Words = UInt64[np.ndarray, "w n"]
Distances = UInt8[np.ndarray, "q m"] | UInt16[np.ndarray, "q m"]
Maps = UInt64[np.ndarray, "c g"]
LabelRows = Bool[np.ndarray, "q c"]


def distance_type(bits: int) -> type[np.uint8 | np.uint16]:
    return np.uint8 if bits <= 255 else np.uint16


@dataclass(frozen=True, eq=False)
class PackedCodes:
    """n codes of `bits` bits. The words are read-only, and the unused high bits of the last plane are zero.

    ValueError: words have another type or shape, or set bits beyond the last one.
    """

    words: Words
    bits: int

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= MAX_BITS:
            raise ValueError(f"a code has 1 to {MAX_BITS} bits, not {self.bits}")
        planes = -(-self.bits // 64)
        if self.words.dtype != np.uint64 or self.words.ndim != 2 or len(self.words) != planes:
            shape = (*self.words.shape,)
            raise ValueError(f"{self.bits} bits need uint64 words [{planes}, n], not {self.words.dtype} {shape}")
        words = np.require(self.words, np.uint64, ["C", "A"])
        words = (
            words.copy() if words.flags.writeable else words.view()
        )  # a private copy, so that no other code can set bits beyond the last
        if self.bits % 64 and (words[-1] >> np.uint64(self.bits % 64)).any():
            raise ValueError(f"bits beyond the first {self.bits} must be zero")
        words.flags.writeable = False
        object.__setattr__(self, "words", words)

    def __len__(self) -> int:
        return int(self.words.shape[1])

    def select(self, index: Integer[np.ndarray, " k"] | Bool[np.ndarray, " n"] | slice) -> PackedCodes:
        """The items at `index` (positions, a mask or a slice)."""
        words = self.words[:, index]
        words.flags.writeable = False
        return PackedCodes(words, self.bits)

    def distinct(self, rows: LabelRows | None = None) -> tuple[Int64[np.ndarray, " u"], Int64[np.ndarray, " n"]]:
        """Positions of different items, and for each item the number of its equal among them; in order if all differ.

        rows: labels of the items; items count as equal if their labels are equal too. Codes of a trained model are
        often equal, and equal queries have equal results.
        """
        parts = [self.words.T.astype("<u8", order="C").view(np.uint8)]
        if rows is not None:
            parts.append(np.packbits(rows, axis=1))
        nbytes = np.concatenate(parts, axis=1)
        whole = nbytes.view(f"V{nbytes.shape[1]}")[:, 0]
        _, first, same = np.unique(whole, return_index=True, return_inverse=True)
        every = np.arange(len(self))
        return (first, same.reshape(-1)) if len(first) < len(self) else (every, every)

    def unpack(self) -> Int8[np.ndarray, "n b"]:
        """The codes as -1 and +1."""
        nbytes = self.words.T.astype("<u8", order="C").view(np.uint8)
        ones = np.unpackbits(nbytes, axis=1, count=self.bits, bitorder="little").astype(np.int8)
        return 2 * ones - 1
