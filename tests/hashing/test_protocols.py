"""The named protocols: what each expects, says where it looks, refuses or reports."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bench.api.errors import DataCorruptError, DataMissingError
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
