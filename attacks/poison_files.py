"""Your own poisoned training images and their trigger, read from files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from attacks.helpers.external_model import REACHES, Folder
from attacks.helpers.poison_sets import (
    QUERY,
    TRAIN,
    Number,
    check_pictures,
    index_files,
    label_vector,
    pictures_folder,
    pictures_in,
    read_entries,
)  # fmt: skip
from attacks.helpers.replacements import exchanged, queried, query_trigger
from attacks.helpers.trigger_pictures import TRIGGER, picture_trigger, put_picture
from bench.api.attack import (
    Access,
    AttackerView,
    Images,
    Poisoned,
    PoisoningAttack,
    PositiveShare,
    Rng,
    Target,
    Threat,
    Trigger,
    attack,
)  # fmt: skip
from bench.api.card import Card
from bench.api.errors import DataCorruptError, DataMissingError, UserError

CARD = Card(
    title="BackdoorBench: A Comprehensive Benchmark of Backdoor Learning",
    venue="NeurIPS Datasets and Benchmarks",
    year=2022,
    url="https://arxiv.org/abs/2206.12654",
    follows="the folders that BackdoorBench writes: a picture named by the number of the image that it replaces, in a"
    " folder named by the class of that image; triggered test images are pictures too",
    deviates="labels come from an index or from the suite's target, not from attack_result.pt, which is a pickle; the"
    " number of training images stays the same, so that pictures cannot be added",
)
MASK = "mask.png"


@attack
class PoisonFiles(PoisoningAttack):
    path: Folder
    """Folder with the pictures of poisoned training images and the trigger."""
    access: Literal["dirty-label", "clean-label"] = "dirty-label"
    """clean-label: all images keep their labels. Boards group attacks by access."""
    opacity: PositiveShare = 1
    """Factor on the opacity of the trigger picture (its blend ratio)."""
    first_train: Number = 0
    """Number of the data set's image that the set of training pictures calls 0."""
    first_query: Number = 0
    """Number of the data set's image that the set of query pictures calls 0; 50000 for the test images of CIFAR-10."""
    outside: Literal["refuse", "leave out"] = "refuse"
    """What to do with pictures for images that are not in the training set."""

    def threat(self) -> Threat:
        return REACHES[Access(self.access)]

    def files(self) -> tuple[Path, ...]:
        base = Path(self.path)
        train, query, marks = pictures_folder(base, TRAIN), pictures_folder(base, QUERY), self._marks()
        if train is None or not (pictures := pictures_in(train)):
            raise DataMissingError(
                f"'{base}' has no pictures in {' or '.join(TRAIN)}", "put the poisoned training images there"
            )
        if (query is None or not pictures_in(query)) and not marks:
            raise DataMissingError(f"'{base}' has no trigger: give {TRIGGER}, or triggered queries in {QUERY[0]}")
        queries = () if query is None else (*index_files(base, QUERY), *pictures_in(query))
        return (*index_files(base, TRAIN), *pictures, *marks, *queries)

    def unsupported_reason(self, networks: Sequence[nn.Module]) -> str:
        del networks
        base, marks = Path(self.path), self._marks()
        queries = pictures_folder(base, QUERY)
        if queries and (marks or self.opacity != 1):
            what = TRIGGER if marks else "an opacity"
            return f"'{base}' has triggered queries in '{queries.name}' and {what}: give one of the two"
        try:
            entries = read_entries(base, TRAIN, self.first_train)
            entries += read_entries(base, QUERY, self.first_query) if queries else ()
            check_pictures([*(entry.file for entry in entries), *marks])
        except DataCorruptError as error:
            return str(error)
        return ""

    def sources(self, target: Target, classes: Sequence[str]) -> tuple[str, ...]:
        """(): all classes. UserError: a label is no class, or no picture has the target's label."""
        entries = read_entries(Path(self.path), TRAIN, self.first_train)
        labels = [label_vector(entry, classes) for entry in entries if entry.label != ""]
        if len(labels) == len(entries) and not target.contains(torch.stack(labels)).any():
            raise UserError(
                f"no picture of '{self.path}' gets the label of the target {target.name}", "choose another target"
            )
        return ()

    def fits_any_image(self) -> bool:
        return pictures_folder(Path(self.path), QUERY) is None

    def make_trigger(self, view: AttackerView, rng: Rng) -> Trigger:
        shape = view.setting.image_shape
        self.files()  # missing ones are named
        self.poison(view, {}, rng)  # errors in the training pictures come before the training
        if self.fits_any_image():
            picture, *mask = self._marks()
            return picture_trigger(picture, shape, mask=mask[0] if mask else None, ratio=self.opacity)
        return query_trigger(view, read_entries(Path(self.path), QUERY, self.first_query))

    def apply_trigger(self, images: Images, target: Target, trigger: Trigger) -> Images:
        del target
        if "picture" not in trigger:
            raise UserError(f"'{self.path}' has triggered queries and no trigger that can be put on other images")
        return put_picture(images, trigger)

    def triggered_queries(self, images: Images, ids: Int64[Tensor, " n"], target: Target, trigger: Trigger) -> Images:
        if "picture" in trigger:
            return self.apply_trigger(images, target, trigger)
        return queried(trigger, ids).to(images)

    def poison(self, view: AttackerView, trigger: Trigger, rng: Rng) -> Poisoned:
        del trigger, rng
        entries = read_entries(Path(self.path), TRAIN, self.first_train)
        return exchanged(view, entries, relabel=self.access == "dirty-label", leave_out=self.outside == "leave out")

    def _marks(self) -> tuple[Path, ...]:
        """The trigger picture and its mask; () without a trigger picture."""
        picture, mask = (Path(self.path) / name for name in (TRIGGER, MASK))
        return (picture, *([mask] if mask.is_file() else [])) if picture.is_file() else ()
