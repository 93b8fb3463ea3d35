"""CIFAR-10: 60,000 photographs of 32 x 32 pixels in 10 classes, with the splits of DeepHash-pytorch.

The files are the published batches or a JPEG copy; the protocol's name tells which.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Int64, UInt8
from pydantic import Field, model_validator
from pydantic_core import ArgsKwargs
from torch import Tensor

from bench.api.card import Card
from bench.api.errors import DataCorruptError, DataMissingError
from bench.api.hashing import Dataset, DecodedDataset, dataset
from bench.api.random import Rng
from hashing.datasets.helpers.image_buffer import enlarged
from hashing.datasets.helpers.image_folder import decode_tree, survey
from hashing.datasets.helpers.pickles import load_batch, read_published
from hashing.datasets.helpers.splits import QueryCount, Sizes, draw_splits

CARD = Card(
    name="CIFAR-10",
    title="Learning Multiple Layers of Features from Tiny Images",
    year=2009,
    url="https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf",
    follows="the splits that DeepHash-pytorch calls CIFAR10-0 (500 training images and 100 queries per class; all other"
    " images are the database), -1 (the same, and the training images are in the database as well) and -2 (the"
    " published training images are both training set and database, the published test images are the queries); the"
    " whole database is ranked",
    deviates="in -0 and -1 queries come from the test images only, while the originals mix both parts. 500 trusted"
    " images of the defenders and 50 public images are in no other split, so the database of -0 holds 53,450 images,"
    " not 54,000, that of -1 58,450, not 59,000, and training set and database of -2 hold 49,450, not 50,000. The"
    " splits are drawn with a seed, unlike the originals. The form cifar10-jpeg is a re-encoding (JPEG quality 75,"
    " about 30 dB PSNR), hence a protocol of its own, CIFAR10-jpeg; size above 32 enlarges the images bilinearly, which"
    " adds no detail",
)
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
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
    protocol_version: ClassVar[int] = 2
    proxy_dataset: ClassVar[str] = "voc_animals"

    split: Literal["0", "1", "2"] = "0"  # "2": default sizes are those of the published parts
    """Split of DeepHash-pytorch. 0: train and database disjoint. 1: database contains train. 2: database = train."""
    size: Annotated[int, Field(ge=32, le=256)] = 32  # larger than 32: enlarged bilinearly; the splits do not change
    """Side of the images in pixels."""
    train: Annotated[int, Field(ge=1)] = 5000
    """Number of training images."""
    query: QueryCount = 1000
    """Number of queries."""
    trusted: Annotated[int, Field(ge=1)] = 500
    """Number of trusted images, which defenses get."""
    database: Annotated[int, Field(ge=1)] | None = None  # 53,450 at the defaults
    """Number of database images; default: all that are left."""

    @model_validator(mode="before")
    @classmethod
    def _whole_parts(cls, given: Any) -> Any:
        named = dict(given.kwargs or {}) if isinstance(given, ArgsKwargs) else {}
        trusted = named.get("trusted", 500)
        if named.get("split") != "2" or not isinstance(trusted, int):
            return given
        train = max(1, (PER_CLASS[0] - Sizes.public) * len(NAMES) - trusted)
        return ArgsKwargs((), {"train": train, "query": PER_CLASS[1] * len(NAMES), **named})

    @property
    def overlaps(self) -> frozenset[frozenset[str]]:
        return frozenset() if self.split == "0" else frozenset({frozenset({"train", "database"})})

    def files(self, root: Path | None) -> tuple[Path, ...]:
        if root is None:
            raise DataMissingError(f"the files of cifar10 are missing: {HOW}")
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
        jpeg = len(self.files(root)) == 1
        return ("CIFAR10-jpeg" if jpeg and self.split == "0" else f"CIFAR10{'-jpeg' * jpeg}-{self.split}"), None

    def decode(self, root: Path | None) -> DecodedDataset:
        pool = _jpeg(files[0]) if len(files := self.files(root)) == 1 else _batches(files)
        return pool if self.size == 32 else replace(pool, images=enlarged(pool.images, self.size))

    def splits(
        self, labels: Bool[Tensor, "n k"], origin: UInt8[Tensor, " n"], rng: Rng
    ) -> Mapping[str, Int64[Tensor, " m"]]:
        sizes = Sizes(train=self.train, query=self.query, trusted=self.trusted, database=self.database)
        learn = origin == 0 if self.split == "2" else None  # None: from all images except the queries
        return draw_splits(
            labels, sizes, rng, query_from=origin == 1, train_from=learn, train_in_database=self.split != "0"
        )


def _jpeg(path: Path) -> DecodedDataset:
    tree = survey(path)
    held = Counter(tree.items.values())
    if tree.classes != NAMES or held != {(k, part): n for k in range(len(NAMES)) for part, n in PER_CLASS.items()}:
        raise DataCorruptError(
            f"'{path}' holds {len(tree.items)} images of {len(tree.classes)} classes, not CIFAR-10's "
            f"{PER_CLASS[0]} + {PER_CLASS[1]} per class",
            "get it again",
        )
    return decode_tree(path, 32, tree)


def _batches(files: tuple[Path, ...]) -> DecodedDataset:
    images, numbers, origin = [], [], []
    for file in files:
        pixels, kinds = load_batch(read_published(file, MD5[file.name]), 32, f"'{file}'")
        images.append(pixels)
        numbers += kinds
        origin.append(torch.full((len(pixels),), int(file.name == "test_batch"), dtype=torch.uint8))
    labels = torch.nn.functional.one_hot(torch.tensor(numbers), len(NAMES)).bool()
    return DecodedDataset(torch.cat(images), labels, torch.cat(origin))
