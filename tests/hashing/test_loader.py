"""Batches, crops and mirroring."""

from __future__ import annotations

import pytest
import torch

from bench.api.random import Rng
from bench.api.types import Split
from hashing.loader import Augmentation, Loader

N = 23


def split_of(n: int = N, shape: tuple[int, int, int] = (2, 4, 5)) -> Split:
    images = Rng("tests", "loader").integers(255, (n, *shape)).to(torch.uint8) + 1  # no pixel looks like padding
    labels = torch.nn.functional.one_hot(torch.arange(n) % 3, 3).bool()
    return Split(images, labels, 100 + torch.arange(n))


def loader(
    split: Split, *, batch: int = 5, flip: bool = False, pad: int = 0, seed: int = 0, unaugmented=None
) -> Loader:
    return Loader(
        split, batch=batch, augmentation=Augmentation(flip, pad), rng=Rng("order", seed), unaugmented=unaugmented
    )


def epoch(made: Loader) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    images, labels, ids = zip(*made, strict=True)
    return torch.cat(images), torch.cat(labels), torch.cat(ids)


def slow_variants(image: torch.Tensor, pad: int) -> dict[tuple[int, int, bool], torch.Tensor]:
    """Every crop of the zero-padded image, plain and mirrored, pixel by pixel."""
    channels, height, width = image.shape
    found = {}
    for top in range(2 * pad + 1):
        for left in range(2 * pad + 1):
            for mirror in (False, True):
                out = torch.zeros(channels, height, width)
                for y in range(height):
                    for x in range(width):
                        from_y = y + top - pad
                        from_x = (width - 1 - x if mirror else x) + left - pad
                        if 0 <= from_y < height and 0 <= from_x < width:
                            out[:, y, x] = image[:, from_y, from_x].float() / 255
                found[top, left, mirror] = out
    return found


@pytest.mark.parametrize("batch", [1, 4, 5, 22, 23, 24, 100])
def test_every_item_comes_once_per_epoch_in_batches_of_almost_one_size(batch):
    made = loader(split_of(), batch=batch)
    batches = list(made)
    sizes = [len(ids) for _, _, ids in batches]
    assert len(made) == len(batches) == -(-N // batch)
    assert max(sizes) <= batch
    assert max(sizes) - min(sizes) <= 1
    assert sorted(torch.cat([ids for _, _, ids in batches]).tolist()) == list(range(N))


def test_labels_and_positions_belong_to_the_images():
    split = split_of()
    images, labels, ids = epoch(loader(split))
    assert torch.equal(labels, split.labels[ids])
    assert torch.equal(images, split.images[ids].float() / 255)


def test_without_padding_and_mirroring_images_come_unchanged_whatever_their_values():
    split = split_of()
    images, _, ids = epoch(loader(split, flip=False, pad=0))
    assert torch.equal((images * 255).round().to(torch.uint8), split.images[ids])


def test_orders_differ_between_epochs_and_are_equal_under_equal_generators():
    one, same, other = (loader(split_of(), flip=True, pad=2, seed=s) for s in (0, 0, 1))
    first, again = epoch(one), epoch(same)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[2], epoch(one)[2])
    assert not torch.equal(first[2], epoch(other)[2])


@pytest.mark.parametrize(("flip", "pad"), [(True, 0), (False, 1), (True, 1)])
def test_augmentation_draws_from_all_variants_of_a_slow_reference_and_from_no_others(flip, pad):
    split = split_of(4)
    variants = [slow_variants(image, pad) for image in split.images]
    seen: dict[tuple[int, int, bool], int] = {}
    made = loader(split, batch=2, flip=flip, pad=pad)
    epochs = 60
    for _ in range(epochs):
        images, _, ids = epoch(made)
        for image, i in zip(images, ids.tolist(), strict=True):
            matches = [key for key, variant in variants[i].items() if torch.equal(image, variant)]
            assert len(matches) == 1
            seen[matches[0]] = seen.get(matches[0], 0) + 1
    expected = (2 * pad + 1) ** 2 * (1 + flip)
    assert len(seen) == expected
    assert any(mirror for *_, mirror in seen) == flip
    share = 4 * epochs / expected
    assert all(0.3 * share < count < 2.2 * share for count in seen.values())


def test_images_of_a_batch_are_augmented_independently():
    same = split_of(1)
    split = Split(same.images.expand(40, -1, -1, -1).clone(), same.labels.expand(40, -1).clone(), torch.arange(40))
    images, _, _ = next(iter(loader(split, batch=40, flip=True, pad=2)))
    assert len(torch.unique(images, dim=0)) > 15


def test_frozen_items_are_left_alone_and_the_others_augmented_as_before():
    split = split_of()
    frozen = torch.arange(N) % 2 == 0
    images, _, ids = epoch(loader(split, flip=True, pad=2, unaugmented=frozen))
    free_images, _, free_ids = epoch(loader(split, flip=True, pad=2))
    assert torch.equal(ids, free_ids)
    still = frozen[ids]
    assert torch.equal(images[still], split.images[ids[still]].float() / 255)
    assert torch.equal(images[~still], free_images[~still])
    assert not torch.equal(images[~still], split.images[ids[~still]].float() / 255)


@pytest.mark.parametrize("channels", [1, 3])
def test_batches_lie_in_memory_as_convolutions_want_them(channels):
    images, _, _ = next(iter(loader(split_of(shape=(channels, 6, 6)), flip=True, pad=1)))
    assert images.shape == (5, channels, 6, 6)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert images.dtype == torch.float32


def test_the_data_set_and_global_generators_stay_as_they_are(untouched_rng):
    split = split_of()
    with untouched_rng():
        epoch(loader(split, flip=True, pad=2))
    assert torch.equal(split.images, split_of().images)
