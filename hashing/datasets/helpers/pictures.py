"""Decodes the pictures of a data set on all cores; one error names all that cannot be used."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from bench.api.errors import DataCorruptError
from hashing.image_decoding import PictureError, decode_image

NAMED = 20  # pictures that an error names
MOST = 1000  # pictures that cannot be used, after which the others are not tried
THREADS = 8  # at most: a picture at the limit of `decode_image` takes .5 GB while it is decoded
AHEAD = 8  # pictures per thread that are read before they are decoded

Picture = tuple[int, str, Callable[[], bytes]]  # row, name, and a function that reads the file


def decode_pictures(
    pictures: Iterable[Picture],
    pixels: UInt8[np.ndarray, "n 3 s s"],
    *,
    source: Path,
    word: str,
    whole: bool = False,
) -> None:
    """Write each picture into its row of `pixels`. They are read one after the other, as archives may be streams.

    source: the folder or archive, word: for one of its pictures; both for the error. whole: as for `decode_image`.
    DataCorruptError: names the pictures that cannot be used. Other errors of reading pass through.
    """
    reasons: dict[str, str] = {}
    waiting: deque[tuple[int, str, Future[UInt8[np.ndarray, "3 s s"]]]] = deque()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = min(cores, THREADS)

    def note(name: str, error: PictureError) -> None:
        reasons[name] = error.reason
        if len(reasons) == MOST:
            raise _corrupt(source, word, reasons) from None

    def finish() -> None:
        row, name, decoded = waiting.popleft()
        try:
            pixels[row] = decoded.result()
        except PictureError as error:
            note(name, error)

    # `catch_warnings` changes the whole process, so it stands around the threads. Pillow decodes without the GIL.
    with warnings.catch_warnings(action="ignore"), ThreadPoolExecutor(threads) as pool:
        for row, name, read in pictures:
            try:
                content = read()
            except PictureError as error:
                note(name, error)
                continue
            waiting.append((row, name, pool.submit(decode_image, content, pixels.shape[2], name, whole=whole)))
            if len(waiting) > AHEAD * threads:
                finish()
        while waiting:
            finish()
    if reasons:
        raise _corrupt(source, word, reasons)


def _corrupt(source: Path, word: str, reasons: Mapping[str, str]) -> DataCorruptError:
    """The pictures that cannot be used, in the order of their names."""
    listed = [f"{word} {name!r} {why}" for name, why in sorted(reasons.items())]
    more = f"; and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    count = f"{len(listed)} pictures cannot be used: " if len(listed) > 1 else ""
    them = "them" if len(listed) > 1 else "it"
    return DataCorruptError(
        f"'{source}': {count}{'; '.join(listed[:NAMED])}{more}", f"get {them} again or remove {them}"
    )
