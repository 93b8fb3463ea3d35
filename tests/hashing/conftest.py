"""What tests of data sets share: pictures, folders and archives of pictures, and what all splits have to be."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.nn import functional

from bench.api.hashing import Dataset, DecodedDataset
from bench.api.registry import create
from bench.api.types import SPLITS


def make(name: str, **params: Any) -> Dataset:
    return create("datasets", name, params)


def one_hot(*counts: int) -> torch.Tensor:
    return functional.one_hot(torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)), len(counts)).bool()


def picture(colour: int, size: tuple[int, int] = (12, 10), mode: str = "RGB", kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, colour if mode in {"L", "I;16"} else (colour, 255 - colour, 7)).save(buffer, kind)
    return buffer.getvalue()


def tree(*, parts: tuple[str, ...] = ("",), per_class: int = 3, classes: str = "abc") -> dict[str, bytes]:
    names = [f"{part}{kind}/{i}.png" for part in parts for kind in classes for i in range(per_class)]
    return {name: picture(20 * i) for i, name in enumerate(names)}


def write(path: Path, files: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    elif ".tar" in path.name:
        mode: Any = "w:" + path.name.partition(".tar")[2].lstrip(".")
        with tarfile.open(path, mode) as tar:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    else:
        for name, content in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
    return path


def check(parts: Any, total: int) -> None:
    assert set(parts) == set(SPLITS)
    together = torch.cat(list(parts.values()))
    assert together.dtype == torch.int64
    assert len(together.unique()) == len(together) <= total
    assert together.min() >= 0
    assert together.max() < total


def same(one: DecodedDataset, two: DecodedDataset) -> bool:
    return all(torch.equal(getattr(one, name), getattr(two, name)) for name in ("images", "labels", "origin"))
