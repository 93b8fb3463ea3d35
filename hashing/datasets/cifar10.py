"""CIFAR-10: 60,000 photographs of 32 x 32 in 10 classes, cut as the papers' "CIFAR10-0"; read from --data.

Two forms are known, and the protocol's name tells which was found: the published batches, or a JPEG copy.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from pydantic import Field
from torch import Tensor
from torch.nn.functional import interpolate

from bench.api.errors import DataCorruptError, DataMissingError
from bench.api.hashing import Dataset, Pool, dataset
from bench.api.paper import Paper
from bench.api.random import Rng
from hashing.datasets._cut import Sizes, cut
from hashing.datasets._trees import decode_tree, survey

CARD = Paper(
    title="Learning Multiple Layers of Features from Tiny Images",
    year=2009,
    url="https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf",
    follows="the split called CIFAR10-0 by DeepHash-pytorch: 500 training images and 100 queries per class, the "
    "database is all others, ranked whole",
    deviates="queries come from the test images only, where the split mixes both parts; of the published database of "
    "54,000, 500 images are the defenders' trusted set and 10 the public ones, so 53,490 are left; drawn with a seed, "
    "which the original is not. The form cifar10-jpeg is a re-encoding (JPEG quality 75, about 30 dB PSNR), hence a "
    "protocol of its own, CIFAR10-jpeg; size above 32 enlarges the images bilinearly, which adds no detail",
)
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
GROUP = 1000  # images enlarged at once
PER_CLASS = {0: 5000, 1: 1000}  # images by origin: training, test
BATCHES = "cifar-10-batches-py"
JPEG = "cifar10/cifar10-jpeg.tar.xz"
MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
HOW = (
    f"give --data DIR where DIR holds {BATCHES}/ (https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz, unpacked) "
    f"or {JPEG}"
)


@dataset
class Cifar10(Dataset):
    stand_in: ClassVar[str] = "voc_animals"

    size: Annotated[int, Field(ge=32, le=256)] = 32  # larger: enlarged bilinearly; the cut stays the same
    train: Annotated[int, Field(ge=1)] = 5000
    query: Annotated[int, Field(ge=1)] = 1000
    trusted: Annotated[int, Field(ge=1)] = 500
    database: Annotated[int, Field(ge=1)] | None = None  # None: all that is left, 53,490 at the defaults

    def files(self, root: Path | None) -> tuple[Path, ...]:
        if root is None:
            raise DataMissingError(f"cifar10 is not embedded: {HOW}")
        folder, archive = root / BATCHES, root / JPEG
        if folder.is_dir():
            for name in MD5:
                if not (folder / name).is_file():
                    raise DataMissingError(f"cifar10: '{folder / name}' is missing: {HOW}")
            return tuple(folder / name for name in MD5)
        if archive.is_file():
            return (archive,)
        raise DataMissingError(f"cifar10 is not in '{root}': {HOW}")

    def classes(self, root: Path | None) -> tuple[str, ...]:
        del root
        return NAMES

    def protocol(self, root: Path | None) -> tuple[str, int | None]:
        return ("CIFAR10-jpeg" if len(self.files(root)) == 1 else "CIFAR10-0"), None

    def decode(self, root: Path | None) -> Pool:
        files = self.files(root)
        pool = _jpeg(files[0]) if len(files) == 1 else _batches(files)
        return pool if self.size == 32 else replace(pool, images=_enlarged(pool.images, self.size))

    def cut(
        self, labels: Bool[Tensor, "n k"], origin: UInt8[Tensor, " n"], rng: Rng
    ) -> Mapping[str, Int64[Tensor, " m"]]:
        sizes = Sizes(train=self.train, query=self.query, trusted=self.trusted, database=self.database)
        return cut(labels, sizes, rng, query_from=origin == 1)


def _enlarged(images: UInt8[Tensor, "n 3 h w"], size: int) -> UInt8[Tensor, "n 3 s s"]:
    out = images.new_empty(len(images), 3, size, size)
    for start in range(0, len(images), GROUP):
        part = images[start : start + GROUP].to(torch.float32)
        out[start : start + GROUP] = interpolate(part, size=(size, size), mode="bilinear").round().to(torch.uint8)
    return out


def _jpeg(path: Path) -> Pool:
    tree = survey(path)
    held = Counter(tree.items.values())
    if tree.classes != NAMES or held != {(k, part): n for k in range(len(NAMES)) for part, n in PER_CLASS.items()}:
        raise DataCorruptError(
            f"'{path}' holds {len(tree.items)} images of {len(tree.classes)} classes, not CIFAR-10's "
            f"{PER_CLASS[0]} + {PER_CLASS[1]} per class: get it again"
        )
    return decode_tree(path, 32, tree)


def _batches(files: tuple[Path, ...]) -> Pool:
    images, numbers, origin = [], [], []
    for file in files:
        content = file.read_bytes()
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != MD5[file.name]:
            raise DataCorruptError(
                f"'{file}' is not the published file (its md5 differs) and is not opened: get it again"
            )
        try:
            batch = _Primitive(io.BytesIO(content), encoding="latin1").load()
            pixels = np.asarray(batch["data"], dtype=np.uint8).reshape(-1, 3, 32, 32)
            numbers += batch["labels"]
        except (pickle.UnpicklingError, EOFError, LookupError, TypeError, ValueError) as error:
            raise DataCorruptError(f"'{file}' cannot be read: {error}; get it again") from error
        images.append(torch.from_numpy(pixels.copy()))
        origin.append(torch.full((len(pixels),), int(file.name == "test_batch"), dtype=torch.uint8))
    labels = torch.nn.functional.one_hot(torch.tensor(numbers), len(NAMES)).bool()
    return Pool(torch.cat(images), labels, torch.cat(origin))


class _Primitive(pickle.Unpickler):
    """Builds arrays, and what needs no import (dict, list, str, bytes, int); every other name is refused."""

    def find_class(self, module: str, name: str) -> object:
        if module in {"numpy.core.multiarray", "numpy._core.multiarray"} and name == "_reconstruct":
            return np.empty(0).__reduce__()[0]  # the same function, under a name that no version of numpy moves
        if module == "numpy" and name in {"ndarray", "dtype"}:
            return np.ndarray if name == "ndarray" else np.dtype
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")
