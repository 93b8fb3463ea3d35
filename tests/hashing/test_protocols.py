"""The named protocols: what each expects, says where it looks, refuses or reports; CIFAR-10's three splits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from bench.api.errors import DataCorruptError, DataMissingError, UserError
from bench.api.hashing import Dataset
from bench.api.random import Rng
from bench.api.registry import create, lookup
from bench.stages.split import check
from hashing.datasets.helpers.protocols import PublishedProtocol

# name, parameters, protocol, labels, train, test, database (None: not known), R, lists, images
PROTOCOLS: list[tuple[str, dict[str, Any], str, int, int, int, int | None, int | None, str, str]] = [
    ("imagenet100", {}, "ImageNet-100-hashnet", 100, 13000, 5000, 128503, 1000, "imagenet100/hashnet", "imagenet100"),
    ("imagenet100", {"lists": "ciba"}, "ImageNet-100-ciba", 100, 10000, 5000, None, 1000,
     "imagenet100/ciba", "imagenet100"),
    ("coco80", {}, "MS-COCO-80", 80, 10000, 5000, 117218, 5000, "coco80", "coco80"),
    ("places365", {}, "Places365-36", 36, 9000, 3600, None, 1000, "places365", "places365"),
    ("nuswide21", {}, "NUS-WIDE-21", 21, 10500, 2100, 195834 - 2100, 5000, "nuswide21", "nuswide21"),
    ("voc2012", {}, "VOC2012", 20, 4000, 1000, 6540, None, "voc2012", "."),
    ("flickr25k", {}, "FLICKR-25K-24", 24, 4000, 1000, 20000, None, "flickr25k/24", "flickr25k"),
    ("flickr25k", {"labels": 38}, "FLICKR-25K-38", 38, 4000, 1000, 20000, None, "flickr25k/38", "flickr25k"),
]  # fmt: skip
each = pytest.mark.parametrize("row", PROTOCOLS, ids=[row[2] for row in PROTOCOLS])
SMALL = {"train": 3, "test": 2, "database": 20}


def tree(root: Path, lists: str, images: str, labels: int, sizes: dict[str, int]) -> None:
    for part, count in sizes.items():
        rows = [f"{part}/{i}.png " + " ".join(str(int(k == i % labels)) for k in range(labels)) for i in range(count)]
        (root / lists).mkdir(parents=True, exist_ok=True)
        (root / lists / f"{part}.txt").write_text("\n".join(rows))
        for row in rows:
            path = root / images / row.split()[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (9, 8)).save(path)


def with_protocol(name: str, published: PublishedProtocol) -> type[Dataset]:
    """The data set with other sizes and labels than were published."""

    class Small(lookup("datasets", name)):
        def published(self) -> PublishedProtocol:
            return published

    return Small


@each
def test_what_was_published(row: tuple[Any, ...], tmp_path: Path) -> None:
    name, params, protocol, labels, train, test, database, cutoff, lists, images = row
    data = create("datasets", name, params)
    known = data.published()
    assert known.name == protocol
    assert known.labels == labels
    assert {**known.checked, **known.unchecked} == {"train": train, "test": test, "database": database}
    assert not set(known.checked) & set(known.unchecked)
    assert (data.cutoff or None) == cutoff
    assert data.proxy_dataset != name
    with pytest.raises(DataMissingError) as error:
        data.files(tmp_path)
    message = str(error.value)
    assert "\n" not in message
    below = f"DIR/{images}/".replace("/./", "/")
    for part in (f"DIR/{lists}/", f"train.txt ({train} ", f"query.txt ({test} ", "database.txt", below, str(labels)):
        assert part in message


@each
def test_a_small_tree_in_its_layout(row: tuple[Any, ...], tmp_path: Path) -> None:
    name, params, protocol, *_, lists, images = row
    whole = create("datasets", name, params).published()
    small = replace(whole, labels=3, checked={part: SMALL[part] for part in whole.checked})
    data = with_protocol(name, small)(**{**params, "trusted": 4, "size": 8})
    tree(tmp_path, lists, images, 3, SMALL)
    assert len(data.files(tmp_path)) == 3
    shown, cutoff = data.protocol(tmp_path)
    assert shown.startswith(f"{protocol} ")
    assert cutoff == row[7]
    for part, expected in whole.unchecked.items():  # what was found stands beside what was expected
        assert f"{part} {SMALL[part]}, unverified" + (f", expected {expected}" if expected else "") in shown
    assert ("(" in shown) == bool(whole.unchecked)
    pool = data.decode(tmp_path)
    parts = dict(data.splits(pool.labels, pool.origin, Rng("p")))
    check(parts, 25, data)
    assert {part: len(ids) for part, ids in parts.items()} == {
        "train": 3, "query": 2, "database": 20 - 4 - 3, "trusted": 4, "public": 3,
    }  # fmt: skip
    for part in whole.checked:
        tree(tmp_path, lists, images, 3, SMALL | {part: SMALL[part] + 1})
        with pytest.raises(DataCorruptError, match=rf"{part}\.txt' .*{protocol}.*\b{SMALL[part]}\b"):
            data.files(tmp_path)
    tree(tmp_path, lists, images, 4, SMALL)
    with pytest.raises(DataCorruptError, match=f"4.*{protocol}.*3"):
        data.classes(tmp_path)


def test_sizes_as_expected_are_not_mentioned(tmp_path: Path) -> None:
    small = replace(create("datasets", "coco80", {}).published(), labels=3, checked={}, unchecked=SMALL)
    tree(tmp_path, "coco80", "coco80", 3, SMALL)
    assert "unverified" not in with_protocol("coco80", small)().protocol(tmp_path)[0]


def cifar() -> tuple[torch.Tensor, torch.Tensor]:
    """Labels and origins of 5,000 + 1,000 images per class."""
    number = torch.cat([torch.arange(50000) % 10, torch.arange(10000) % 10])
    return torch.nn.functional.one_hot(number, 10).bool(), (torch.arange(60000) >= 50000).to(torch.uint8)


def test_cifar_splits() -> None:
    labels, origin = cifar()
    parts = {}
    for split in "012":
        data = create("datasets", "cifar10", {"split": split})
        parts[split] = dict(data.splits(labels, origin, Rng("split", "cifar10", 1)))
        check(parts[split], 60000, data)
    plain = create("datasets", "cifar10", {})
    assert plain.overlaps == frozenset()
    zero = plain.splits(labels, origin, Rng("split", "cifar10", 1))
    assert all(torch.equal(zero[name], parts["0"][name]) for name in zero)
    assert {s: {name: len(ids) for name, ids in part.items()} for s, part in parts.items()} == {
        "0": {"public": 10, "query": 1000, "trusted": 500, "train": 5000, "database": 53490},
        "1": {"public": 10, "query": 1000, "trusted": 500, "train": 5000, "database": 58490},
        "2": {"public": 10, "query": 10000, "trusted": 500, "train": 49490, "database": 49490},
    }
    assert all(torch.equal(parts["0"][name], parts["1"][name]) for name in ("public", "query", "trusted", "train"))
    assert torch.equal(parts["1"]["database"], torch.cat([parts["0"]["database"], parts["0"]["train"]]).sort().values)
    assert torch.equal(parts["2"]["query"], torch.arange(50000, 60000))
    assert torch.equal(parts["2"]["train"], parts["2"]["database"])
    with pytest.raises(UserError, match=r"'train'.*'database'.*5000"):
        check(parts["1"], 60000, plain)


def test_cifar_sizes_that_are_given_count() -> None:
    two = create("datasets", "cifar10", {"split": "2", "train": 5000, "trusted": 1000})
    assert (two.train, two.query, two.trusted) == (5000, 10000, 1000)
    assert create("datasets", "cifar10", {"split": "2", "trusted": 1000}).train == 48990
    with pytest.raises(UserError, match="split"):
        create("datasets", "cifar10", {"split": "3"})


@pytest.mark.parametrize(("split", "batches", "jpeg"), [
    ("0", "CIFAR10-0", "CIFAR10-jpeg"), ("1", "CIFAR10-1", "CIFAR10-jpeg-1"), ("2", "CIFAR10-2", "CIFAR10-jpeg-2"),
])  # fmt: skip
def test_cifar_names(split: str, batches: str, jpeg: str, tmp_path: Path) -> None:
    from hashing.datasets import cifar10

    data = create("datasets", "cifar10", {"split": split})
    (tmp_path / "cifar10").mkdir()
    (tmp_path / cifar10.JPEG).touch()
    assert data.protocol(tmp_path) == (jpeg, None)
    (tmp_path / cifar10.BATCHES).mkdir()
    for name in cifar10.MD5:
        (tmp_path / cifar10.BATCHES / name).touch()
    assert data.protocol(tmp_path) == (batches, None)
