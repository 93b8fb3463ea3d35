# ruff: noqa: E501 -- tables of nasty values read better in few lines
"""Inputs near to valid ones: valid files with values, lines, members or bytes changed, and bytes of no kind at all."""

from __future__ import annotations

import copy
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from tests.fuzz import targets
from tests.fuzz.targets import ENDINGS, PARTS

NASTY = (
    "\x1b]0;x\x07", "<script>alert(1)</script>", "../../../etc/passwd", "\u202egnp", "$\\frac$", "a" * 3000, "", "none",
    "[/x]", "=cmd()", "\x00", "NaN", "'", '"', "nüsse", "\u2028",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1, 10**30, -(2**63), 4097, 0.5, -1.5, 1e308, [], {}, [[]], {"": {}}, [1, "a", None],
    {"name": "x", "params": {}}, {"params": 1}, *NASTY,
)  # fmt: skip


def changed_json(rng: Random, *valid: Any) -> bytes:
    """The documents with up to four values replaced, removed, added or moved; then, seldom, bytes changed."""
    documents = copy.deepcopy(list(valid))
    for _ in range(rng.randint(0, 4)):
        holder, key = rng.choice(list(_places(documents)))
        act = rng.choice(("set", "set", "set", "drop", "key", "swap"))
        if act == "drop":
            del holder[key]
        elif act == "key" and isinstance(holder, dict):
            holder[rng.choice(NASTY)] = holder.pop(key)
        elif act == "swap":
            holder[key] = copy.deepcopy(rng.choice([at[name] for at, name in _places(documents)]))
        else:
            holder[key] = copy.deepcopy(rng.choice((*VALUES, rng.uniform(-9, 9), _text(rng))))
        if len(documents) < len(valid) or not documents:
            documents = copy.deepcopy(list(valid))
    found = PARTS.join(json.dumps(document).encode() for document in documents)
    return _bytes_changed(rng, found) if rng.randint(0, 9) == 9 else found


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in list(items):
        yield document, key
        if isinstance(value, dict | list):
            yield from _places(value)


def _bytes_changed(rng: Random, valid: bytes) -> bytes:
    """A few bytes flipped, cut out, put in or repeated."""
    content = bytearray(valid)
    for _ in range(rng.randint(1, 4)):
        place = rng.randint(0, max(len(content) - 1, 0))
        act = rng.choice(("flip", "put", "cut", "repeat", "end", "number"))
        if act == "flip" and content:
            content[place] = rng.randint(0, 255)
        elif act == "put":
            content[place:place] = _bytes(rng, 12)
        elif act == "cut":
            del content[place : place + rng.randint(1, 40)]
        elif act == "repeat":
            content[place:place] = content[place : place + rng.randint(1, 600)]
        elif act == "number":
            content[place : place + 4] = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f"))
        else:
            del content[place:]
    return bytes(content)


def near(rng: Random, *valid: bytes) -> bytes:
    """Around valid files, and now and then anything."""
    return _bytes_changed(rng, rng.choice(valid))


def _bytes(rng: Random, most: int) -> bytes:
    return rng.randbytes(rng.randint(0, most))


def _text(rng: Random) -> str:
    return "".join(chr(rng.choice((rng.randint(32, 126), rng.randint(0, 0xD7FF)))) for _ in range(rng.randint(0, 12)))


# Suites and lists

SUITE = """\
name = "s"
description = "x"
[resources]
threads = 1
timeout = 7200.0
[axes]
datasets = ["digits", { name = "shapes", size = 16 }]
backbones = [{ name = "convnet", width = [4, 8] }]
attacks = ["none", { name = "badnets", poison_rate = [0.1, 0.2] }]
defenses = "all"
bits = [16, 32]
targets = [0, "1", [0, 1]]
seeds = [0, 1]
surrogate = ["other_seed", "bits=16"]
[training]
lr = 1e-2
[parameters.attacks.blend]
poisons = 4
[[exclude]]
attack = "none"
bits = [16]
[[blocks]]
axes.bits = [8]
[blocks.training]
epochs = 1
[[reported]]
source = "A paper"
kind = "order"
metric = "t_map"
by = ["attack", "bits"]
values = { badnets = { 16 = 0.5 } }
"""
WORDS = (
    "nan", "inf", "-1", "1_000", "0x" + "f" * 40, "9" * 5000, "1979-05-27", '"all"', "[]", "{}", "true", '"\\u0000"', "[[[[",
    '{ name = "badnets" }', '{ name = "folder", path = "/" }', '{ name = "../x" }', '"' + "a" * 500 + '"', '["none"]',
    "[0, [0, [0]]]", '"\\u001b[31m"', "{ name = [1] }", "[9223372036854775808]", "[1.5]", "{ name = 3, x = {} }",
    "[" + "1, " * 2000 + "]", "[" * 3000,
)  # fmt: skip
CHANGES = (
    "bits=16",
    "attacks=all",
    "training.lr=nan",
    "axes=1",
    "bits",
    "resources.threads=x",
    "seeds=[1",
    "bits=,",
    "=",
)


def suites(rng: Random) -> bytes:
    lines = SUITE.splitlines()
    for _ in range(rng.randint(0, 4)):
        place = rng.randint(0, len(lines) - 1)
        act = rng.choice(("value", "value", "value", "drop", "copy", "key", "junk"))
        left, equals, _ = lines[place].partition("=")
        if act == "value" and equals:
            lines[place] = f"{left}= {rng.choice(WORDS)}"
        elif act == "key" and equals:
            lines[place] = lines[place].replace(left, rng.choice(("blocks ", "axes ", "x ", "a.b ", '"" ')), 1)
        elif act == "drop" and len(lines) > 1:
            del lines[place]
        elif act == "copy":
            lines.insert(rng.randint(0, len(lines)), lines[place])
        else:
            lines.insert(place, _text(rng))
    text = "\n".join(lines).encode(errors="replace")
    text = _bytes_changed(rng, text) if rng.randint(0, 9) == 9 else text
    changes = [change.encode() for change in rng.choices(CHANGES, k=rng.choice((0, 0, 1, 2)))]
    return PARTS.join([text, *changes])


LISTS = (b"a.jpg 1 0\nb.jpg 0 1\n", b"q.jpg 1 1\n", b"d.jpg 0 0\na.jpg 1 0\n", b"cat\ndog\n")
NUMBERED = (b"a.jpg 0\nb.jpg 1\n", b"q.jpg 1\n", b"d.jpg 2\na.jpg 0\n", b"cat\ndog\neel\n")
ENTRIES = (
    b"a.jpg 1 0", b"../a.jpg 1 0", b"a.jpg", b"", b"/a 1 0", b"\xff 1 0", b"a.jpg 2 0", b"c.jpg 999999", b"./ 1 0", b"C:a 1 0",
    b"\x1b[31m 1 0", b"x\x00 1 0", b"e.jpg 1 0 1", b"\xef\xbb\xbfa.jpg 1 0", "bild \u2028 1 0".encode(), b"n.jpg -1", b"a\\b 1 0",
)  # fmt: skip


def lists(rng: Random) -> bytes:
    files = [part.split(b"\n") for part in rng.choice((LISTS, NUMBERED))]
    for _ in range(rng.randint(0, 4)):
        lines = rng.choice(files)
        entry = rng.choice((*ENTRIES, _bytes(rng, 20)))
        place = rng.randint(0, len(lines))
        lines[place : place + rng.randint(0, 1)] = [entry]
    return PARTS.join(b"\n".join(lines) for lines in files)


# Archives, images, codes, weights

NAMES = ("cat/1.jpg", "dog/1.jpg", "../x.jpg", "/etc/x", "cat/.x", "a" * 300, "cat/\x1b[31m.jpg", "cat/1.jpg/", "./cat/2.jpg", "C:\\x",
         "cat\\3.jpg", "cat/\u202e.jpg", "__MACOSX/a", "", ".", "cat")  # fmt: skip
TYPES = (
    b"0",
    b"0",
    b"0",
    b"0",
    b"5",
    b"1",
    b"2",
    b"3",
    b"4",
    b"6",
    b"7",
    b"S",
    b"L",
    b"K",
    b"x",
    b"g",
    b"X",
    b"Z",
    b"\0",
    b"D",
    b"V",
)
SIZES = (None, None, None, 0, 1, 511, 512, 513, 2**20, 2**33)


def archives(rng: Random) -> bytes:
    kind = rng.randint(0, len(ENDINGS) - 1)
    members = [(rng.choice(NAMES), _bytes(rng, 600)) for _ in range(rng.randint(0, 4))]
    content = _zip(rng, members) if ENDINGS[kind] == "zip" else _tar(rng, members)
    if rng.randint(0, 2) == 2:
        content = _bytes_changed(rng, content)
    if ENDINGS[kind].endswith("gz"):
        content = gzip.compress(content, 1, mtime=0)
    elif ENDINGS[kind].endswith("xz"):
        content = lzma.compress(content, preset=0)
    if rng.randint(0, 5) == 5:
        content = _bytes_changed(rng, content)
    return bytes([kind]) + content


def _tar(rng: Random, members: list[tuple[str, bytes]]) -> bytes:
    out = bytearray()
    for name, given in members:
        content = given
        info = tarfile.TarInfo(name[:99])
        info.type = rng.choice(TYPES)
        size = rng.choice(SIZES)
        info.size = len(content) if size is None else size
        info.linkname = rng.choice(("", "cat/1.jpg", "/etc/passwd"))
        head = bytearray(info.tobuf(tarfile.GNU_FORMAT, errors="surrogateescape"))
        if rng.randint(0, 6) == 6:  # a number below nothing, with a checksum that holds
            head[124:136] = b"\xff" * 8 + rng.choice((b"\xff\xff\xfe\x00", b"\xff\xff\xff\xff", b"\x00" * 4))
            head[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(head))[0]
        if info.type in {b"x", b"g", b"X"}:
            content = rng.choice((b"", b"12 path=xyz\n", b"0 path=\n", b"30 GNU.sparse.major=1\n", b"20 size=99999999\n",
                                            b"22 GNU.sparse.size=9\n22 GNU.sparse.map=0,9\n"))  # fmt: skip
            info.size = len(content)
            head = bytearray(info.tobuf(tarfile.GNU_FORMAT))
        out += head + content + bytes(-len(content) % 512)
    return bytes(out) + bytes(rng.choice((0, 512, 1024, 10240)))


def _zip(rng: Random, members: list[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name or "x")
            info.compress_type = rng.choice((0, 8, 8, 12, 14))
            info.external_attr = rng.choice((0, 0o120777, 0o40755, 0o20644)) << 16
            if name not in archive.NameToInfo and info.filename not in archive.NameToInfo:
                archive.writestr(info, content)
    return buffer.getvalue()


@cache
def pictures() -> tuple[bytes, ...]:
    found = []
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 11, 3), dtype=np.uint8))
    for form in ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM"):
        image.save(buffer := io.BytesIO(), form)
        found.append(buffer.getvalue())
    image.convert("P").save(buffer := io.BytesIO(), "PNG")
    return (*found, buffer.getvalue())


@cache
def code_files() -> tuple[bytes, ...]:
    import pyarrow as pa
    import pyarrow.parquet as pq
    import safetensors.numpy
    import scipy.io
    import torch

    found = []
    codes = np.sign(np.random.default_rng(0).normal(size=(6, 8)))
    hot = np.eye(6, 3, dtype=bool)
    for labels in (np.arange(6), np.array(list("abcabc")), hot, np.array([None] * 6, object), np.arange(6) * 1e300):
        for save in (np.savez, np.savez_compressed):
            save(buffer := io.BytesIO(), codes=codes, labels=labels)
            found.append(buffer.getvalue())
    np.save(buffer := io.BytesIO(), codes)
    found.append(buffer.getvalue())
    arrays = {"codes": codes, "labels": np.arange(6)}
    found.append(safetensors.numpy.save(arrays))
    for labels in (arrays["labels"], [*"abcabc"], [*hot]):
        pq.write_table(pa.table({"codes": [*codes], "labels": labels}), buffer := io.BytesIO())
        found.append(buffer.getvalue())
    for options in ({}, {"do_compression": True}):
        scipy.io.savemat(buffer := io.BytesIO(), arrays, **options)
        found.append(buffer.getvalue())
    torch.save({name: torch.tensor(array) for name, array in arrays.items()}, buffer := io.BytesIO())
    return (*found, buffer.getvalue())


def codes(rng: Random) -> bytes:
    """Arrays whose header says anything, in a zip that is whole."""
    if rng.random() < 0.5:
        return near(rng, *code_files())
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("codes", "labels"):
            kind = rng.choice(
                ("<f8", "<i8", "|b1", "|u1", "<U3", "|O", "<U0", "<c16", "<M8[s]", "<f2", "<u8", "|V3", "<U999999")
            )
            shape = rng.choice(
                ("(2, 4)", "(2,)", "()", "(10**9, 64)", "(1000000000, 64)", "(0, 4)", "(-1, 4)", "(2, 0)", "(8,)")
            )
            head = f"{{'descr': '{kind}', 'fortran_order': {rng.random() < 0.5}, 'shape': {shape}, }}"
            head = rng.choice((head, head, head, head[:-3], "__import__('os')", "[" * 900))
            size = len(head).to_bytes(2, "little")
            archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + size + head.encode() + _bytes(rng, 64) * 2)
    return buffer.getvalue()


def poisons(rng: Random) -> bytes:
    """The number of a kind of index (CSV, JSON, numpy), and what is near a valid one."""
    kind = rng.randint(0, 2)
    if kind == 1:
        rows: list[dict[str, Any]] = [
            {"file": "a.png", "item": 4, "label": "cat"},
            {"file": "b.png", "item": "c/d.jpg"},
        ]
        return b"\1" + changed_json(rng, rows)
    if kind == 0:
        return b"\0" + near(rng, b"file,item,label\na.png,4,cat\nb.png,5,0+1\n", b"item,file\r\n1,b.png\r\n2,a.png")
    np.save(buffer := io.BytesIO(), rng.choice(([4, 5], [[4, 0], [5, 1]], [[4.0, 1.0]], [[{}], [1]])))
    return b"\2" + near(rng, buffer.getvalue())


@cache
def weight_files() -> tuple[bytes, ...]:
    import safetensors.torch
    import torch

    found = []
    for state, options in (
        ({"a": torch.ones(3), "b.c": torch.ones(2, 2)}, {}),
        ({"a": torch.ones(3)}, {"_use_new_zipfile_serialization": False}),
        ({"a": 1}, {}),
    ):
        torch.save(state, buffer := io.BytesIO(), **options)
        found.append(buffer.getvalue())
    return (*found, safetensors.torch.save({"a": torch.ones(3), "b.c": torch.ones(2, 2)}))


def bundles(rng: Random) -> bytes:
    """What is near a record, a run, a list of files, or tensors of the artifact `a`."""
    import safetensors.torch
    import torch

    found = rng.choice((targets.RECORD, targets.RUN, {"schema": 3, "bundle": 1, "files": {"manifest.json": {}}}))
    tensors = safetensors.torch.save({"a/x": torch.ones(3), "a/y": torch.ones(2, 2), "b": torch.ones(1)})
    return changed_json(rng, found) if rng.random() < 0.6 else near(rng, tensors)


@cache
def parquet_files() -> tuple[bytes, ...]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = []
    structs = pa.array([{"bytes": picture, "path": "x"} for picture in pictures()])
    names = {"info": {"features": {"label": {"_type": "ClassLabel", "names": ["a", "b", "c"]}}}}
    for labels in ([0, 1, 2] * 2 + [0], [[0], [1, 2]] * 3 + [[]], [*"abcabca"]):
        table = pa.table({"image": structs, "label": labels})
        table = table.replace_schema_metadata({"huggingface": json.dumps(names)})
        for compression in ("none", "zstd"):
            pq.write_table(table, buffer := io.BytesIO(), compression=compression, row_group_size=3)
            found.append(buffer.getvalue())
    return tuple(found)


NEAR: dict[str, Callable[[Random], bytes]] = {
    "suites": suites,
    "lists": lists,
    "archives": archives,
    "images": lambda rng: near(rng, *pictures()),
    "codes": codes,
    "weights": lambda rng: near(rng, *weight_files()),
    "kernels": lambda rng: changed_json(rng, targets.KERNELS),
    "records": lambda rng: changed_json(rng, targets.RECORD, targets.RUN, targets.DATA),
    "reports": lambda rng: changed_json(rng, targets.RECORD, targets.RUN, targets.DATA),
    "bundles": bundles,
    "best": lambda rng: changed_json(rng, targets.ENTRY),
    "parquet": lambda rng: rng.choice(parquet_files()) if rng.randrange(8) == 0 else near(rng, *parquet_files()),
    "poisons": poisons,
}


def make(name: str, seed: int) -> bytes:
    """The input of this number for a target: near to a valid one, and of every eight one of no kind."""
    rng = Random(seed)  # one number instead of many draws: hypothesis would take four times as long
    return _bytes(rng, 300) if rng.randrange(8) == 0 else NEAR[name](rng)
