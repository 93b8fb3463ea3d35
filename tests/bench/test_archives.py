"""Archives as an attacker, a broken download or a careless user would make them."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from bench.api.archives import Limits, walk
from bench.api.errors import DataCorruptError, UserError

FILES = {"cat/1.jpg": b"first", "cat/2.jpg": b"x" * 5000, "dog/1.jpg": b""}
FORMS = ("tree", "tree.zip", "tree.tar", "tree.tar.gz", "tree.tgz", "tree.tar.xz", "tree.txz")


def member(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, link
    return info


def make_tar(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def build(path: Path, files: dict[str, bytes], folders: tuple[str, ...] = ()) -> Path:
    """The same tree in the form that the path's ending names."""
    if path.name.endswith(".zip"):
        with zipfile.ZipFile(path, "w") as archive:
            for folder in folders:
                archive.writestr(folder + "/", b"")
            for name, content in files.items():
                archive.writestr(name, content)
    elif ".t" in path.name:
        content = make_tar(
            [(member(name, kind=tarfile.DIRTYPE), b"") for name in folders]
            + [(member(name, len(content)), content) for name, content in files.items()]
        )
        pack = gzip.compress if path.name.endswith("gz") else lzma.compress if path.name.endswith("xz") else bytes
        path.write_bytes(pack(content))
    else:
        for name in folders:
            (path / name).mkdir(parents=True)
        for name, content in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
    return path


def read_all(path: Path, **limits: int) -> dict[str, bytes]:
    return {name: read() for name, read in walk(path, Limits(**limits)) if read is not None}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_names_contents_and_folders(tmp_path: Path, form: str) -> None:
    hidden = {".git/a.jpg": b"", "cat/.x.jpg": b"", "__MACOSX/cat/1.jpg": b"", "__MACOSX/._a": b""}
    path = build(tmp_path / form, {**FILES, **hidden}, ("empty",))
    assert read_all(path) == FILES
    assert "empty" in {name for name, read in walk(path) if read is None}
    assert sorted(p.name for p in tmp_path.iterdir()) == [form]  # nothing was extracted


def test_a_leading_dot_is_dropped(tmp_path: Path) -> None:
    assert read_all(build(tmp_path / "t.tar", {"./cat/1.jpg": b"a"})) == {"cat/1.jpg": b"a"}


@pytest.mark.parametrize("name", ["../evil.jpg", "cat/../../evil.jpg", "/etc/evil.jpg", "..\\evil.jpg", "C:\\evil.jpg"])
@pytest.mark.parametrize("form", ["t.zip", "t.tar", "t.tar.xz"])
def test_names_that_lead_out_are_refused(tmp_path: Path, form: str, name: str) -> None:
    path = build(tmp_path / form, {"cat/1.jpg": b"a", name: b"a"})
    with pytest.raises(DataCorruptError, match=r"t\.(zip|tar).*evil"):
        read_all(path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_tars_are_refused(tmp_path: Path, kind: bytes) -> None:
    (tmp_path / "t.tar").write_bytes(make_tar([(member("cat/1.jpg", kind=kind, link="/etc/passwd"), b"")]))
    with pytest.raises(DataCorruptError, match=r"t\.tar.*'cat/1\.jpg' is a link"):
        read_all(tmp_path / "t.tar")


def test_links_in_zips_are_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("cat/1.jpg")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(DataCorruptError, match=r"'cat/1\.jpg' is a link"):
        read_all(tmp_path / "t.zip")


@pytest.mark.parametrize("name", ["cat/1.jpg", "cat/\u732b.jpg", "cat/'\"=1.jpg"])
def test_an_encrypted_member_is_named_before_anything_is_read(tmp_path: Path, name: str) -> None:
    path = build(tmp_path / "t.zip", {"dog/1.jpg": b"first", name: b"second"})
    content = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # the local header and the entry of the directory
        content[content.rindex(signature) + flags] |= 1
    path.write_bytes(content)
    with pytest.raises(DataCorruptError, match="encrypted") as caught:
        list(walk(path))
    assert repr(name) in str(caught.value)
    assert "ZipInfo" not in str(caught.value)


@pytest.mark.parametrize("target", ["/etc/passwd", "../cat"])
def test_links_in_directories_are_refused(tmp_path: Path, target: str) -> None:
    path = build(tmp_path / "tree", FILES)
    (path / "cat" / "link.jpg").symlink_to(target)
    with pytest.raises(DataCorruptError, match=r"'cat/link\.jpg' is a link"):
        read_all(path)


def test_a_pipe_in_a_directory_does_not_block(tmp_path: Path) -> None:
    path = build(tmp_path / "tree", FILES)
    os.mkfifo(path / "cat" / "pipe.jpg")
    with pytest.raises(DataCorruptError, match=r"pipe\.jpg"):
        read_all(path)


@pytest.mark.parametrize("form", FORMS)
def test_large_members_are_refused_unread(tmp_path: Path, form: str) -> None:
    path = build(tmp_path / form, FILES)
    with pytest.raises(DataCorruptError, match=r"'cat/2\.jpg' has 5000 bytes .*limit 4999"):
        read_all(path, member=4999)
    assert read_all(path, member=5000) == FILES


@pytest.mark.parametrize("form", ["t.zip", "t.tar.gz", "t.tar.xz"])
def test_bombs_are_refused(tmp_path: Path, form: str) -> None:
    files = {f"cat/{i}.jpg": bytes(2**18) for i in range(8)}
    path = build(tmp_path / form, files)
    if form == "t.zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    with pytest.raises(DataCorruptError, match="1048576"):
        read_all(path, floor=2**20)
    assert read_all(path, floor=2**22) == files


def test_a_bomb_behind_the_last_member_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.tar.gz"
    path.write_bytes(gzip.compress(make_tar([(member("cat/1.jpg", 1), b"a")]) + bytes(2**22)))
    with pytest.raises(DataCorruptError, match="1048576"):
        read_all(path, floor=2**20)


def test_a_zip_that_understates_its_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cat/1.jpg", bytes(100_000))
    path.write_bytes(path.read_bytes().replace((100_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(DataCorruptError, match=r"t\.zip.*'cat/1\.jpg'"):
        read_all(path)


def test_a_header_that_claims_gigabytes_is_refused(tmp_path: Path) -> None:
    info = member("x", 2**33, tarfile.XHDTYPE)
    (tmp_path / "t.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))
    with pytest.raises(DataCorruptError, match="8589934592"):
        read_all(tmp_path / "t.tar")


@pytest.mark.parametrize("form", ["t.zip", "t.tar", "t.tar.gz", "t.tar.xz"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.6, 0.99])
def test_no_truncated_archive_is_taken_for_a_shorter_one(tmp_path: Path, form: str, share: float) -> None:
    files = {f"cat/{i}.jpg": os.urandom(512 * 3) for i in range(40)}
    path = build(tmp_path / form, files)
    content = path.read_bytes()
    if form == "t.tar":
        share *= (len(files) * 2048) / len(content)  # the padding behind the mark of the end may be missing
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataCorruptError, match=r"t\.(zip|tar).*"):
        read_all(path)


def test_a_cut_between_members_is_noticed(tmp_path: Path) -> None:
    path = build(tmp_path / "t.tar", {f"cat/{i}.jpg": bytes(512) for i in range(40)})
    path.write_bytes(path.read_bytes()[: 20 * 1024])
    with pytest.raises(DataCorruptError, match=r"t\.tar"):
        read_all(path)


def test_a_damaged_header_does_not_end_the_archive(tmp_path: Path) -> None:
    path = build(tmp_path / "t.tar", FILES)
    content = bytearray(path.read_bytes())
    content[1024 + 5] ^= 1  # the name of the second member
    path.write_bytes(content)
    with pytest.raises(DataCorruptError, match="damaged"):
        read_all(path)


@pytest.mark.parametrize("form", ["t.zip", "t.tar.gz", "t.tar.xz"])
def test_a_flipped_bit_is_noticed(tmp_path: Path, form: str) -> None:
    path = build(tmp_path / form, {"cat/1.jpg": os.urandom(5000)})
    content = bytearray(path.read_bytes())
    content[2500] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataCorruptError, match=r"t\."):
        read_all(path)


def test_rubbish_duplicates_and_unknown_endings(tmp_path: Path) -> None:
    for form in FORMS[1:]:
        (tmp_path / form).write_bytes(b"no archive at all" * 100)
        with pytest.raises(DataCorruptError, match=form):
            read_all(tmp_path / form)
    double = make_tar([(member("cat/1.jpg", 1), b"a"), (member("./cat/1.jpg", 1), b"b")])
    (tmp_path / "t.tar").write_bytes(double)
    with pytest.raises(DataCorruptError, match="twice"):
        read_all(tmp_path / "t.tar")
    (tmp_path / "t.rar").write_bytes(b"")
    with pytest.raises(UserError, match=r"t\.rar.*\.zip"):
        read_all(tmp_path / "t.rar")


def test_an_interrupt_passes_through_and_leaves_nothing(tmp_path: Path) -> None:
    path = build(tmp_path / "t.tar.xz", FILES)

    def consume() -> None:
        for _ in walk(path):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()
    assert [p.name for p in tmp_path.iterdir()] == ["t.tar.xz"]
