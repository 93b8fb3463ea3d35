"""Image lists: what they say, the images behind them, and errors that name file and line."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bench.api.errors import DataCorruptError, DataMissingError, UserError
from bench.api.hashing import Dataset
from bench.api.random import Rng
from bench.api.registry import create
from bench.stages.split import check

Lines = dict[str, list[str]]
TRAIN = [f"a/{i}.png {int(i % 2 == 0)} {int(i % 2)} 0" for i in range(6)]
REST = [f"b/{i}.jpg 0 {i % 2} 1" for i in range(12)]
QUERY = [f"q/{i}.png 1 0 {i % 2}" for i in range(4)]
HONEST: Lines = {"train.txt": TRAIN, "test.txt": QUERY, "database.txt": [*reversed(REST), *TRAIN]}


def make(path: str = "mine", **params: Any) -> Dataset:
    return create("datasets", "lists", {"path": path, "size": 8, "trusted": 2} | params)


def build(root: Path, lines: Lines, end: str = "\n", images: str = "mine") -> Path:
    """The lists in root/mine; each image is grey as the number in its name, its left edge is white."""
    (root / "mine").mkdir(exist_ok=True)
    for name, rows in lines.items():
        (root / "mine" / name).write_bytes((end.join(rows) + end).encode())
        for row in rows:
            file = root / images / (row.split() or [""])[0]
            if file.stem.isdigit() and ".." not in row and not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(picture(int(file.stem)))
    return root


def picture(number: int) -> bytes:
    pixels = np.full((16, 32, 3), 10 * number, dtype=np.uint8)
    pixels[:, :4] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")  # its content counts, not its name
    return buffer.getvalue()


def test_lists_load_unchanged(tmp_path: Path) -> None:
    data = make()
    root = build(tmp_path, HONEST)
    names = ("train.txt", "test.txt", "database.txt")
    assert data.files(root) == tuple(root / "mine" / name for name in names)
    assert data.classes(root) == ("label 0", "label 1", "label 2")
    pool = data.decode(root)
    assert pool.images.shape == (22, 3, 8, 8)  # six are in two lists and decoded once
    assert pool.origin.tolist() == [5] * 6 + [4] * 12 + [2] * 4
    assert pool.images[:6, 0, 4, 6].tolist() == [0, 10, 20, 30, 40, 50]
    assert pool.images[:, :, :, 0].min() > 150  # nothing is cut off
    assert pool.labels[:2].tolist() == [[True, False, False], [False, True, False]]
    parts = dict(data.splits(pool.labels, pool.origin, Rng("l")))
    check(parts, 22, data)
    assert parts["train"].tolist() == list(range(6))
    assert parts["query"].tolist() == list(range(18, 22))
    taken = parts["trusted"].tolist() + parts["public"].tolist()
    assert len(taken) == 2 + 2  # label 0 is on no image that is in the database alone
    assert sorted([*taken, *parts["database"].tolist()]) == list(range(18))
    assert min(taken) >= 6
    assert data.protocol(root)[1] is None
    assert make(cutoff=5).protocol(root)[1] == 5


def test_trusted_images_can_come_from_the_training_list(tmp_path: Path) -> None:
    """Train and database are one list, as in CIFAR10-2."""
    root = build(tmp_path, HONEST | {"database.txt": TRAIN})
    pool = make().decode(root)
    with pytest.raises(UserError, match=r"\b0 .*trusted_from = \"train\""):
        make().splits(pool.labels, pool.origin, Rng("l"))
    data = make(trusted_from="train")
    parts = dict(data.splits(pool.labels, pool.origin, Rng("l")))
    check(parts, 10, data)
    assert torch.equal(parts["train"], parts["database"])
    assert sorted(torch.cat([parts[k] for k in ("train", "trusted", "public")]).tolist()) == list(range(6))
    with pytest.raises(UserError, match="trusted = 3"):
        make(trusted_from="train", trusted=3).splits(pool.labels, pool.origin, Rng("l"))


def test_class_numbers_line_ends_names_and_another_image_folder(tmp_path: Path) -> None:
    def number(rows: list[str]) -> list[str]:
        return [f"./{row.split()[0]} {i % 3}" for i, row in enumerate(rows)]

    lines = {"train.txt": number(TRAIN), "query.txt": number(QUERY), "database.txt": number(REST)}
    root = build(tmp_path, lines, "\r\n")
    build(tmp_path, HONEST | {"test.txt": QUERY}, images="elsewhere")
    build(tmp_path, lines, "\r\n")
    (root / "mine" / "test.txt").unlink()
    (root / "mine" / "classes.txt").write_text("cat\ndog\nsea lion\n")
    data = make(images="elsewhere")
    assert [file.name for file in data.files(root)] == ["train.txt", "query.txt", "database.txt", "classes.txt"]
    assert data.classes(root) == ("cat", "dog", "sea lion")
    pool = data.decode(root)
    assert pool.labels.int().argmax(1).tolist()[:6] == [0, 1, 2, 0, 1, 2]
    assert (pool.labels.sum(1) == 1).all()
    (root / "mine" / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(DataCorruptError, match=r"classes\.txt.*\b2\b.*\b3\b"):
        data.classes(root)
    (root / "mine" / "test.txt").write_text("x")
    with pytest.raises(UserError, match=r"test\.txt.*query\.txt"):
        data.files(root)


def test_the_name_tells_lists_apart_but_not_their_order(tmp_path: Path) -> None:
    variants = (
        HONEST,
        HONEST | {"database.txt": HONEST["database.txt"][::-1]},
        HONEST | {"database.txt": HONEST["database.txt"][1:]},
        HONEST | {"train.txt": TRAIN[1:]},
        HONEST | {"test.txt": ["q/0.png 1 1 0", *QUERY[1:]]},
    )
    seen = [make().protocol(build(tmp_path, lines))[0] for lines in variants]
    assert seen[0] == seen[1]
    assert len(set(seen)) == 4
    assert seen[0].startswith("lists mine ")
    bare = make().protocol(build(tmp_path, HONEST | {"test.txt": ["q/0.png 0 0 0", *QUERY[1:]]}))[0]
    assert bare.endswith("(1 images without labels)")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train.txt": []}, r"train\.txt"),
        ({"train.txt": ["a/0.png 1 0 0", "", "a/1.png 1 0 0"]}, r"train\.txt' line 2"),
        ({"train.txt": ["a/0.png", *TRAIN]}, r"train\.txt' line 1"),
        ({"train.txt": [TRAIN[0], TRAIN[0], TRAIN[0]]}, r"line 2.*'a/0\.png'.*line 1.*\b1 more"),
        ({"train.txt": [TRAIN[0], "./a//0.png 0 1 0"]}, r"train\.txt' line 2.*'a/0\.png'"),
        ({"test.txt": [*QUERY, "q/5.png 1 0"]}, r"test\.txt' line 5.*2.*line 1.*3"),
        ({"test.txt": ["q/0.png 1 0"]}, r"test\.txt' .*2 labels.*train\.txt' 3"),
        ({"test.txt": ["q/0.png 1 2 0"]}, r"test\.txt' line 1.*'2'"),
        ({"test.txt": ["q/0.png 1 00 1"]}, r"test\.txt' line 1.*'00'"),
        ({"test.txt": ["q/my pic.png 1 0 0"]}, r"test\.txt' line 1.*'pic\.png'"),
        ({"test.txt": ["/etc/passwd 1 0 0"]}, r"test\.txt' line 1.*'/etc/passwd'"),
        ({"test.txt": ["q/../../x.png 1 0 0"]}, r"test\.txt' line 1"),
        ({"test.txt": ["./. 1 0 0"]}, r"test\.txt' line 1.*'./.'"),
        ({"test.txt": ["C:/x.png 1 0 0"]}, r"test\.txt' line 1"),
        ({"test.txt": ["q\\x.png 1 0 0"]}, r"test\.txt' line 1"),
        ({"test.txt": [*QUERY, TRAIN[0], TRAIN[1]]}, r"test\.txt' line 5.*'a/0\.png'.*train\.txt.*1 more"),
        ({"test.txt": [*QUERY, REST[3]]}, r"test\.txt' line 5.*'b/3\.jpg'.*database\.txt"),
        ({"train.txt": ["a/3.png 1 1 1"]}, r"train\.txt' line 1.*'a/3\.png'.*line 16"),
        ({k: [f"{r.split()[0]} {1 + i % 2}" for i, r in enumerate(v)] for k, v in HONEST.items() if k != "database.txt"}
         | {"database.txt": ["b/1.jpg 1"]}, "from 1 to 2"),
        ({k: [f"{r.split()[0]} -1" for r in v] for k, v in HONEST.items()}, r"train\.txt' line 1.*'-1'"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_named(tmp_path: Path, changed: Lines, message: str) -> None:
    root = build(tmp_path, HONEST | changed)
    for use in (make().files, make().classes, make().protocol, make().decode):
        with pytest.raises(DataCorruptError, match=message) as error:
            use(root)
        assert "\n" not in str(error.value)


def absolute(lines: Lines, prefix: object) -> Lines:
    return {name: [f"{prefix}/{row}" for row in rows] for name, rows in lines.items()}


@pytest.mark.parametrize("spelling", ["{root}/mine", "{root}//mine/.", "{root}/link"])
def test_absolute_paths_in_the_image_folder_are_those_images(tmp_path: Path, spelling: str) -> None:
    root = build(tmp_path, HONEST)
    plain, name = make().decode(root), make().protocol(root)
    (root / "link").symlink_to(root / "mine")
    images = "link" if "link" in spelling else "mine"
    _written(root, absolute(HONEST, spelling.format(root=root)))
    data = make(images=images)
    data.files(root)
    assert data.protocol(root) == name, "the lists say the same"
    assert torch.equal(data.decode(root).images, plain.images)
    assert torch.equal(data.decode(root).labels, plain.labels)


def test_a_link_may_hide_the_folder_that_paths_name(tmp_path: Path) -> None:
    root = build(tmp_path, HONEST)
    (root / "link").symlink_to(root / "mine")
    _written(root, absolute(HONEST, root / "mine"))
    assert len(make(images="link").decode(root).images) == 22


@pytest.mark.parametrize(
    ("prefix", "hint"),
    [
        ("/data/set/ILSVRC", r"'/data/set/ILSVRC/a/0\.png'.*27 more.*cut off '/data/set/ILSVRC/'"),
        ("/home/a b", "no spaces in the path"),
        ("{root}/mine2", r"cut off '.*/mine2/'"),
        ("{root}", r"cut off '.*/'"),
    ],
)
def test_absolute_paths_of_another_machine_name_the_prefix_to_cut(tmp_path: Path, prefix: str, hint: str) -> None:
    root = build(tmp_path, HONEST)
    _written(root, absolute(HONEST, prefix.format(root=root)))
    with pytest.raises(DataCorruptError, match=rf"train\.txt' line 1.*{hint}"):
        make().files(root)


def test_the_prefix_is_that_of_all_lists_where_no_image_is_found(tmp_path: Path) -> None:
    lines = {name: [f"/far/away/{row.replace('.', 'x.')}" for row in rows] for name, rows in HONEST.items()}
    with pytest.raises(DataCorruptError, match="all of them begin with '/far/away/'"):
        make().files(_written(build(tmp_path, HONEST), lines))
    lines["test.txt"] = [f"/else/{row.replace('.', 'x.')}" for row in QUERY]
    with pytest.raises(DataCorruptError, match="write paths relative to it"):
        make().files(_written(tmp_path, lines))


def _written(root: Path, lines: Lines) -> Path:
    for name, rows in lines.items():
        (root / "mine" / name).write_text("\n".join(rows))
    return root


def test_text_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    root = build(tmp_path, HONEST)
    (root / "mine" / "test.txt").write_bytes(b"q/0.png 1 0 0\nq/\xff.png 1 0 0\n")
    with pytest.raises(DataCorruptError, match=r"test\.txt' line 2.*UTF-8"):
        make().files(root)


def test_images_that_are_missing_damaged_or_elsewhere(tmp_path: Path) -> None:
    root = build(tmp_path, HONEST)
    (root / "mine" / "b" / "3.jpg").write_bytes(picture(3)[:60])
    with pytest.raises(DataCorruptError, match=r"'b/3\.jpg'"):
        make().decode(root)
    for name in ("b/3.jpg", "b/4.jpg", "q/2.png"):
        (root / "mine" / name).unlink()
    make().files(root)  # a plan looks at the first of each list only
    with pytest.raises(DataMissingError, match=r"'b/3\.jpg'.*2 more.*\b22\b"):
        make().decode(root)
    with pytest.raises(DataMissingError, match=r"'a/0\.png'.*train.*/none'.*DIR/mine/"):
        make(images="none").files(root)


def test_links_stay_inside(tmp_path: Path) -> None:
    root = build(tmp_path, HONEST)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "3.jpg").write_bytes(picture(3))
    link = root / "mine" / "b" / "3.jpg"
    link.unlink()
    link.symlink_to(root / "mine" / "b" / "4.jpg")
    assert make().decode(root).images[11, 0, 4, 6] == 40  # within the folder it is followed
    link.unlink()
    link.symlink_to(outside / "3.jpg")
    with pytest.raises(DataCorruptError, match=r"'b/3\.jpg'.*link"):
        make().decode(root)
    (root / "mine" / "b").rename(tmp_path / "outside" / "b")
    (root / "mine" / "b").symlink_to(tmp_path / "outside" / "b")
    with pytest.raises(DataCorruptError, match=r"'b/0\.jpg'.*link.*\b11 more"):
        make().decode(root)
    (tmp_path / "alias").symlink_to(root / "mine")
    (root / "mine" / "b").unlink()
    (outside / "b").rename(root / "mine" / "b")
    (root / "mine" / "b" / "3.jpg").unlink()
    (root / "mine" / "b" / "3.jpg").write_bytes(picture(3))
    assert len(make("alias").decode(root).images) == 22  # the folder itself may be a link


def test_what_is_missing_is_answered_with_the_layout(tmp_path: Path) -> None:
    layout = r"--data DIR.*DIR/mine/.*train\.txt.*test\.txt.*query\.txt.*database\.txt.*classes\.txt"
    with pytest.raises(DataMissingError, match=layout):
        make().files(None)
    with pytest.raises(DataMissingError, match=rf"mine/train\.txt.*{layout}"):
        make().files(tmp_path)
    root = build(tmp_path, HONEST)
    assert make(str(root / "mine")).files(None) == make().files(root)
    assert len(make(str(root / "mine")).decode(None).images) == 22
    (root / "mine" / "database.txt").unlink()
    with pytest.raises(DataMissingError, match=r"mine/database\.txt"):
        make().protocol(root)
