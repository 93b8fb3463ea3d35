# ruff: noqa: E501 -- tables of hostile files read better in few lines
"""Small files that ask for much: memory, time, disk. They are refused by name, in little time and memory."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.api.archives import Limits, walk
from bench.api.errors import DataCorruptError, UserError
from bench.config import suite
from hashing import weight_files
from hashing.datasets.folder import Folder
from hashing.datasets.lists import ListsOfImages
from hashing.image_decoding import decode_image
from reports import code_files, code_formats, score


def pace() -> float:
    """CPU seconds that a million steps of a loop take on this machine at this moment."""
    started, total = time.process_time(), 0
    for number in range(10**6):
        total += number
    assert total
    return time.process_time() - started


@contextmanager
def cheaply(millions: float = 300, nbytes: int = 2**26) -> Iterator[None]:
    """Fails if the block takes more CPU time than so many million steps of a loop, or more than nbytes of memory."""
    limit = millions * pace()
    started = time.process_time()
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < nbytes
    finally:
        tracemalloc.stop()
    assert time.process_time() - started < limit


def names(path: Path) -> tuple[str, ...]:
    """The classes of a tree of images: every name is read, and no image."""
    return Folder(path=str(path)).classes(None)


def read_all(path: Path) -> None:
    """Every image of a tree, decoded."""
    Folder(path=str(path), size=8).decode(None)


def header(size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo("cat/1.jpg")
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


# Archives


@pytest.mark.parametrize("size", [2**33, 2**60, -(2**40), -512])
def test_a_member_of_exabytes_or_less_than_nothing_ends_at_once(tmp_path: Path, size: int) -> None:
    (tmp_path / "t.tar").write_bytes(header(max(size, 0)))
    if size < 0:
        raw = bytearray(header(0))
        raw[124:136] = b"\xff" + (2**88 + size).to_bytes(11, "big")
        raw[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(raw))[0]
        (tmp_path / "t.tar").write_bytes(bytes(raw) + bytes(10240))
    with cheaply(), pytest.raises(DataCorruptError, match=r"t\.tar"):
        names(tmp_path / "t.tar")


def test_files_full_of_holes_are_refused(tmp_path: Path) -> None:
    info = bytearray(header(512, tarfile.GNUTYPE_SPARSE))
    info[386:410] = b"%011o\0%011o\0" % (0, 512)
    info[483:495] = b"%011o\0" % 2**25
    info[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(info))[0]
    (tmp_path / "t.tar").write_bytes(bytes(info) + bytes(512) + bytes(10240))
    with cheaply(), pytest.raises(DataCorruptError, match="holes"):
        names(tmp_path / "t.tar")


@pytest.mark.long
@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_ways_of_packing_that_unpack_without_a_bound_are_refused(tmp_path: Path, kind: int) -> None:
    with zipfile.ZipFile(tmp_path / "t.zip", "w", kind) as archive:
        archive.writestr("cat/1.jpg", bytes(2**27))
        archive.writestr("dog/1.jpg", small("JPEG"))
    assert (tmp_path / "t.zip").stat().st_size < 2**16
    path = tmp_path / "t.zip"
    path.write_bytes(path.read_bytes().replace((2**27).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with cheaply(), pytest.raises(DataCorruptError, match="deflate"):
        read_all(path)


def test_a_member_that_understates_its_size_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "t.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cat/1.jpg", bytes(2**28))
        archive.writestr("dog/1.jpg", small("JPEG"))
    path.write_bytes(path.read_bytes().replace((2**28).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with cheaply(), pytest.raises(DataCorruptError, match="cat/1"):
        read_all(path)


@pytest.mark.parametrize("form", ["zip", "tar", "folder"])
def test_members_are_counted(tmp_path: Path, form: str) -> None:
    members = [f"{('cat', 'dog')[number % 2]}/{number}.jpg" for number in range(30)]
    path = tmp_path / ("f" if form == "folder" else f"t.{form}")
    if form == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in members:
                archive.writestr(name, b"")
    elif form == "tar":
        with tarfile.open(path, "w") as tar:
            for name in members:
                tar.addfile(tarfile.TarInfo(name))
    else:
        for name in members:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).touch()
    assert names(path) == ("cat", "dog")
    with pytest.raises(DataCorruptError, match="29"):
        list(walk(path, Limits(count=29)))


@pytest.mark.parametrize("name", ["cat/\x1b[31m.jpg", "\u202egnp.exe/1.jpg", b"c\xe4t/1.jpg"])
def test_names_that_steer_a_terminal_or_are_no_text_are_refused(tmp_path: Path, name: str | bytes) -> None:
    text = os.fsdecode(name)
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo(text))
    (tmp_path / "f" / text).parent.mkdir(parents=True)
    (tmp_path / "f" / text).touch()
    for path in (tmp_path / "t.tar", tmp_path / "f"):
        with pytest.raises(DataCorruptError, match="UTF-8") as caught:
            names(path)
        str(caught.value).encode()
        assert "\x1b" not in str(caught.value)


def test_a_pipe_in_the_place_of_an_archive_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "t.tar")
    with pytest.raises(UserError, match="pipe"):
        names(tmp_path / "t.tar")


# Images


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")


def small(form: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (50, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer := io.BytesIO(), form)
    return buffer.getvalue()


HUGE = {
    "PNG": png(60_000, 60_000),
    "PPM": b"P6 60000 60000 255\n" + bytes(99),
    "BMP": small("BMP")[:18] + struct.pack("<ii", 60_000, 60_000) + small("BMP")[26:],
    "JPEG": small("JPEG").replace(struct.pack(">HH", 50, 40), struct.pack(">HH", 60_000, 60_000)),
    "TIFF": small("TIFF").replace(struct.pack("<HHII", 256, 4, 1, 40), struct.pack("<HHII", 256, 4, 1, 2**30)),
}


@pytest.mark.parametrize("form", HUGE)
def test_pictures_that_claim_billions_of_pixels_are_named(form: str) -> None:
    with cheaply(), pytest.raises(DataCorruptError, match=r"pixels|bomb"):
        decode_image(HUGE[form], 8, "it")


def test_our_own_limit_is_below_pillows() -> None:
    with cheaply(), pytest.raises(DataCorruptError, match="67108864"):
        decode_image(png(9000, 9000), 8, "it")


@pytest.mark.parametrize("form", ["PNG", "PPM", "BMP", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_pictures_that_are_cut_off_are_named(form: str, share: float) -> None:
    content = small(form)
    assert decode_image(content, 8, "it").shape == (3, 8, 8)
    with pytest.raises(DataCorruptError):
        decode_image(content[: int(len(content) * share)], 8, "it")


# Lists, codes, weights, suites


def test_as_many_classes_as_images_make_no_table(tmp_path: Path) -> None:
    lines = "".join(f"{n}.jpg {n}\n" for n in range(60_000))
    for name in ("train", "database"):
        (tmp_path / f"{name}.txt").write_text(lines)
    (tmp_path / "test.txt").write_text("q.jpg 1\n")
    with pytest.raises(DataCorruptError, match="60000 classes"):
        ListsOfImages(path=str(tmp_path)).classes(None)


def npz(path: Path, kind: str, shape: str, packing: int = zipfile.ZIP_DEFLATED, mebibytes: int = 1) -> Path:
    """A file whose arrays hold so many mebibytes of zeros, whatever shape they claim."""
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    with zipfile.ZipFile(path, "w", packing, compresslevel=1) as archive:
        for name in ("codes", "labels"):
            with archive.open(f"{name}.npy", "w") as file:
                file.write(b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head)
                for _ in range(mebibytes):
                    file.write(bytes(2**20))
    return path


@pytest.mark.parametrize(("kind", "rows"), [("<f8", 4 * 10**9), ("|b1", 10**8), ("<U1000000", 4 * 10**9)])
def test_an_array_that_claims_gigabytes_is_not_made(tmp_path: Path, kind: str, rows: int) -> None:
    with cheaply(), pytest.raises(UserError, match="claims"):
        code_files.read(npz(tmp_path / "c.npz", kind, f"({rows}, 8)"))


@pytest.mark.long
def test_codes_packed_without_a_bound_or_beyond_it_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="deflate"):
        code_files.read(npz(tmp_path / "c.npz", "<f8", "(2, 4)", zipfile.ZIP_BZIP2))
    path = npz(tmp_path / "c.npz", "|i1", "(1080000000, 1)", mebibytes=1030)
    assert path.stat().st_size < 2**24
    with cheaply(), pytest.raises(UserError, match="limit"):
        code_files.read(path)


def test_a_lone_array_that_claims_gigabytes_is_not_made(tmp_path: Path) -> None:
    head = b"{'descr': '<f8', 'fortran_order': False, 'shape': (4000000000, 8), }"
    (tmp_path / "code.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head)
    np.save(tmp_path / "label.npy", np.zeros(3))
    with cheaply(), pytest.raises(UserError, match="claims"):
        code_files.read(tmp_path / "code.npy")


def sparse() -> torch.Tensor:
    with torch.sparse.check_sparse_tensor_invariants():  # some versions of torch warn without it
        return torch.sparse_coo_tensor(torch.zeros(2, 1), torch.ones(1), (4 * 10**9, 8))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: torch.zeros(1).expand(4 * 10**9, 8), "claims"),
        (lambda: torch.zeros(1).as_strided((10**5, 10**5), (0, 0)), "claims"),
        (sparse, "no dense tensor|more than tensors"),
        (lambda: torch.empty((4 * 10**9, 8), device="meta"), "no dense tensor"),
        (lambda: torch.zeros(3, 8, dtype=torch.complex64), "complex64"),
    ],
)
def test_a_tensor_is_no_larger_than_its_file(tmp_path: Path, make: Callable[[], torch.Tensor], words: str) -> None:
    torch.save({"codes": make(), "labels": torch.zeros(3)}, tmp_path / "c.pt")
    with cheaply(), pytest.raises(UserError, match=words):
        code_files.read(tmp_path / "c.pt")


def test_codes_of_torch_that_are_compressed_are_not_unpacked(tmp_path: Path) -> None:
    torch.save({"codes": torch.zeros(10**6, 8), "labels": torch.zeros(10**6)}, tmp_path / "c.pt")
    with (
        zipfile.ZipFile(tmp_path / "c.pt") as good,
        zipfile.ZipFile(tmp_path / "d.pt", "w", zipfile.ZIP_DEFLATED) as bad,
    ):
        for member in good.infolist():
            bad.writestr(member.filename, good.read(member))
    with cheaply(), pytest.raises(UserError, match="compressed"):
        code_files.read(tmp_path / "d.pt")


def matlab(path: Path, rows: int, kind: int = 6, *, compressed: bool = False) -> Path:
    """A MATLAB file whose variable `codes` of this class claims rows x 8 numbers and has none."""
    name = struct.pack("<II8s", 1, 5, b"codes")
    body = struct.pack("<IIII", 6, 8, kind, 0) + struct.pack("<IIii", 5, 8, rows, 8) + name
    body += struct.pack("<II", 9, 0)
    element = struct.pack("<II", 14, len(body)) + body
    if compressed:
        packed = zlib.compress(element + bytes(2**25))
        element = struct.pack("<II", 15, len(packed)) + packed
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + element)
    return path


@pytest.mark.parametrize("rows", [10**6, 2 * 10**9])
@pytest.mark.parametrize(("kind", "words"), [(6, "claims"), (9, "claims"), (4, "no array"), (5, "no array")])
def test_a_matlab_array_is_no_larger_than_its_file(tmp_path: Path, kind: int, words: str, rows: int) -> None:
    """Numbers, and as well the texts and sparse matrices that a file of some bytes can blow up."""
    path = matlab(tmp_path / "c.mat", rows, kind)
    content = path.read_bytes()
    path.write_bytes(content + content[128:].replace(b"codes\0\0\0", b"label\0\0\0"))
    with cheaply(), pytest.raises(UserError, match=words):
        code_files.read(path)


def test_a_matlab_file_is_unpacked_to_the_limit_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_formats, "FLOOR", 2**20)
    path = matlab(tmp_path / "c.mat", 3, compressed=True)
    assert path.stat().st_size * code_formats.RATIO < 2**25
    with cheaply(nbytes=2**24), pytest.raises(UserError, match="limit"):
        code_files.read(path)


def test_every_item_its_own_class_is_no_table(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    np.savez(path, codes=np.ones((60_000, 1), np.int8), labels=np.arange(60_000))
    with cheaply(900, 2**28), pytest.raises(UserError, match="classes"):
        score.score(path, path)


def test_weights_that_are_compressed_are_not_unpacked(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(10)}, tmp_path / "good.pth")
    with (
        zipfile.ZipFile(tmp_path / "good.pth") as good,
        zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED) as bad,
    ):
        for member in good.infolist():
            bad.writestr(member.filename, good.read(member))
    assert list(weight_files.read_weights(tmp_path / "good.pth")) == ["a"]
    with pytest.raises(DataCorruptError, match="compressed"):
        weight_files.read_weights(tmp_path / "w.pth")


SUITES = {
    "nested": ("a = " + "[" * 100_000, "nested"),
    "cells": (f"[axes]\nseeds = {list(range(2000))}\nbits = {list(range(1, 2000))}", "998,000|996,000"),
    "sweep": (f"[axes]\nattacks = [{{ name = 'badnets', a = {list(range(2000))}, b = {list(range(2000))} }}]", "4,000,000"),
    "digits": ("seeds = [" + "9" * 9000 + "]", "TOML"),
    "integer": ("[axes]\nseeds = [0x" + "f" * 9000 + "]", "64 bits"),
    "nan": ("[training]\nlr = nan", "nan"),
    "date": ("[training]\nlr = 1979-05-27", "date"),
    "value": ("[axes]\nbits = ['" + "x" * 100_000 + "']", r"\.\.\.: must be"),
}  # fmt: skip


@pytest.mark.parametrize("name", SUITES)
def test_suites_that_ask_for_too_much_are_named(tmp_path: Path, name: str) -> None:
    text, words = SUITES[name]
    (tmp_path / "s.toml").write_text(text)
    with cheaply(), pytest.raises(UserError, match=words) as caught:
        suite.load(str(tmp_path / "s.toml"))
    assert len(str(caught.value)) < 1000
