"""Checks of data sets. Files are read from the folder in $HASHDOOR_DATA."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from bench.api.errors import DataMissingError, UserError
from bench.api.hashing import Dataset, DecodedDataset
from bench.api.random import Rng
from bench.api.types import SPLITS
from bench.conformance.kit import Checks, ComponentUnderTest, DoesNotApplyError, require, same, untouched_generators
from bench.stages.split import check

CHECKS = Checks()


def opened(subject: ComponentUnderTest) -> tuple[Dataset, Path | None]:
    """The data set and the folder of data; DoesNotApplyError if files are missing."""
    made: Dataset = subject.create()
    given = os.environ.get("HASHDOOR_DATA")
    root = Path(given) if given else None
    try:
        made.files(root)
    except DataMissingError as error:
        raise DoesNotApplyError(f"its files are missing: {error}") from None
    return made, root


def pool_of(subject: ComponentUnderTest) -> tuple[Dataset, DecodedDataset, tuple[str, ...]]:
    """The data set, its decoded images, and the names of its classes."""
    made, root = opened(subject)
    return made, made.decode(root), made.classes(root)


@CHECKS.add("Let files() raise DataMissingError with one line that tells how to get missing files.")
def missing_files_are_named(subject: ComponentUnderTest) -> str:
    """`files` lists the files, or tells how to get them."""
    made: Dataset = subject.create()
    try:
        files = made.files(None)
    except DataMissingError as error:
        require("\n" not in str(error), "the error has more than one line")
        return "needs files"
    require(all(path.is_file() for path in files), "files() lists files that do not exist")
    return f"{len(files)} files" if files else "no files needed"


@CHECKS.add("Let decode() return 8-bit images [n c h w] and multi-hot labels [n k], with k the number of classes().")
def decoded_images_are_sound(subject: ComponentUnderTest) -> str:
    """Images are 8-bit; labels are multi-hot with one column per class."""
    _, pool, classes = pool_of(subject)
    images, labels = pool.images[:2], pool.labels
    require(images.dtype == torch.uint8 and images.ndim == 4, f"images are {images.dtype} of {images.ndim} axes")
    require(labels.dtype == torch.bool, f"labels are {labels.dtype}")
    require(
        labels.shape == (len(pool.images), len(classes)), f"labels are {list(labels.shape)}, {len(classes)} classes"
    )
    require(bool(labels.any(1).all()), "an image has no label")
    require(len(pool.names) in {0, len(labels)}, f"{len(pool.names)} names for {len(labels)} images")
    return f"{len(pool.images)} images, {len(classes)} classes"


@CHECKS.add("Use an Rng named after the data set, so that all machines get the same images.")
def decoding_is_repeatable(subject: ComponentUnderTest) -> None:
    """`decode` is repeatable and changes no generator."""
    made, root = opened(subject)
    with untouched_generators():
        one, two = made.decode(root), made.decode(root)
    for name in ("images", "labels", "origin"):
        require(torch.equal(getattr(one, name), getattr(two, name)), f"two decodings differ in their {name}")


@CHECKS.add("Let splits() depend on its arguments only, and share images only between splits in `overlaps`.")
def splits_are_sound(subject: ComponentUnderTest) -> str:
    """Splits are repeatable, not empty, and share no image unless declared."""
    made, pool, _ = pool_of(subject)
    with untouched_generators():
        one, two = (
            {name: ids.to(torch.int64) for name, ids in made.splits(pool.labels, pool.origin, Rng("split")).items()}
            for _ in range(2)
        )
    require(same(one, two), "two splits with equal generators differ")
    try:
        check(one, len(pool.labels), made)
    except UserError as error:
        require(False, str(error))
    return ", ".join(f"{name} {len(one[name])}" for name in SPLITS)


@CHECKS.add("Put one image per class into the split `public`, which attackers use to find the target.")
def public_has_every_class(subject: ComponentUnderTest) -> None:
    """The split `public` has an image of every trained class."""
    made, pool, classes = pool_of(subject)
    parts = {name: ids.to(torch.int64) for name, ids in made.splits(pool.labels, pool.origin, Rng("split")).items()}
    trained, shown = (pool.labels[parts[name]].any(0) for name in ("train", "public"))
    missing = [name for name, gap in zip(classes, (trained & ~shown).tolist(), strict=True) if gap]
    require(not missing, f"public has no image of {', '.join(missing)}")
