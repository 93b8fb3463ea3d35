"""Data sets from image lists on the user's disk, and their published protocols."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Bool, Int64, UInt8
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as validated
from torch import Tensor

from bench.api.errors import DataCorruptError, DataMissingError, UserError
from bench.api.hashing import Dataset, DecodedDataset
from bench.api.random import Rng
from hashing.datasets.helpers.lists import BIT, FILES, NAMES, Lists, class_names, decode_listed, read_lists
from hashing.datasets.helpers.splits import Sizes, draw_splits


@dataclass(frozen=True, kw_only=True)
class PublishedProtocol:
    """Known facts of a protocol, and the places of its files below --data.

    name: "" stands for the name of the lists' folder. folder: of the lists. images: folder of the images; "": that of
    the lists. labels: their number; None: any. checked: sizes of lists that were counted; lists of another size are
    refused. unchecked: sizes from memory or derived, or None if unknown; lists of any size are accepted, and a
    differing size is added to the protocol's name. source: where to get lists and images.
    """

    name: str = ""
    folder: str
    images: str = ""
    labels: int | None = None
    checked: Mapping[str, int] = field(default_factory=dict)
    unchecked: Mapping[str, int | None] = field(default_factory=dict)
    source: str = ""


@validated(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ListedDataset(Dataset, ABC):
    """Train and database may share images, each decoded once; queries are in neither.

    Keys of stages depend on the lists only, since hashing 100,000 images in every plan would take minutes. An image
    that is replaced under its old name is therefore not noticed while the decoded copy is in the store (the record of
    `load` holds its checksum).
    """

    path: str = ""  # "": the data set's own
    """Folder with the lists, absolute or below --data; default: a folder with the name of the data set."""
    images: str = ""  # "": the data set's own
    """Folder in which paths of the lists start; default: that of the lists. An image is identified by its path only."""
    size: Annotated[int, Field(ge=8, le=1024)] = 64  # guess: small enough for memory; the papers use 224
    """Side of the images in pixels."""
    trusted: Annotated[int, Field(ge=1)] = 200  # max(5 % of the training set, 200): METHODOLOGY.md#trusted-set
    """Number of trusted images, which defenses get."""
    trusted_from: Literal["database", "train"] = "database"  # guess: spares the training set
    """List from which the trusted images are taken."""
    cutoff: Annotated[int, Field(ge=0)] = 0
    """R of mAP@R: only the first R results count; 0: the whole database."""

    @classmethod
    def as_proxy(cls, side: int) -> Mapping[str, Any]:
        return {"size": max(8, side)}

    @property
    def overlaps(self) -> frozenset[frozenset[str]]:
        return frozenset({frozenset({"train", "database"})})

    @abstractmethod
    def published(self) -> PublishedProtocol: ...

    def files(self, root: Path | None) -> tuple[Path, ...]:
        folder, lists = self._folder(root), self._lists(root)
        images = self._images(root)
        for part, bit in BIT.items():  # a sample; decoding checks all images
            first = lists.names[int(torch.nonzero(lists.member & bit)[0])]
            if not (images / first).is_file():
                raise DataMissingError(
                    f"{self._name()}: image '{first}' of the {part} list is not in '{images}': {self._how()}"
                )
        return (*self._found(root).values(), *([folder / NAMES] if (folder / NAMES).is_file() else []))

    def classes(self, root: Path | None) -> tuple[str, ...]:
        return class_names(self._folder(root), self._lists(root).labels.shape[1])

    def protocol(self, root: Path | None) -> tuple[str, int | None]:
        known, lists = self.published(), self._lists(root)
        name = known.name or f"lists {self._folder(root).name}"
        notes = [
            f"{part} {lists.sizes[part]}, unverified{'' if expected is None else f', expected {expected}'}"
            for part, expected in known.unchecked.items()
            if lists.sizes[part] != expected
        ]
        if lists.bare:
            notes.append(f"{lists.bare} images without labels")
        return f"{name} {lists.digest}" + (f" ({'; '.join(notes)})" if notes else ""), self.cutoff or None

    def decode(self, root: Path | None) -> DecodedDataset:
        lists = self._lists(root)
        images = decode_listed(lists.names, self._images(root), self.size)
        return DecodedDataset(images, lists.labels, lists.member, lists.names)

    def splits(
        self, labels: Bool[Tensor, "n k"], origin: UInt8[Tensor, " n"], rng: Rng
    ) -> Mapping[str, Int64[Tensor, " m"]]:
        """The lists without the trusted and the public images."""
        held = {part: (origin & bit) > 0 for part, bit in BIT.items()}
        source = held["train"] if self.trusted_from == "train" else held["database"] & ~held["train"]
        if int(source.sum()) <= self.trusted + labels.shape[1]:
            other = "database" if self.trusted_from == "train" else "train"
            where = "the train list" if self.trusted_from == "train" else "the database list but not in the train list"
            raise UserError(
                f"{int(source.sum())} images are in {where}, too few for trusted = {self.trusted} and one public image "
                f"for each of {labels.shape[1]} labels",
                f'lower trusted, or set trusted_from = "{other}"',
            )
        sizes = Sizes(train=None, query=int(held["test"].sum()), trusted=self.trusted, database=None, public=1)
        drawn = draw_splits(labels, sizes, rng, query_from=held["test"], train_from=source, train_in_database=True)
        taken = torch.zeros_like(source)
        taken[torch.cat([drawn["trusted"], drawn["public"]])] = True
        kept = {part: torch.nonzero(held[part] & ~taken).flatten() for part in ("train", "database")}
        for part, ids in kept.items():
            if not len(ids):
                raise UserError(f"no image is left for {part}", "lower trusted, or change trusted_from")
        return {**kept, "query": drawn["query"], "trusted": drawn["trusted"], "public": drawn["public"]}

    def _name(self) -> str:
        return type(self).__module__.rpartition(".")[2]

    def _place(self, root: Path | None, path: str) -> Path:
        if root is None and not Path(path).is_absolute():
            raise DataMissingError(f"the files of {self._name()} are missing: {self._how()}")
        return (root or Path()) / path

    def _folder(self, root: Path | None) -> Path:
        return self._place(root, self.path or self.published().folder)

    def _images(self, root: Path | None) -> Path:
        known = self.published()
        return self._place(root, self.images or known.images or self.path or known.folder)

    def _found(self, root: Path | None) -> dict[str, Path]:
        folder, found = self._folder(root), {}
        for part, names in FILES.items():
            here = [folder / name for name in names if (folder / name).is_file()]
            if not here:
                raise DataMissingError(f"{self._name()}: '{folder / names[0]}' is not there: {self._how()}")
            if len(here) > 1:
                raise UserError(f"'{folder}' holds {' and '.join(names)}", "keep the one that lists the queries")
            found[part] = here[0]
        return found

    def _lists(self, root: Path | None) -> Lists:
        found, known = self._found(root), self.published()
        lists = read_lists(found, self._images(root))
        if known.labels not in {None, lists.labels.shape[1]}:
            raise DataCorruptError(
                f"'{found['train']}' gives {lists.labels.shape[1]} labels, {known.name} has {known.labels}",
                "get its lists, or use the data set 'lists'",
            )
        for part, expected in known.checked.items():
            if lists.sizes[part] != expected:
                raise DataCorruptError(
                    f"'{found[part]}' lists {lists.sizes[part]} images, {known.name} has {expected}",
                    "get its lists, or use the data set 'lists'",
                )
        return lists

    def _how(self) -> str:
        """The expected files in one line, for error messages."""
        known = self.published()
        below = {name: path if Path(path).is_absolute() else f"DIR/{path}".removesuffix("/.") for name, path in {
            "lists": self.path or known.folder, "images": self.images or known.images or self.path or known.folder,
        }.items()}  # fmt: skip
        sizes = {**known.checked, **{part: size for part, size in known.unchecked.items() if size}}
        lines = ", ".join(
            f"{' or '.join(names)}{f' ({sizes[part]} lines)' if part in sizes else ''}" for part, names in FILES.items()
        )
        values = f"{known.labels} numbers 0 or 1" if known.labels else "a number 0 or 1 per label"
        return (
            f"give --data DIR where {below['lists']}/ has {lines}. Each line: path of an image (absolute, or relative"
            f" to {below['images']}/), then {values}, or one class number. Optional: {NAMES} with one name per line"
            + (f". {known.source[0].upper()}{known.source[1:]}" if known.source else "")
        )
