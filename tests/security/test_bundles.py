"""Zips that call themselves bundles: refused by name, in little time and memory, and nothing is left behind."""

from __future__ import annotations

import gzip
import json
import os
import stat
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from bench.api.errors import UserError
from bench.engine import bundle as bundling
from bench.engine.bundle import EVIDENCE, INDEX, MANIFEST, RECORDS, Bundle
from bench.engine.collection import opened
from tests.fuzz.targets import KEY, RECORD, RUN, sealed
from tests.security.test_bombs import cheaply


def sound() -> dict[str, bytes]:
    """The files of a bundle with one trial, without its index."""
    line = sealed(json.dumps(RECORD).encode())
    tensors = save({f"{KEY}/x": torch.ones(3)})
    return {
        MANIFEST: sealed(json.dumps(RUN).encode()), RECORDS: gzip.compress(line), EVIDENCE: gzip.compress(tensors),
    }  # fmt: skip


def index(files: Mapping[str, bytes], **more: bundling.Artifact) -> bytes:
    listed = {name: bundling.described(content) for name, content in files.items() if name != INDEX}
    return bundling.encoded(bundling.Index(bundle=1, files={**listed, **more}))


def written(path: Path, files: Mapping[str, bytes]) -> Path:
    path.write_bytes(bundling.packed({INDEX: index(files), **files}))
    return path


def test_the_sound_one_is_read(tmp_path: Path) -> None:
    bundle = opened(written(tmp_path / "b.zip", sound()))
    assert [record.key for record in bundle.records()] == [KEY]
    assert bundle.artifact_path(KEY).is_file()
    assert len(bundle.runs()) == 1


def added(name: str, content: bytes = b"x") -> Callable[[Path], None]:
    def write(path: Path) -> None:
        written(path, {**sound(), name: content})

    return write


def link(path: Path) -> None:
    written(path, sound())
    about = zipfile.ZipInfo(EVIDENCE + "2")
    about.create_system, about.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(about, "/etc/passwd")


def twice(path: Path) -> None:
    written(path, sound())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(RECORDS, b"")


def many(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(20):
            archive.writestr(f"{number}.json", b"{}")


def bomb(name: str) -> Callable[[Path], None]:
    """A gigabyte and a half of zeros in a megabyte and a half, in the place of a file."""

    def write(path: Path) -> None:
        import io

        buffer = io.BytesIO()
        with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=9) as file:
            for _ in range(40):
                file.write(bytes(2**20))
        written(path, {**sound(), name: buffer.getvalue()})

    return write


def wide(path: Path) -> None:
    """A member that unpacks to more than a bundle may hold."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MANIFEST, bytes(2**20))
    content = path.read_bytes()
    path.write_bytes(content.replace((2**20).to_bytes(4, "little"), (2**31).to_bytes(4, "little")))


def of_other_files(path: Path) -> None:
    """The list names files of the user."""
    files = sound()
    about = bundling.described(b"x")
    path.write_bytes(bundling.packed({**files, INDEX: index(files, **{"../../etc/passwd": about})}))


def without_index(path: Path) -> None:
    path.write_bytes(bundling.packed(sound()))


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "no zip": (lambda path: path.write_bytes(b"hello") and None, "cannot be read"),
    "empty": (lambda path: path.write_bytes(b"") and None, "cannot be read"),
    "no index": (without_index, "bundle.json is missing"),
    "code": (added("conftest.py"), "no file of a bundle"),
    "a pickle": (added("model.pth"), "no file of a bundle"),
    "a way out": (added("../x"), "leads out"),
    "an absolute path": (added("/tmp/x"), "leads out"),
    "a name with controls": (added("\x1b[31m"), "control"),
    "a link": (link, "link"),
    "a file twice": (twice, "twice"),
    "many files": (many, "members|no file"),
    "a member without a bound": (wide, "cannot be read|unpacks"),
    "records without a bound": (bomb(RECORDS), "unpacks to more"),
    "files that are not there": (of_other_files, "passwd is missing"),
    "no gzip": (added(RECORDS), "cannot be unpacked"),
    "a record that is none": (added(RECORDS, gzip.compress(b"{}")), "line 1"),
    "a record twice": (added(RECORDS, gzip.compress(sealed(json.dumps(RECORD).encode()) + b"\n"
                                                    + sealed(json.dumps(RECORD).encode()))), "line 2"),
    "a key too long for a collection": (
        added(RECORDS, gzip.compress(sealed(json.dumps({**RECORD, "key": "a" * 60}).encode()))), "line 1"),
}  # fmt: skip


@pytest.mark.parametrize("how", REFUSED)
def test_a_strange_bundle_is_refused_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(bundling, "UNPACKED", 2**24)
    write, words = REFUSED[how]
    write(tmp_path / "b.zip")
    with cheaply(), pytest.raises(UserError, match=words) as caught:
        opened(tmp_path / "b.zip")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["b.zip"]


@pytest.mark.parametrize(
    "content",
    [b"x", gzip.compress(b"x"), gzip.compress(b"\xff" * 99), b""],
    ids=["no gzip", "no tensors", "a length beyond the file", "empty"],
)
def test_evidence_that_is_none_counts_as_missing(tmp_path: Path, content: bytes) -> None:
    bundle = Bundle(written(tmp_path / "b.zip", {**sound(), EVIDENCE: content}))
    assert not bundle.artifact_path(KEY).exists()


def test_evidence_without_a_bound_counts_as_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundling, "UNPACKED", 2**24)
    bomb(EVIDENCE)(tmp_path / "b.zip")
    with cheaply():
        assert not Bundle(tmp_path / "b.zip").artifact_path(KEY).exists()


def test_keys_of_evidence_are_no_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    tensors = save({"../../x/y": torch.ones(1), "..": torch.ones(1), f"{KEY}/../z": torch.ones(2)})
    bundle = Bundle(written(tmp_path / "b.zip", {**sound(), EVIDENCE: gzip.compress(tensors)}))
    for key in ("../../x", "..", "../x", KEY[:-1] + "/"):
        with pytest.raises(UserError, match="no key"):
            bundle.artifact_path(key)
    (folder,) = {bundle.artifact_path(KEY).parent}
    assert [path.name for path in folder.iterdir()] == [f"{KEY}.safetensors"]
    assert folder.parent == tmp_path
    del bundle
    assert not folder.exists(), "the temporary folder goes with the bundle"


def test_a_pipe_or_a_folder_of_links_is_not_followed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "b.zip")
    with pytest.raises(UserError):
        opened(tmp_path / "b.zip")
    folder = tmp_path / "unpacked"
    folder.mkdir()
    for name, content in {INDEX: index(sound()), **sound()}.items():
        (folder / name).write_bytes(content)
    assert len(opened(folder).runs()) == 1
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).symlink_to("/etc/passwd")
    with pytest.raises(UserError, match="link"):
        opened(folder)
