"""CIFAR-10: the published batches, the JPEG copy and the three protocols."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bench.api.errors import DataCorruptError, DataMissingError, UserError
from bench.api.random import Rng
from bench.api.registry import create
from bench.stages.split import check as check_splits
from hashing.datasets import cifar10
from tests.hashing.conftest import check, make, picture, same, write

DATA = Path(os.environ.get("HASHDOOR_DATA") or Path(__file__).parents[2].parent / "shared" / "data")
ARCHIVE = DATA / "cifar10" / "cifar10-jpeg.tar.xz"
needs_archive = pytest.mark.skipif(not ARCHIVE.is_file(), reason=f"{ARCHIVE} is not there; set HASHDOOR_DATA")


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


@pytest.fixture
def small_jpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the JPEG copy belongs; it counts as whole with 4 + 2 images per class."""
    monkeypatch.setattr(cifar10, "PER_CLASS", {0: 4, 1: 2})
    (tmp_path / "cifar10").mkdir()
    return tmp_path / cifar10.JPEG


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
def test_cifar_can_be_enlarged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_jpeg: Path, form: str) -> None:
    """Bilinear, as Pillow does it; labels and cut are those of 32 x 32 pixels."""
    if form == "batches":
        batches(tmp_path, monkeypatch)
    else:
        noisy = io.BytesIO()
        Image.fromarray(np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(noisy, "JPEG")
        write(small_jpeg, jpeg_tree({"train": 4, "test": 2}) | {"train/bird/0001.jpg": noisy.getvalue()})
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
    with pytest.raises(DataCorruptError, match="data_batch_1" if known else "data_batch_1.*md5"):
        make("cifar10").decode(tmp_path)
    assert not (tmp_path / "x").exists()
    if not known:
        pickle.loads((tmp_path / cifar10.BATCHES / "data_batch_1").read_bytes())
        assert (tmp_path / "x").exists()  # the trap is a real one


@pytest.mark.parametrize("content", [b"", b"\x80\x04.", pickle.dumps([1]), pickle.dumps({"labels": []})])
def test_a_batch_of_another_kind_is_corrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    batches(tmp_path, monkeypatch, lambda images, labels: content)
    with pytest.raises(DataCorruptError, match="data_batch_1"):
        make("cifar10").decode(tmp_path)


def test_the_published_md5s_are_torchvision_s() -> None:
    from torchvision.datasets import CIFAR10

    assert dict([*CIFAR10.train_list, *CIFAR10.test_list]) == cifar10.MD5
    assert CIFAR10.base_folder == cifar10.BATCHES


def test_missing_cifar_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make("cifar10")
    for root in (None, tmp_path):
        with pytest.raises(DataMissingError, match=r"--data DIR.*cifar-10-batches-py/ .*https://.*jpeg") as e:
            data.protocol(root)
        assert "\n" not in str(e.value)
    batches(tmp_path, monkeypatch)
    (tmp_path / cifar10.BATCHES / "data_batch_3").unlink()
    with pytest.raises(DataMissingError, match="data_batch_3"):
        data.decode(tmp_path)
    assert data.classes(None) == cifar10.NAMES


def jpeg_tree(per_class: dict[str, int]) -> dict[str, bytes]:
    names = [f"{part}/{k}/{i:04}.jpg" for part, n in per_class.items() for k in cifar10.NAMES for i in range(n)]
    return {name: picture(i, (32, 32), kind="JPEG") for i, name in enumerate(names)}


def test_the_jpeg_copy_is_read_and_counted(tmp_path: Path, small_jpeg: Path) -> None:
    files = jpeg_tree({"train": 4, "test": 2})
    path = write(small_jpeg, files)
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
    with pytest.raises(UserError, match=r"query = 30 .*60"):
        make("cifar10", train=5, query=30, trusted=5).splits(pool.labels, pool.origin, Rng("c"))
    files.popitem()
    write(path, files)
    with pytest.raises(DataCorruptError, match=r"jpeg\.tar\.xz.*\b59\b.*4 \+ 2"):
        data.decode(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataCorruptError, match=r"jpeg\.tar\.xz"):
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
        "train": 5000, "query": 1000, "trusted": 500, "public": 50, "database": 53450,
    }  # fmt: skip
    assert all((pool.labels[part].sum(0) == len(part) // 10).all() for part in parts.values())
    small = make("cifar10", database=30000).splits(pool.labels, pool.origin, rng)
    assert len(small["database"]) == 30000
    assert all(torch.equal(small[name], parts[name]) for name in ("train", "query", "trusted", "public"))


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
        check_splits(parts[split], 60000, data)
    plain = create("datasets", "cifar10", {})
    assert plain.overlaps == frozenset()
    zero = plain.splits(labels, origin, Rng("split", "cifar10", 1))
    assert all(torch.equal(zero[name], parts["0"][name]) for name in zero)
    assert {s: {name: len(ids) for name, ids in part.items()} for s, part in parts.items()} == {
        "0": {"public": 50, "query": 1000, "trusted": 500, "train": 5000, "database": 53450},
        "1": {"public": 50, "query": 1000, "trusted": 500, "train": 5000, "database": 58450},
        "2": {"public": 50, "query": 10000, "trusted": 500, "train": 49450, "database": 49450},
    }
    assert all(torch.equal(parts["0"][name], parts["1"][name]) for name in ("public", "query", "trusted", "train"))
    assert torch.equal(parts["1"]["database"], torch.cat([parts["0"]["database"], parts["0"]["train"]]).sort().values)
    assert torch.equal(parts["2"]["query"], torch.arange(50000, 60000))
    assert torch.equal(parts["2"]["train"], parts["2"]["database"])
    with pytest.raises(UserError, match=r"'train'.*'database'.*5000"):
        check_splits(parts["1"], 60000, plain)


def test_cifar_sizes_that_are_given_count() -> None:
    two = create("datasets", "cifar10", {"split": "2", "train": 5000, "trusted": 1000})
    assert (two.train, two.query, two.trusted) == (5000, 10000, 1000)
    assert create("datasets", "cifar10", {"split": "2", "trusted": 1000}).train == 48950
    with pytest.raises(UserError, match="split"):
        create("datasets", "cifar10", {"split": "3"})


@pytest.mark.parametrize(("split", "batches", "jpeg"), [
    ("0", "CIFAR10-0", "CIFAR10-jpeg"), ("1", "CIFAR10-1", "CIFAR10-jpeg-1"), ("2", "CIFAR10-2", "CIFAR10-jpeg-2"),
])  # fmt: skip
def test_cifar_names(split: str, batches: str, jpeg: str, tmp_path: Path) -> None:
    data = create("datasets", "cifar10", {"split": split})
    (tmp_path / "cifar10").mkdir()
    (tmp_path / cifar10.JPEG).touch()
    assert data.protocol(tmp_path) == (jpeg, None)
    (tmp_path / cifar10.BATCHES).mkdir()
    for name in cifar10.MD5:
        (tmp_path / cifar10.BATCHES / name).touch()
    assert data.protocol(tmp_path) == (batches, None)
