"""Reading directories, zips and tars in place: no file is extracted, no link followed, the unpacked size is bounded."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.api.errors import DataCorruptError, UserError
from bench.api.untrusted import has_no_controls

Entry = tuple[str, Callable[[], bytes] | None]  # name and a function that reads it; None: a directory


@dataclass(frozen=True)
class Limits:
    """Limits for a directory or archive.

    member: bytes per file. floor, ratio: an archive may unpack to `floor` bytes or `ratio` times its own size,
    whichever is more. count: number of files and directories; the largest data set of this project has 1.9 million.
    """

    member: int = 64 * 2**20
    floor: int = 2**30
    ratio: int = 100
    count: int = 4_000_000

    def total(self, path: Path) -> int:
        """Limit for the unpacked bytes of the archive."""
        return max(self.floor, self.ratio * path.stat().st_size)


LIMITS = Limits()
_HEADER_LIMIT = 2**20  # bytes, for example of long names
_ENDS = 100  # times that a reader may find the end of a stream
_OPEN: dict[str, Callable[[Path], io.BufferedIOBase]] = {
    ".tar": lambda path: path.open("rb"),
    ".tar.gz": gzip.GzipFile,
    ".tgz": gzip.GzipFile,
    ".tar.xz": lzma.LZMAFile,
    ".txz": lzma.LZMAFile,
}
_ENCRYPTED = 1  # bit of a zip member's flags
_PACKED = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}  # others unpack a member as a whole, without a bound
_DAMAGE = (
    *(OSError, EOFError, ValueError, RuntimeError, NotImplementedError, LookupError, TypeError, OverflowError),
    *(MemoryError, struct.error),
    *(lzma.LZMAError, zlib.error, tarfile.TarError, zipfile.BadZipFile),
)


def walk(path: Path, limits: Limits = LIMITS) -> Iterator[Entry]:
    """Every visible directory and file. An entry must be read before the next one is requested, since tars are streams.

    UserError if `path` is neither a directory nor a known archive; DataCorruptError for an archive that is damaged or
    exceeds a limit, and for a member that leads out of it or is not a plain file.
    """
    if path.is_dir():
        entries = _directory(path, "", limits)
    elif path.exists() and not path.is_file():
        raise UserError(f"'{path}' is a pipe or device, not a directory or archive", "give the file itself")
    elif path.name.lower().endswith(".zip"):
        entries = _zip(path, limits)
    else:
        endings = [ending for ending in _OPEN if path.name.lower().endswith(ending)]
        if not endings:
            raise UserError(f"'{path}' is not a directory, {', '.join(('.zip', *_OPEN))}", "convert it to one of these")
        entries = _tar(path, endings[0], limits)
    seen = set()
    with _damage(path):
        for name, read in entries:
            if read is not None and name in seen:
                raise DataCorruptError(f"'{path}': member {name!r} is there twice; pack the archive again")
            if not has_no_controls(name):
                raise DataCorruptError(
                    f"'{path}': the name of member {name!r} holds control characters or is not UTF-8", "rename it"
                )
            seen.add(name)
            if len(seen) > limits.count:
                raise _too_many(path, limits)
            yield name, read


def _directory(root: Path, inside: str, limits: Limits) -> Iterator[Entry]:
    with os.scandir(root / inside) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        name = f"{inside}/{entry.name}" if inside else entry.name
        if _hidden(name):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield name, None
            yield from _directory(root, name, limits)
        elif entry.is_file(follow_symlinks=False):
            yield name, partial(_read_file, root, name, limits)
        else:
            raise _not_a_file(root, name)


def _read_file(root: Path, name: str, limits: Limits) -> bytes:
    with _damage(root, name):
        _check_size(root, name, (root / name).stat().st_size, limits)
        return (root / name).read_bytes()


def _zip(path: Path, limits: Limits) -> Iterator[Entry]:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len(members) > limits.count:
            raise _too_many(path, limits)
        if sum(member.file_size for member in members) > limits.total(path):
            raise _bomb(path, limits)
        for member in members:
            name = _safe(path, member.filename)
            if _hidden(name):
                continue
            if stat.S_ISLNK(member.external_attr >> 16):
                raise _not_a_file(path, name)
            if member.flag_bits & _ENCRYPTED:
                raise DataCorruptError(
                    f"'{path}': member {name!r} is encrypted", "unpack it and pack it without a password"
                )
            yield name, None if member.is_dir() else partial(_read_zip, path, archive, member, limits)


def _read_zip(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, limits: Limits) -> bytes:
    with _damage(path, member.filename):
        _check_size(path, member.filename, member.file_size, limits)
        if member.compress_type not in _PACKED:
            raise NotImplementedError("its compression is not deflate")
        with archive.open(member) as file:  # the bound on what is unpacked
            return file.read(member.file_size + 1)


def _tar(path: Path, ending: str, limits: Limits) -> Iterator[Entry]:
    with _OPEN[ending](path) as file:
        stream = _Bounded(path, file, limits)
        with _Tar.open(fileobj=stream, mode="r|") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # else tarfile keeps every member
                name = _safe(path, member.name)
                if _hidden(name):
                    continue
                if not (member.isreg() or member.isdir()) or member.issparse():
                    raise _not_a_file(path, name)
                yield name, None if member.isdir() else partial(_read_tar, path, tar, member, limits)
        while stream.read(2**20):  # reads the compressor's checksum at the end
            pass


def _read_tar(path: Path, tar: tarfile.TarFile, member: tarfile.TarInfo, limits: Limits) -> bytes:
    with _damage(path, member.name):
        _check_size(path, member.name, member.size, limits)
        file = tar.extractfile(member)
        return file.read() if file else b""


class _Header(tarfile.TarInfo):
    """Raises an error for a damaged or truncated header, which tarfile takes for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise  # the end mark
            raise tarfile.ReadError(f"damaged or cut off ({error})") from None
        if header.size < 0:  # would make the reader go back, in an endless loop
            raise tarfile.ReadError(f"a member of {header.size} bytes")
        if not header.isreg() and header.size > _HEADER_LIMIT:
            raise tarfile.ReadError(f"a header of {header.size} bytes")
        return header


class _Tar(tarfile.TarFile):
    tarinfo = _Header
    members: list[tarfile.TarInfo]


class _Bounded(io.BufferedIOBase):
    """A stream that raises an error after more bytes than the limits allow."""

    def __init__(self, path: Path, file: io.BufferedIOBase, limits: Limits) -> None:
        self._path, self._file, self._limits = path, file, limits
        self._left, self._ends = limits.total(path), 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = self._file.read(size)
        self._left -= len(data)
        self._ends += not data
        if self._ends > _ENDS:  # tarfile skips a member of 2^60 bytes in steps of 10,240
            raise tarfile.ReadError("damaged or cut off")
        if self._left < 0:
            raise _bomb(self._path, self._limits)
        return data


@contextmanager
def _damage(path: Path, name: str = "") -> Iterator[None]:
    """Turn all errors that readers raise on damaged input into one line with file and member."""
    try:
        yield
    except _DAMAGE as error:
        member = f", member {name!r}," if name else ""
        cause = " ".join(str(error).split()) or type(error).__name__
        raise DataCorruptError(f"'{path}'{member} cannot be read: {cause}", "get it again") from error


def _too_many(path: Path, limits: Limits) -> DataCorruptError:
    return DataCorruptError(f"'{path}' holds more than {limits.count} members and is refused; split it")


def _bomb(path: Path, limits: Limits) -> DataCorruptError:
    return DataCorruptError(f"'{path}' unpacks to more than {limits.total(path)} bytes and is refused", "get it again")


def _check_size(path: Path, name: str, size: int, limits: Limits) -> None:
    if size > limits.member:
        raise DataCorruptError(
            f"'{path}': member {name!r} has {size} bytes and is refused (limit {limits.member})", "remove it"
        )


def _not_a_file(path: Path, name: str) -> DataCorruptError:
    return DataCorruptError(
        f"'{path}': member {name!r} is a link, a device or a sparse file and is refused", "put a plain file there"
    )


def _safe(path: Path, name: str) -> str:
    """The member's name without `./`; DataCorruptError for names that lead out of the archive."""
    parts = name.replace("\\", "/").split("/")
    if parts[0] == "" or parts[0][1:2] == ":" or ".." in parts or "\0" in name:
        raise DataCorruptError(f"'{path}': member {name!r} leads out of the archive", "get it from a source you trust")
    return "/".join(part for part in parts if part not in {"", "."})


def _hidden(name: str) -> bool:
    return not name or any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
