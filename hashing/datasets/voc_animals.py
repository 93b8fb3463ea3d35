"""The pictures with animals of PASCAL VOC 2012: 3,576 photographs, 20 classes, several per image; read from --data.

Cat, dog, cow, horse and sheep dominate; all other classes appear only together with them. No suite may have `person` as
target: attacks here are never aimed at people (METHODOLOGY.md#responsible-targets).
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Bool, Int64, UInt8
from pydantic import Field
from torch import Tensor

from bench.api.archives import walk
from bench.api.card import Card
from bench.api.errors import DataCorruptError, DataMissingError
from bench.api.hashing import Dataset, DecodedDataset, dataset
from bench.api.random import Rng
from hashing.datasets.helpers.image_buffer import canvas
from hashing.datasets.helpers.pictures import decode_pictures
from hashing.datasets.helpers.splits import QueryCount, Sizes, draw_splits

CARD = Card(
    title="The PASCAL Visual Object Classes Challenge: A Retrospective",
    venue="IJCV",
    year=2015,
    url="https://doi.org/10.1007/s11263-014-0733-5",
    follows="the 20 image-level labels of VOC's annotations; queries are from the segmentation val list, training set"
    " and database from the augmented train list. The protocol is named VOC2012-animals, never VOC2012",
    deviates="3,576 of the 12,031 labelled images: those with a cat, dog, cow, horse or sheep (from the Animal-Pose"
    " data set, resized to a short side of 160 pixels, JPEG quality 85; labels from jiwoon-ahn/irn), so these five"
    " classes and person dominate, the other classes occur only together with them, and aeroplane never occurs. The"
    " database holds clean copies of the training images, an overlap that the protocol declares; no query is in either."
    " The whole picture is resized to a square. The trusted images of the defenders and the public images are taken"
    " from the train list, with a seed, and are in no other split",
)
NAMES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
ARCHIVE = "voc2012-animals/voc2012-animals.zip"
LABELS = "labels.csv"
BESIDE = ("image", "list", "orig_width", "orig_height")  # columns of LABELS before the classes
ORIGIN = {"train": 0, "val": 1}
COUNTS = {"train": 3131, "val": 445}
HOW = (
    f"give --data DIR where DIR holds {ARCHIVE}, a zip of images/ID.jpg and {LABELS} with the columns "
    f"{', '.join(BESIDE)} (train or val in list) and one of 0 and 1 for each VOC class; "
    "the pictures: http://host.robots.ox.ac.uk/pascal/VOC/voc2012/"
)


@dataset
class VocAnimals(Dataset):
    protocol_version: ClassVar[int] = 2
    proxy_dataset: ClassVar[str] = "cifar10"

    size: Annotated[int, Field(ge=16, le=512)] = 64
    """Side of the images in pixels."""
    train: Annotated[int, Field(ge=1)] | None = None  # 2,864 at the defaults
    """Number of training images; default: all that are left of the train list."""
    query: QueryCount = COUNTS["val"]  # the whole val list
    """Number of queries."""
    trusted: Annotated[int, Field(ge=1)] = 200  # max(5 % of the training set, 200): METHODOLOGY.md#trusted-set
    """Number of trusted images, which defenses get."""
    database: Annotated[int, Field(ge=1)] | None = None
    """Number of database images, training images included; default: all except the trusted ones."""

    @classmethod
    def as_proxy(cls, side: int) -> Mapping[str, Any]:
        return {"size": max(16, side)}

    @property
    def overlaps(self) -> frozenset[frozenset[str]]:
        return frozenset({frozenset({"train", "database"})})

    def files(self, root: Path | None) -> tuple[Path, ...]:
        if root is None:
            raise DataMissingError(f"the files of voc_animals are missing: {HOW}")
        if not (root / ARCHIVE).is_file():
            raise DataMissingError(f"voc_animals is not in '{root}': {HOW}")
        return (root / ARCHIVE,)

    def classes(self, root: Path | None) -> tuple[str, ...]:
        del root
        return NAMES

    def protocol(self, root: Path | None) -> tuple[str, int | None]:
        del root
        return "VOC2012-animals", None

    def decode(self, root: Path | None) -> DecodedDataset:
        path = self.files(root)[0]
        rows = _listing(path)
        left = {f"images/{row[0]}": number for number, row in enumerate(rows)}
        pixels = canvas(len(rows), 3, self.size, self.size)
        pictures = ((left.pop(name), name, read) for name, read in walk(path) if read is not None and name in left)
        decode_pictures(pictures, pixels, source=path, word="member", whole=True)
        if left:
            raise DataCorruptError(f"'{path}': {LABELS} names {min(left)!r}, which is not there", "get it again")
        labels = torch.tensor([[cell == "1" for cell in row[len(BESIDE) :]] for row in rows])
        origin = torch.tensor([ORIGIN[row[1]] for row in rows], dtype=torch.uint8)
        return DecodedDataset(torch.from_numpy(pixels), labels, origin)

    def splits(
        self, labels: Bool[Tensor, "n k"], origin: UInt8[Tensor, " n"], rng: Rng
    ) -> Mapping[str, Int64[Tensor, " m"]]:
        sizes = Sizes(train=self.train, query=self.query, trusted=self.trusted, database=self.database)
        learn = origin == ORIGIN["train"]
        return draw_splits(labels, sizes, rng, query_from=~learn, train_from=learn, train_in_database=True)


def _listing(path: Path) -> list[list[str]]:
    """The checked rows of the label file; their order is that of the images in the pool."""
    content = next((read() for name, read in walk(path) if read is not None and name == LABELS), None)
    if content is None:
        raise DataCorruptError(f"'{path}' holds no {LABELS}", "get it again")
    try:
        head, *rows = csv.reader(io.StringIO(content.decode()))
    except (ValueError, csv.Error) as error:
        raise DataCorruptError(f"'{path}': member {LABELS!r} cannot be read: {error}", "get it again") from error
    if tuple(head) != (*BESIDE, *NAMES):
        raise DataCorruptError(f"'{path}': the columns of {LABELS!r} are not {', '.join(BESIDE)} and VOC's 20 classes")
    for number, row in enumerate(rows, start=2):
        cells = set(row[len(BESIDE) :])
        if len(row) != len(head) or row[1] not in ORIGIN or not cells <= {"0", "1"} or "1" not in cells:
            raise DataCorruptError(f"'{path}': line {number} of {LABELS!r} is no image with labels", "get it again")
    held = Counter(row[1] for row in rows)
    if held != COUNTS or len({row[0] for row in rows}) != len(rows):
        raise DataCorruptError(
            f"'{path}' lists {held['train']} + {held['val']} images, not {COUNTS['train']} + {COUNTS['val']} different "
            "ones",
            "get it again",
        )
    return rows
