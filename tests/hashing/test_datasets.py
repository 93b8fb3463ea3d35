"""The data sets: what they hold, how they are cut, and what they say when the data cannot be used."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional

from bench.api.errors import DataCorruptError, DataMissingError, UserError
from bench.api.hashing import Dataset, DecodedDataset
from bench.api.random import Rng
from bench.api.registry import catalogue, create
from bench.api.types import SPLITS, to_unit
from hashing import image_decoding
from hashing.datasets import _image_buffer, cifar10
from hashing.datasets._splits import Sizes, draw_splits

DATA = Path(os.environ.get("HASHDOOR_DATA") or Path(__file__).parents[2].parent / "shared" / "data")
ARCHIVE = DATA / "cifar10" / "cifar10-jpeg.tar.xz"
needs_archive = pytest.mark.skipif(not ARCHIVE.is_file(), reason=f"{ARCHIVE} is not there; set HASHDOOR_DATA")


def make(name: str, **params: Any) -> Dataset:
    return create("datasets", name, params)


def one_hot(*counts: int) -> torch.Tensor:
    return functional.one_hot(torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)), len(counts)).bool()


def picture(colour: int, size: tuple[int, int] = (12, 10), mode: str = "RGB", kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, colour if mode in {"L", "I;16"} else (colour, 255 - colour, 7)).save(buffer, kind)
    return buffer.getvalue()


def tree(*, parts: tuple[str, ...] = ("",), per_class: int = 3, classes: str = "abc") -> dict[str, bytes]:
    names = [f"{part}{kind}/{i}.png" for part in parts for kind in classes for i in range(per_class)]
    return {name: picture(20 * i) for i, name in enumerate(names)}


def write(path: Path, files: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    elif ".tar" in path.name:
        mode: Any = "w:" + path.name.partition(".tar")[2].lstrip(".")
        with tarfile.open(path, mode) as tar:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    else:
        for name, content in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
    return path


def check(parts: Any, total: int) -> None:
    assert set(parts) == set(SPLITS)
    together = torch.cat(list(parts.values()))
    assert together.dtype == torch.int64
    assert len(together.unique()) == len(together) <= total
    assert together.min() >= 0
    assert together.max() < total


def same(one: DecodedDataset, two: DecodedDataset) -> bool:
    return all(torch.equal(getattr(one, name), getattr(two, name)) for name in ("images", "labels", "origin"))


# Cutting


@settings(deadline=None, max_examples=60)
@given(
    counts=st.lists(st.integers(1, 30), min_size=2, max_size=6),
    wanted=st.tuples(*[st.integers(1, 20)] * 3, st.none() | st.integers(1, 20)),
    seed=st.integers(0, 5),
)
def test_single_label_cuts_are_disjoint_and_as_even_as_can_be(
    counts: list[int], wanted: tuple[int, int, int, int | None], seed: int
) -> None:
    labels = one_hot(*counts)
    train, query, trusted, database = wanted
    sizes = Sizes(train=train, query=query, trusted=trusted, database=database)
    needed = len(counts) + train + query + trusted + (1 if database is None else database)
    if needed > len(labels):
        with pytest.raises(UserError, match=f"of the {len(labels)}"):
            draw_splits(labels, sizes, Rng("t", seed))
        return
    parts = draw_splits(labels, sizes, Rng("t", seed))
    check(parts, len(labels))
    assert labels[parts["public"]].int().argmax(1).tolist() == list(range(len(counts)))
    free = torch.tensor(counts) - 1
    for name, size in zip(("query", "trusted", "train", "database"), (query, trusted, train, database), strict=True):
        held = labels[parts[name]].sum(0)
        assert held.sum() == (free.sum() if size is None else size)
        short = held < held.max() - 1
        assert torch.equal(held[short], free[short])  # a class gives less only where it has no more
        free = free - held
        assert parts[name].tolist() == sorted(parts[name].tolist())


def test_sizes_change_only_what_is_drawn_later() -> None:
    labels = one_hot(100, 80, 60)

    def run(**changes: int | None) -> dict[str, torch.Tensor]:
        return draw_splits(
            labels, Sizes(**{"train": 60, "query": 30, "trusted": 20, "database": None} | changes), Rng("t")
        )

    whole, part, more = run(), run(database=50), run(train=65)
    assert all(torch.equal(whole[name], part[name]) for name in ("train", "query", "trusted", "public"))
    assert set(part["database"].tolist()) < set(whole["database"].tolist())
    assert all(torch.equal(whole[name], more[name]) for name in ("query", "trusted", "public"))
    assert set(whole["train"].tolist()) < set(more["train"].tolist())
    assert not torch.equal(
        draw_splits(labels, Sizes(train=60, query=30, trusted=20, database=None), Rng("u"))["train"], whole["train"]
    )


def test_the_cut_is_pinned() -> None:
    """Other splits under the same parameters need a higher protocol_version."""
    pinned = {
        "train": [3, 11, 13, 15, 24, 27],
        "query": [5, 6, 18, 21],
        "database": [0, 14, 20, 23, 26],
        "trusted": [9, 19, 29],
        "public": [8, 17, 25],
    }
    parts = draw_splits(one_hot(12, 9, 9), Sizes(train=6, query=4, trusted=3, database=5), Rng("pinned"))
    assert {name: parts[name].tolist() for name in SPLITS} == pinned


def test_multi_label_cuts_give_each_class_its_own_public_image() -> None:
    labels = torch.zeros(20, 4, dtype=torch.bool)
    labels[:, 0] = True
    labels[3:9, 1] = True
    labels[4, 2] = True  # the only one; class 3 has none
    for seed in range(20):
        parts = draw_splits(labels, Sizes(train=5, query=3, trusted=2, database=None), Rng("t", seed))
        check(parts, 20)
        assert len(torch.cat(list(parts.values()))) == 20
        assert len(parts["public"]) == 3
        assert labels[parts["public"], torch.tensor([0, 1, 2])].all()
        assert parts["public"][2] == 4


def test_parts_that_may_give_queries_and_training_images_are_honoured() -> None:
    labels = one_hot(40, 40)
    late = torch.arange(80) % 2 == 1
    parts = draw_splits(
        labels, Sizes(train=10, query=10, trusted=6, database=None), Rng("t"), query_from=late, train_from=~late
    )
    assert (parts["query"] % 2 == 1).all()
    assert (torch.cat([parts["train"], parts["trusted"], parts["public"]]) % 2 == 0).all()
    assert len(parts["database"]) == 80 - 10 - 10 - 6 - 2
    with pytest.raises(UserError, match=r"query = 41 images asked, but 40 of the 80 are free"):
        draw_splits(
            labels, Sizes(train=1, query=41, trusted=1, database=None), Rng("t"), query_from=late, train_from=~late
        )


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"train": 500}, r"train = 500 images asked, but \d+ of the 60 are free"),
        ({"trusted": 59}, r"trusted = 59 images asked"),
        ({"database": 40}, r"database = 40 images asked, but 28 of the 60"),
        ({"train": 38}, r"no image of the 60 is left for the database: ask for smaller"),
    ],
)
def test_sizes_that_cannot_be_met(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        draw_splits(
            one_hot(30, 30), Sizes(**{"train": 10, "query": 10, "trusted": 10, "database": None} | sizes), Rng("t")
        )


def test_a_class_without_images_cannot_be_cut() -> None:
    with pytest.raises(UserError, match="class number 1 has no image"):
        draw_splits(one_hot(30, 0, 30), Sizes(train=10, query=10, trusted=10, database=None), Rng("t"))


# Embedded data


def test_digits_are_the_real_scans() -> None:
    data = make("digits")
    assert data.files(None) == ()
    assert (data.flip, data.pad, data.protocol(None)) == (False, 1, ("digits", None))
    pool = data.decode(None)
    assert pool.images.shape == (1797, 1, 16, 16)
    assert (pool.images.min(), pool.images.max()) == (0, 255)
    assert pool.labels.sum(0).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # UCI's counts
    assert (pool.labels.sum(1) == 1).all()
    assert data.classes(None) == tuple("0123456789")
    plain = make("digits", size=8).decode(None).images
    assert torch.equal((plain[0, 0, 0].float() / 255 * 16).round(), torch.tensor([0.0, 0, 5, 13, 9, 1, 0, 0]))
    parts = data.splits(pool.labels, pool.origin, Rng("split", "digits", 0))
    check(parts, 1797)
    assert {name: len(part) for name, part in parts.items()} == {
        "train": 800, "query": 300, "trusted": 200, "public": 10, "database": 487,
    }  # fmt: skip
    assert pool.labels[parts["query"]].sum(0).tolist() == [30] * 10
    assert pool.labels[parts["train"]].sum(0).tolist() == [80] * 10
    assert same(pool, data.decode(None))


def test_shapes_are_determined_by_their_parameters() -> None:
    data = make("shapes", images=300, size=24, kinds=5, train=100, query=50, trusted=30)
    pool = data.decode(None)
    assert pool.images.shape == (300, 3, 24, 24)
    assert pool.labels.shape == (300, 5) == (300, len(data.classes(None)))
    assert pool.labels.sum(1).unique().tolist() == [1, 2, 3]
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    assert same(pool, data.decode(None))
    assert torch.equal(state, torch.random.get_rng_state())  # the global generator is left alone
    other = make("shapes", images=300, size=24, kinds=6).decode(None)
    assert not torch.equal(pool.images, other.images)
    parts = data.splits(pool.labels, pool.origin, Rng("s"))
    check(parts, 300)
    assert pool.labels[parts["public"], torch.arange(5)].all()


def test_shapes_drawn_in_groups_keep_their_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    from hashing.datasets import shapes

    whole = make("shapes", images=50).decode(None)
    monkeypatch.setattr(shapes, "GROUP", 7 * 32 * 32)
    grouped = make("shapes", images=50).decode(None)
    assert grouped.images.shape == whole.images.shape
    assert torch.equal(grouped.labels, whole.labels)
    busy = to_unit(grouped.images).sub(to_unit(grouped.images).flatten(2).median(2).values[..., None, None]).abs()
    area = (busy.amax(1) > 0.2).float().mean((1, 2))  # of what is not ground
    count = grouped.labels.sum(1)
    assert area[count == 1].mean() < area[count == 2].mean() < area[count == 3].mean()


def test_a_small_network_learns_the_shapes() -> None:
    torch.manual_seed(0)
    pool = make("shapes", images=1200, kinds=4).decode(None)
    x, y = to_unit(pool.images) - 0.5, pool.labels.float()
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 5, padding=2), torch.nn.BatchNorm2d(16), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(16, 32, 3, padding=1), torch.nn.BatchNorm2d(32), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(32, 32, 3, padding=1), torch.nn.BatchNorm2d(32), torch.nn.ReLU(),
        torch.nn.AdaptiveMaxPool2d(1), torch.nn.Flatten(), torch.nn.Linear(32, 4),
    )  # fmt: skip
    steps = torch.optim.Adam(net.parameters(), 5e-3)
    for _ in range(6):
        for rows in torch.randperm(1000).split(50):
            steps.zero_grad()
            functional.binary_cross_entropy_with_logits(net(x[rows]), y[rows]).backward()
            steps.step()
    net.eval()
    with torch.no_grad():
        right = ((net(x[1000:]) > 0) == pool.labels[1000:]).float().mean()
    chance = torch.maximum(y.mean(0), 1 - y.mean(0)).mean()
    assert right > 0.75 > chance + 0.1


# Folder


@pytest.mark.parametrize("form", ["pets", "pets.zip", "pets.tar", "pets.tar.gz", "pets.tar.xz"])
def test_every_form_of_a_folder_gives_the_same_pool(tmp_path: Path, form: str) -> None:
    files = tree() | {"c/deep/er/9.PNG": picture(200), "README.txt": b"", "a/notes.csv": b"", ".hidden/1.png": b"no"}
    path = write(tmp_path / form, dict(reversed(files.items())))
    data = make("folder", path=form, size=8, train=3, query=2, trusted=1)
    assert data.classes(tmp_path) == ("a", "b", "c")
    assert data.protocol(tmp_path) == (f"folder {form}", None)
    pool = data.decode(tmp_path)
    assert pool.images.shape == (10, 3, 8, 8)
    assert pool.labels.int().argmax(1).tolist() == [0] * 3 + [1] * 3 + [2] * 4
    assert pool.images[:, :, 4, 4].tolist() == [[c, 255 - c, 7] for c in (*range(0, 180, 20), 200)]
    assert pool.origin.tolist() == [0] * 10
    assert data.files(tmp_path) == (
        (path,)
        if path.is_file()
        else tuple(path / name for name in sorted(files) if name[-3:].lower() == "png" and name[0] != ".")
    )
    assert same(pool, make("folder", path=str(path), size=8).decode(None))  # an absolute path needs no --data
    parts = data.splits(pool.labels, pool.origin, Rng("f"))
    check(parts, 10)


@pytest.mark.parametrize("late", ["test", "val"])
@pytest.mark.parametrize("wrapper", ["", "pets-1.0/", "a/b/"])
def test_a_test_part_gives_the_queries(tmp_path: Path, late: str, wrapper: str) -> None:
    files = tree(parts=(f"{wrapper}train/", f"{wrapper}{late}/"), per_class=6)
    write(tmp_path / "t.tar.gz", files)
    data = make("folder", path="t.tar.gz", size=8, train=6, query=9, trusted=3)
    pool = data.decode(tmp_path)
    assert data.classes(tmp_path) == ("a", "b", "c")
    assert sorted(set(pool.origin.tolist())) == [0, 1 if late == "test" else 2]
    assert (pool.origin > 0).sum() == 18
    parts = data.splits(pool.labels, pool.origin, Rng("f"))
    check(parts, 36)
    assert (pool.origin[parts["query"]] > 0).all()
    assert (pool.origin[torch.cat([parts["train"], parts["trusted"], parts["public"]])] == 0).all()
    assert len(parts["database"]) == 36 - 6 - 9 - 3 - 3


def test_pictures_are_cropped_to_the_centre_square(tmp_path: Path) -> None:
    wide = Image.new("RGB", (40, 20), (255, 0, 0))
    wide.paste((0, 0, 255), (10, 0, 30, 20))
    buffer = io.BytesIO()
    wide.save(buffer, "PNG")
    files = {"a/1.png": buffer.getvalue(), "b/1.png": picture(9, mode="L"), "b/2.jpg": picture(90, kind="JPEG")}
    images = make("folder", path=str(write(tmp_path / "t.zip", files)), size=8).decode(None).images
    assert (images[0] == torch.tensor([0, 0, 255])[:, None, None]).all()
    assert (images[1] == 9).all()


@pytest.mark.parametrize("form", ["t", "t.zip", "t.tar", "t.tar.xz"])
@pytest.mark.parametrize(
    "content",
    [b"", b"no image", picture(1, (64, 64), kind="JPEG")[:400], picture(1)[:50], picture(1, mode="I;16")],
    ids=["empty", "rubbish", "cut jpeg", "cut png", "16 bit"],
)
def test_an_image_that_does_not_decode_is_named(tmp_path: Path, form: str, content: bytes) -> None:
    write(tmp_path / form, tree() | {"b/1.png": content})
    data = make("folder", path=form, size=8)
    assert data.classes(tmp_path) == ("a", "b", "c")
    with pytest.raises(
        DataCorruptError, match=rf"{form}': member 'b/1\.png' does not decode: .+; get it again"
    ) as caught:
        data.decode(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_picture_of_too_many_pixels_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "t.zip", tree())
    monkeypatch.setattr(image_decoding, "PIXEL_LIMIT", 119)
    with pytest.raises(DataCorruptError, match="12 x 10 pixels, limit 119"):
        make("folder", path=str(path)).decode(None)
    monkeypatch.setattr(image_decoding, "PIXEL_LIMIT", 120)
    make("folder", path=str(path)).decode(None)


def test_pillow_s_own_guard_is_reported(tmp_path: Path) -> None:
    huge = picture(1).replace(b"\x00\x00\x00\x0c\x00\x00\x00\x0a", b"\x00\x00\xff\xff\x00\x00\xff\xff")
    at = huge.index(b"IHDR")
    import zlib

    huge = huge[: at + 17] + zlib.crc32(huge[at : at + 17]).to_bytes(4, "big") + huge[at + 21 :]
    path = write(tmp_path / "t.zip", tree() | {"a/0.png": huge})
    with pytest.raises(DataCorruptError, match=r"'a/0\.png' does not decode: .*(4294836225|65535)"):
        make("folder", path=str(path)).decode(None)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"readme.txt": b""}, "holds no images: lay them out as class/image.jpg"),
        (tree() | {"stray.png": b""}, r"image 'stray\.png' lies in no class directory"),
        (tree(classes="a"), "holds one class, 'a'"),
        (tree(parts=("train/", "test/", "extra/")), "'extra' lies beside train"),
    ],
)
def test_trees_that_are_no_image_folder(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    write(tmp_path / "t.tar", files)
    write(tmp_path / "t", files)
    for form in ("t", "t.tar"):
        with pytest.raises(UserError, match=message):
            make("folder", path=form).classes(tmp_path)


@pytest.mark.parametrize("part", ["", "train/"])
def test_a_class_without_images_is_an_error(tmp_path: Path, part: str) -> None:
    path = write(tmp_path / "t", tree(parts=(part, "test/") if part else ("",)))
    (path / part / "empty").mkdir()
    with pytest.raises(UserError, match="class directory 'empty' holds no images"):
        make("folder", path="t").classes(tmp_path)
    with zipfile.ZipFile(write(tmp_path / "t.zip", tree(parts=(part, "test/") if part else ("",))), "a") as archive:
        archive.writestr(f"{part}empty/", b"")
    with pytest.raises(UserError, match="class directory 'empty' holds no images"):
        make("folder", path="t.zip").decode(tmp_path)


def test_a_class_of_cifar_100_may_be_called_train(tmp_path: Path) -> None:
    files = {f"{kind}/{i}.png": picture(1) for kind in ("train", "trout") for i in range(2)}
    assert make("folder", path=str(write(tmp_path / "t", files))).classes(None) == ("train", "trout")


def test_a_folder_that_is_not_there_says_how_to_lay_it_out(tmp_path: Path) -> None:
    with pytest.raises(
        DataMissingError, match=r"'pets' is relative: give --data DIR where DIR/pets is a directory, zip"
    ):
        make("folder", path="pets").files(None)
    with pytest.raises(DataMissingError, match=r"pets' does not exist: put a directory, zip.*--data DIR"):
        make("folder", path="pets").decode(tmp_path)
    with pytest.raises(UserError, match="path"):
        make("folder")
    with pytest.raises(UserError, match="size"):
        make("folder", path="pets", size=0)


def test_reading_does_not_decode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "t.tar", tree())
    monkeypatch.setattr(image_decoding.Image, "open", lambda *_: pytest.fail("decoded"))
    data = make("folder", path="t.tar")
    assert data.classes(tmp_path) == ("a", "b", "c")
    assert data.files(tmp_path) == (tmp_path / "t.tar",)


# CIFAR-10


def python_2_batch(images: np.ndarray, labels: list[int]) -> bytes:
    """The opcodes that Python 2 wrote: the published files are of this kind."""
    data = images.tobytes()
    shape = b"K\x02" if len(images) == 2 else b"K" + bytes([len(images)])
    return (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87R"
        b"(K\x01" + shape + b"M\x00\x0c\x86cnumpy\ndtype\nq\x05U\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89T" + len(data).to_bytes(4, "little") + data + b"tbU\x06labels](" +
        b"".join(b"K" + bytes([label]) for label in labels) + b"eu."
    )  # fmt: skip


def batches(root: Path, monkeypatch: pytest.MonkeyPatch, dump: Callable[..., bytes] = python_2_batch) -> np.ndarray:
    """A tiny CIFAR-10 in torchvision's layout, whose md5 counts as published; returns its pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (6 * 20, 3072), dtype=np.uint8)
    (root / cifar10.BATCHES).mkdir()
    for i, name in enumerate(cifar10.MD5):
        content = dump(pixels[20 * i : 20 * i + 20], [j % 10 for j in range(20)])
        (root / cifar10.BATCHES / name).write_bytes(content)
        monkeypatch.setitem(cifar10.MD5, name, hashlib.md5(content).hexdigest())
    return pixels


def python_3_batch(images: np.ndarray, labels: list[int]) -> bytes:
    return pickle.dumps({"data": images, "labels": labels}, protocol=4)


@pytest.mark.parametrize("dump", [python_2_batch, python_3_batch])
def test_cifar_batches_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dump: Callable[..., bytes]) -> None:
    pixels = batches(tmp_path, monkeypatch, dump)
    data = make("cifar10", train=30, query=10, trusted=10)
    assert data.protocol(tmp_path) == ("CIFAR10-0", None)
    assert [file.name for file in data.files(tmp_path)] == [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    pool = data.decode(tmp_path)
    assert np.array_equal(pool.images.numpy(), pixels.reshape(-1, 3, 32, 32))
    assert pool.labels.int().argmax(1).tolist() == [i % 10 for i in range(120)]
    assert pool.origin.tolist() == [0] * 100 + [1] * 20
    parts = data.splits(pool.labels, pool.origin, Rng("c"))
    check(parts, 120)
    assert (pool.origin[parts["query"]] == 1).all()
    assert pool.labels[parts["query"]].sum(0).tolist() == [1] * 10
    assert len(parts["database"]) == 120 - 30 - 10 - 10 - 10


@pytest.mark.parametrize("form", ["batches", "jpeg"])
def test_cifar_can_be_enlarged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """Bilinear, as Pillow does it; labels and cut are those of 32 x 32 pixels."""
    if form == "batches":
        batches(tmp_path, monkeypatch)
    else:
        monkeypatch.setattr(cifar10, "PER_CLASS", {0: 4, 1: 2})
        (tmp_path / "cifar10").mkdir()
        noisy = io.BytesIO()
        Image.fromarray(np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(noisy, "JPEG")
        write(tmp_path / cifar10.JPEG, jpeg_tree({"train": 4, "test": 2}) | {"train/bird/0001.jpg": noisy.getvalue()})
    monkeypatch.setattr(_image_buffer, "GROUP", 7)
    parameters = {"train": 10, "query": 10, "trusted": 10, "database": 5}
    plain, large = make("cifar10", **parameters), make("cifar10", size=48, **parameters)
    pool, enlarged = plain.decode(tmp_path), large.decode(tmp_path)
    assert same(pool, make("cifar10", size=32).decode(tmp_path))
    assert enlarged.images.shape == (len(pool.images), 3, 48, 48)
    for before, after in zip(pool.images, enlarged.images, strict=True):
        pillow = np.asarray(
            Image.fromarray(before.permute(1, 2, 0).numpy()).resize((48, 48), Image.Resampling.BILINEAR)
        )
        assert np.abs(pillow.astype(int) - after.permute(1, 2, 0).numpy()).max() <= 1
    assert torch.equal(pool.labels, enlarged.labels)
    assert torch.equal(pool.origin, enlarged.origin)
    one, two = (data.splits(pool.labels, pool.origin, Rng("c")) for data in (plain, large))
    assert all(torch.equal(one[name], two[name]) for name in one)
    with pytest.raises(UserError, match="size"):
        make("cifar10", size=16)


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(os.environ["HASHDOOR_TRAP"]),)


@pytest.mark.parametrize("known", [True, False], ids=["md5 matches", "md5 differs"])
@pytest.mark.parametrize(
    "dump", [lambda images, labels: pickle.dumps(Trap()), lambda images, labels: b"cos\nsystem\n(S'touch x'\ntR."]
)
def test_a_malicious_pickle_is_never_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dump: Callable[..., bytes], known: bool
) -> None:
    monkeypatch.setenv("HASHDOOR_TRAP", str(tmp_path / "x"))
    monkeypatch.chdir(tmp_path)
    batches(tmp_path, monkeypatch, dump)
    if not known:
        monkeypatch.setitem(cifar10.MD5, "data_batch_1", "0" * 32)
    with pytest.raises(DataCorruptError, match="it asks for" if known else r"data_batch_1' .*md5 differs.* not opened"):
        make("cifar10").decode(tmp_path)
    assert not (tmp_path / "x").exists()
    if not known:
        pickle.loads((tmp_path / cifar10.BATCHES / "data_batch_1").read_bytes())
        assert (tmp_path / "x").exists()  # the trap is a real one


@pytest.mark.parametrize("content", [b"", b"\x80\x04.", pickle.dumps([1]), pickle.dumps({"labels": []})])
def test_a_batch_of_another_kind_is_corrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    batches(tmp_path, monkeypatch, lambda images, labels: content)
    with pytest.raises(DataCorruptError, match=r"data_batch_1' cannot be read"):
        make("cifar10").decode(tmp_path)


def test_the_published_md5s_are_torchvision_s() -> None:
    from torchvision.datasets import CIFAR10

    assert dict([*CIFAR10.train_list, *CIFAR10.test_list]) == cifar10.MD5
    assert CIFAR10.base_folder == cifar10.BATCHES


def test_missing_cifar_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make("cifar10")
    for root in (None, tmp_path):
        with pytest.raises(
            DataMissingError, match=r"--data DIR where DIR holds cifar-10-batches-py/ .*https://.*jpeg"
        ) as e:
            data.protocol(root)
        assert "\n" not in str(e.value)
    batches(tmp_path, monkeypatch)
    (tmp_path / cifar10.BATCHES / "data_batch_3").unlink()
    with pytest.raises(DataMissingError, match=r"data_batch_3' is missing"):
        data.decode(tmp_path)
    assert data.classes(None) == cifar10.NAMES


def jpeg_tree(per_class: dict[str, int]) -> dict[str, bytes]:
    names = [f"{part}/{k}/{i:04}.jpg" for part, n in per_class.items() for k in cifar10.NAMES for i in range(n)]
    return {name: picture(i, (32, 32), kind="JPEG") for i, name in enumerate(names)}


def test_the_jpeg_copy_is_read_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar10, "PER_CLASS", {0: 4, 1: 2})
    (tmp_path / "cifar10").mkdir()
    files = jpeg_tree({"train": 4, "test": 2})
    path = write(tmp_path / cifar10.JPEG, files)
    data = make("cifar10", train=20, query=10, trusted=10, database=5)
    assert data.protocol(tmp_path) == ("CIFAR10-jpeg", None)
    pool = data.decode(tmp_path)
    assert pool.images.shape == (60, 3, 32, 32)
    assert pool.origin.tolist() == [1] * 20 + [0] * 40  # ordered by name
    assert abs(int(pool.images[0, 0, 0, 0]) - 40) <= 2  # test/airplane/0000 was written forty-first
    assert pool.images[20, 0].max() <= 2
    parts = data.splits(pool.labels, pool.origin, Rng("c"))
    check(parts, 60)
    assert (pool.origin[parts["query"]] == 1).all()
    assert len(parts["database"]) == 5
    with pytest.raises(UserError, match=r"query = 30 images asked, but \d+ of the 60"):
        make("cifar10", train=5, query=30, trusted=5).splits(pool.labels, pool.origin, Rng("c"))
    files.popitem()
    write(path, files)
    with pytest.raises(DataCorruptError, match=r"jpeg\.tar\.xz' holds 59 images of 10 classes, not CIFAR-10's 4 \+ 2"):
        data.decode(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataCorruptError, match=r"jpeg\.tar\.xz'.* cannot be read"):
        data.decode(tmp_path)


@needs_archive
@pytest.mark.archive
def test_the_real_archive() -> None:
    data = make("cifar10")
    pool = data.decode(DATA)
    assert pool.images.shape == (60000, 3, 32, 32)
    for part, per_class in cifar10.PER_CLASS.items():
        assert pool.labels[pool.origin == part].sum(0).tolist() == [per_class] * 10
    seen = dict.fromkeys((0, 1), 0)
    with tarfile.open(ARCHIVE) as tar:  # an independent reading of some images
        for member in tar:
            part, kind, number = member.name.split("/")
            if (part, kind) == ("train", "cat"):
                break
            if int(number[:4]) % 997:
                continue
            origin, label = int(part == "test"), cifar10.NAMES.index(kind)
            rows = torch.nonzero((pool.origin == origin) & pool.labels[:, label]).flatten()
            file = tar.extractfile(member)
            assert file is not None
            pixels = np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB"))
            assert np.array_equal(pool.images[rows[int(number[:4])]].permute(1, 2, 0).numpy(), pixels), member.name
            seen[origin] += 1
    assert seen == {0: 18, 1: 20}
    rng = Rng("split", "cifar10", 0)
    parts = data.splits(pool.labels, pool.origin, rng)
    check(parts, 60000)
    assert len(torch.cat(list(parts.values()))) == 60000
    assert {name: len(part) for name, part in parts.items()} == {
        "train": 5000, "query": 1000, "trusted": 500, "public": 10, "database": 53490,
    }  # fmt: skip
    assert all((pool.labels[part].sum(0) == len(part) // 10).all() for part in parts.values())
    small = make("cifar10", database=30000).splits(pool.labels, pool.origin, rng)
    assert len(small["database"]) == 30000
    assert all(torch.equal(small[name], parts[name]) for name in ("train", "query", "trusted", "public"))


def test_every_data_set_is_found_by_name() -> None:
    assert {"cifar10", "digits", "folder", "shapes", "voc_animals"} <= set(catalogue("datasets"))
