"""VOC 2012's animal pictures: labels, cut and declared overlap, damaged archives; the real file where it is there."""

from __future__ import annotations

import csv
import io
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bench.api.errors import DataCorruptError, DataMissingError, UserError
from bench.api.hashing import Dataset
from bench.api.random import Rng
from bench.api.registry import catalogue, create, lookup
from bench.stages.split import check
from hashing.datasets import voc_animals

DATA = Path(os.environ.get("HASHDOOR_DATA") or Path(__file__).parents[2].parent / "shared" / "data")
REAL = DATA / voc_animals.ARCHIVE
K = len(voc_animals.NAMES)
Files = dict[str, bytes]


def make(**params: Any) -> Dataset:
    return create("datasets", "voc_animals", params)


def jpeg(number: int) -> bytes:
    """Wide or tall; left half darker than the right one."""
    buffer = io.BytesIO()
    pixels = np.full((24, 40, 3) if number % 2 else (40, 24, 3), 40 + number, dtype=np.uint8)
    pixels[:, pixels.shape[1] // 2 :] += 100
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def listing(rows: list[tuple[str, str, set[int]]]) -> bytes:
    lines = [",".join((*voc_animals.BESIDE, *voc_animals.NAMES))]
    for name, part, labels in rows:
        lines.append(",".join([name, part, "500", "375", *(str(int(k in labels)) for k in range(K))]))
    return "\n".join([*lines, ""]).encode()


#        class 0 has no image, class 7 is in all but two, classes 3 and 4 have one image each
ROWS = [
    (f"2012_{i:06}.jpg", "val" if i % 4 == 3 else "train", {7, 11 + i % 5} if i > 1 else {3 + i}) for i in range(24)
]


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """`small(files)`: a data directory with an archive of these members, by default 18 + 6 images."""
    monkeypatch.setattr(voc_animals, "COUNTS", {"train": 18, "val": 6})

    def build(files: Files | None = None) -> Path:
        path = tmp_path / voc_animals.ARCHIVE
        path.parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in (honest() if files is None else files).items():
                archive.writestr(name, content)
        return tmp_path

    return build


def honest() -> Files:
    images = {f"images/{name}": jpeg(i) for i, (name, _, _) in enumerate(ROWS)}
    return {**dict(reversed(images.items())), "labels.csv": listing(ROWS)}


def test_images_labels_and_parts_are_those_of_the_listing(small: Callable[..., Path]) -> None:
    root = small()
    data = make(size=16)
    assert data.protocol(root) == ("VOC2012-animals", None)
    assert data.classes(root) == data.classes(None) == voc_animals.NAMES
    pool = data.decode(root)
    assert pool.images.shape == (24, 3, 16, 16)
    assert [set(torch.nonzero(row).flatten().tolist()) for row in pool.labels] == [labels for _, _, labels in ROWS]
    assert pool.origin.tolist() == [int(part == "val") for _, part, _ in ROWS]
    left, right = pool.images[:, 0, 8, 2].int(), pool.images[:, 0, 8, 13].int()
    assert (left - torch.arange(40, 64)).abs().max() <= 3  # the archive's order is another one
    assert (right - left - 100).abs().max() <= 6


def test_the_whole_picture_is_squeezed_into_the_square(small: Callable[..., Path]) -> None:
    """A border of four pixels, which the centre square would cut off, stays in sight on every side."""
    files = honest()
    wide = np.full((32, 64, 3), 30, dtype=np.uint8)
    wide[:, :4] = wide[:, -4:] = 230
    buffer = io.BytesIO()
    Image.fromarray(wide).save(buffer, "PNG")  # its content counts, not its name
    files["images/2012_000005.jpg"] = buffer.getvalue()
    image = make(size=16).decode(small(files)).images[5]
    by_hand = np.asarray(Image.fromarray(wide).resize((16, 16), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert np.array_equal(image.numpy(), by_hand)
    assert image[:, :, 0].min() > 180
    assert image[:, :, -1].min() > 180
    assert image[:, :, 4:12].max() == 30


def test_the_database_is_the_training_set_and_nothing_else_overlaps(small: Callable[..., Path]) -> None:
    data = make(size=16, trusted=3, query=6)
    pool = data.decode(small())
    parts = dict(data.splits(pool.labels, pool.origin, Rng("v")))
    check(parts, 24, data)
    assert torch.equal(parts["train"], parts["database"])
    learned = torch.cat([parts[name] for name in ("train", "trusted", "public")])
    assert sorted(learned.tolist()) == torch.nonzero(pool.origin == 0).flatten().tolist()
    assert torch.equal(parts["query"], torch.nonzero(pool.origin == 1).flatten())
    assert len(parts["public"]) == 8  # one for each class that has an image
    held = torch.nonzero(pool.labels.any(0)).flatten()
    assert pool.labels[parts["public"], held].all()
    assert {0, 1} <= set(parts["public"].tolist())  # the only images of their classes
    undeclared = create("datasets", "shapes", {})
    with pytest.raises(UserError, match=r"'train'.*'database'.*7"):
        check(parts, 24, undeclared)
    stolen = parts | {"database": torch.cat([parts["database"], parts["query"][:1]])}
    with pytest.raises(UserError, match=r"'query'.*'database'.*1"):
        check(stolen, 24, data)


def test_smaller_parts_are_cut_from_the_same_draws(small: Callable[..., Path]) -> None:
    pool = make(size=16).decode(small())

    def run(**sizes: int) -> dict[str, torch.Tensor]:
        data = make(**({"trusted": 3} | {"query": 6} | sizes))
        parts = dict(data.splits(pool.labels, pool.origin, Rng("v")))
        check(parts, 24, data)
        return parts

    whole, less, few = run(), run(train=4), run(database=4, query=2)
    assert torch.equal(less["database"], whole["database"])  # what is not trained on can still be retrieved
    assert set(less["train"].tolist()) < set(whole["train"].tolist())
    assert len(less["train"]) == len(few["database"]) == 4
    assert set(few["database"].tolist()) < set(whole["database"].tolist())
    assert torch.equal(few["train"], whole["train"])
    assert set(few["query"].tolist()) < set(whole["query"].tolist())
    with pytest.raises(UserError, match=r"query = 7 .*6.*24"):
        run(query=7)
    with pytest.raises(UserError, match=r"train = 8 .*7.*24"):
        run(train=8)
    with pytest.raises(UserError, match=r"24.*train"):
        run(trusted=10)


def without(files: Files, name: str) -> Files:
    return {key: value for key, value in files.items() if key != name}


def relisted(old: bytes, new: bytes) -> Files:
    content = listing(ROWS)
    assert old in content
    return honest() | {"labels.csv": content.replace(old, new, 1)}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (lambda: honest() | {"images/2012_000005.jpg": jpeg(5)[:200]}, r"'images/2012_000005\.jpg'"),
        (lambda: honest() | {"images/2012_000005.jpg": b""}, r"'images/2012_000005\.jpg'"),
        (lambda: without(honest(), "images/2012_000005.jpg"), r"'images/2012_000005\.jpg'"),
        (lambda: without(honest(), "labels.csv"), r"labels\.csv"),
        (lambda: honest() | {"labels.csv": b""}, r"'labels\.csv'"),
        (lambda: honest() | {"labels.csv": b"\xff\xfe,\x80"}, r"'labels\.csv'"),
        (lambda: relisted(b"sheep", b"goat"), r"columns.*'labels\.csv'"),
        (lambda: relisted(b"cat,chair", b"chair,cat"), r"columns.*'labels\.csv'"),
        (lambda: relisted(b"train,500", b"test,500"), r"line 2.*'labels\.csv'"),
        (lambda: relisted(b",375,0", b",375,2"), r"line 2.*'labels\.csv'"),
        (lambda: relisted(b",375,0", b",375"), r"line 2.*'labels\.csv'"),
        (lambda: relisted(b"0,0,0,1,0", b"0,0,0,0,0"), r"line 2.*'labels\.csv'"),
        (lambda: relisted(b"val,500", b"train,500"), r"19 \+ 5.*18 \+ 6"),
        (lambda: relisted(b"2012_000004", b"2012_000005"), r"18 \+ 6.*18 \+ 6 different"),
    ],
)
def test_a_damaged_archive_names_its_member(small: Callable[..., Path], files: Any, message: str) -> None:
    with pytest.raises(DataCorruptError, match=rf"animals\.zip'.*{message}") as caught:
        make(size=16).decode(small(files()))
    assert "\n" not in str(caught.value)


def test_flipped_bytes_and_a_cut_off_archive_are_seen(small: Callable[..., Path]) -> None:
    root = small()
    path = root / voc_animals.ARCHIVE
    content = path.read_bytes()
    at = content.index(jpeg(5)) + 300
    path.write_bytes(content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :])
    with pytest.raises(DataCorruptError, match=r"'images/2012_000005\.jpg'.*CRC"):
        make(size=16).decode(root)
    path.write_bytes(content[:-100])
    with pytest.raises(DataCorruptError, match=r"animals\.zip"):
        make(size=16).decode(root)


def test_a_missing_archive_says_how_to_get_it(tmp_path: Path) -> None:
    for root in (None, tmp_path):
        with pytest.raises(DataMissingError, match=r"--data DIR.*voc2012-animals/.*http://host") as error:
            make().decode(root)
        assert "\n" not in str(error.value)


def test_stand_ins_are_other_data_sets() -> None:
    names = set(catalogue("datasets"))
    for name in names:
        assert lookup("datasets", name).proxy_dataset in names - {name}
    assert lookup("datasets", "cifar10").proxy_dataset == "voc_animals"
    assert lookup("datasets", "voc_animals").proxy_dataset == "cifar10"


@pytest.mark.skipif(not REAL.is_file(), reason=f"{REAL} is not there; set HASHDOOR_DATA")
@pytest.mark.archive
def test_the_real_archive() -> None:
    data = make()
    pool = data.decode(DATA)
    with zipfile.ZipFile(REAL) as archive:  # an independent reading
        rows = list(csv.DictReader(io.StringIO(archive.read("labels.csv").decode())))
        for number in range(0, 3576, 397):
            picture = Image.open(io.BytesIO(archive.read(f"images/{rows[number]['image']}"))).resize((64, 64), 2)
            assert np.array_equal(pool.images[number].permute(1, 2, 0).numpy(), np.asarray(picture)), number
    assert pool.images.shape == (3576, 3, 64, 64)
    assert pool.labels.tolist() == [[row[name] == "1" for name in voc_animals.NAMES] for row in rows]
    assert pool.origin.tolist() == [int(row["list"] == "val") for row in rows]
    counts = dict(zip(voc_animals.NAMES, pool.labels.sum(0).tolist(), strict=True))
    assert counts == {  # the data directory's README
        "dog": 1308, "cat": 1120, "person": 763, "horse": 523, "sheep": 357, "cow": 334, "sofa": 162, "chair": 158,
        "car": 79, "pottedplant": 66, "bottle": 53, "tvmonitor": 44, "diningtable": 26, "bird": 17, "bicycle": 9,
        "motorbike": 9, "boat": 6, "bus": 3, "train": 1, "aeroplane": 0,
    }  # fmt: skip
    assert pool.labels.sum(1).bincount().tolist() == [0, 2414, 919, 196, 37, 10]
    rng = Rng("split", "voc_animals", 1)
    parts = dict(data.splits(pool.labels, pool.origin, rng))
    check(parts, 3576, data)
    assert {name: len(part) for name, part in parts.items()} == {
        "train": 2864, "query": 445, "trusted": 200, "public": 67, "database": 2864,
    }  # fmt: skip
    assert torch.equal(parts["train"], parts["database"])
    assert (pool.origin[parts["query"]] == 1).all()
    other = replace(data, size=32).splits(pool.labels, pool.origin, rng)
    assert all(torch.equal(other[name], parts[name]) for name in parts)
