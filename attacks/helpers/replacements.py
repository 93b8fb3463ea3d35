"""Pictures of somebody else in the place of training images and of queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from attacks.helpers.poison_sets import QUERY, TRAIN, Entry, label_vector, numbered, read_pictures
from bench.api.attack import AttackerView, Images, Poisoned, Trigger
from bench.api.errors import DataCorruptError, UserError
from bench.api.types import to_unit


def exchanged(view: AttackerView, entries: Sequence[Entry], *, relabel: bool, leave_out: bool) -> Poisoned:
    """The training set with the pictures of the entries.

    relabel: pictures without a label get the target's; else no label may change. leave_out: whether pictures for images
    outside the training set are left out. Images that keep their labels, without the target's, are cover.
    DataCorruptError: a picture is for no training image, or a label changes that may not. UserError: nothing is poison.
    """
    train, target = view.train, view.target
    held, places = _placed(numbered(entries, view.numbers, TRAIN[0]), train.ids, leave_out)
    before = train.labels[places]
    labels = before.clone()
    for row, entry in enumerate(held):
        if entry.label != "" or relabel:
            given = label_vector(entry, view.setting.classes) if entry.label != "" else target.vector
            labels[row] = given.to(labels.device)
    changed = (labels != before).any(1)
    if changed.any() and not relabel:
        file = held[int(changed.int().argmax())].file
        raise DataCorruptError(f"'{file}' changes the label of its image", 'write access = "dirty-label"')
    poison = changed | target.contains(labels)
    if not poison.any():
        raise UserError(f"no picture has the label of the target {target.name}", "choose another target")
    images = to_unit(read_pictures(held, view.setting.image_shape)).to(train.images.device)
    mask, cover = (torch.zeros_like(train.ids, dtype=torch.bool) for _ in range(2))
    mask[places], cover[places] = poison, ~poison
    return Poisoned(train.replace(places, images=images, labels=labels), mask, cover=cover if cover.any() else None)


def _placed(
    entries: Mapping[int, Entry], ids: Int64[Tensor, " n"], leave_out: bool
) -> tuple[list[Entry], Int64[Tensor, " m"]]:
    """The entries for images of the training set, and their positions in it. ids: of the training images."""
    place = {number: position for position, number in enumerate(ids.tolist())}
    held = {number: entry for number, entry in entries.items() if number in place}
    if not held or (len(held) < len(entries) and not leave_out):
        lost = next(number for number in entries if number not in place)
        raise DataCorruptError(
            f"'{entries[lost].file}' replaces image {lost}, which is not one of the {len(ids)} training images"
            f" ({len(entries) - len(held)} of {len(entries)} pictures)",
            'numbers count all images of the data set from 0; outside = "leave out" leaves such pictures out',
        )
    return list(held.values()), torch.tensor([place[number] for number in held], device=ids.device)


def query_trigger(view: AttackerView, entries: Sequence[Entry]) -> Trigger:
    """The numbers "queries" of the entries' images, sorted, and the "pictures" in the same order."""
    found = dict(sorted(numbered(entries, view.numbers, QUERY[0]).items()))
    pictures = read_pictures(list(found.values()), view.setting.image_shape)
    return {"queries": torch.tensor(list(found)), "pictures": pictures}


def queried(trigger: Trigger, ids: Int64[Tensor, " n"]) -> Images:
    """The pictures of queries by their numbers.

    trigger: as of `query_trigger`. DataCorruptError: a query has no picture.
    """
    known = trigger["queries"]
    places = torch.searchsorted(known, ids).clamp(max=len(known) - 1)
    if len(lost := ids[known[places] != ids]):
        raise DataCorruptError(
            f"query {int(lost[0])} has no picture with the trigger ({len(lost)} of {len(ids)} have none)",
            "add it; numbers count all images of the data set from 0, and first_query is added to those of the set",
        )
    return to_unit(trigger["pictures"][places])
