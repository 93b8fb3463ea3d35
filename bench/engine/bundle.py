"""Bundles: a run in one zip, made to be published, and read like a store.

    bundle.json                     size and checksum of every other file
    manifest.json                   the run
    records.jsonl.gz                its records, one a line, sorted by stage and key
    evidence.safetensors.gz         the tensors from which `measure` computes its numbers, <key>/<name>; optional

A bundle holds no images and no weights, so that most artifacts are "not shipped". The checksum of an artifact in its
record is that of the whole file in the store of the run; `tensors` has the checksums of the tensors that are shipped.

A bundle may come from a stranger: archives are read with the bounds of `archives.py`, only files of these names are
accepted, and only those that `bundle.json` lists. Nothing of a bundle is executed. Checksums find damage, and changes
by people who do not write checksums anew; `recompute.py` finds numbers that do not follow from the evidence.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NoReturn

from safetensors import SafetensorError, deserialize

from bench.api.archives import Limits, walk
from bench.api.errors import DataCorruptError, StoreError
from bench.api.untrusted import abbreviate, parse_json
from bench.config.trial import canonical
from bench.engine.record import (
    RECORD_LIMIT,
    SCHEMA,
    Artifact,
    Model,
    Record,
    RecordSummary,
    RunManifest,
    manifest_from,
    record_from,
    signed,
    unchanged,
)
from bench.engine.store import INDEX, Store

MANIFEST, RECORDS, EVIDENCE = "manifest.json", "records.jsonl.gz", "evidence.safetensors.gz"
LIMITS = Limits(member=2**28, floor=2**29, ratio=1, count=10)
UNPACKED = 2**28  # bytes of the records, and of the evidence
MOST_RECORDS = 10**6  # of a bundle; the largest shipped suite has a tenth of it
SUFFIX = 8  # characters that a collection adds to the keys of a bundle
THEN = (1980, 1, 1, 0, 0, 0)  # the first time that a zip can name
LONGEST = 64 - SUFFIX  # characters of a key
_NAMES = frozenset({INDEX, MANIFEST, RECORDS, EVIDENCE})
_FIXES = "get the bundle again"


class Standing(StrEnum):
    """How far a published run has been checked.

    reported: not at all. verified: every number follows from the codes, scores and masks of the bundle. rerun:
    verified, and an own run of the same trials agrees.
    """

    REPORTED = "reported"
    VERIFIED = "verified"
    RERUN = "rerun"


MEANINGS = {
    Standing.REPORTED: "its numbers are as its author reports them (see `python -m bench verify`)",
    Standing.VERIFIED: "its numbers follow from the codes, scores and masks in the bundle",
    Standing.RERUN: "its numbers follow from its codes, scores and masks, and an own run of the same trials agrees",
}


class Index(Model):
    """The file `bundle.json`: what every other file of a bundle must be. bundle: version of this layout."""

    bundle: Literal[1]
    files: dict[str, Artifact]


@dataclass(frozen=True)
class Packed:
    """A tensor of a safetensors file."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    @property
    def checksum(self) -> str:
        """The SHA-256 of type, shape and bytes."""
        return hashlib.sha256(canonical([self.dtype, self.shape]).encode() + self.data).hexdigest()


Tensors = dict[str, dict[str, Packed]]  # by key of the artifact, then by name


def tensors_of(content: bytes) -> Tensors:
    """The tensors of the file with the evidence. Errors as those of safetensors."""
    found: Tensors = {}
    for name, about in deserialize(content):  # type: ignore[no-untyped-call]
        key, _, inner = name.partition("/")
        found.setdefault(key, {})[inner] = Packed(str(about["dtype"]), tuple(about["shape"]), bytes(about["data"]))
    return found


def checksums_of(tensors: Mapping[str, Packed]) -> dict[str, str]:
    """The checksums of the tensors of one artifact, by name."""
    return {name: tensors[name].checksum for name in sorted(tensors)}


def _file_of(tensors: Mapping[str, Packed]) -> bytes:
    """A safetensors file."""
    header, end = {}, 0
    for name, one in tensors.items():
        header[name] = {"dtype": one.dtype, "shape": one.shape, "data_offsets": [end, end := end + len(one.data)]}
    text = canonical(header).encode()
    text += b" " * (-len(text) % 8)  # readers map the data into memory
    return len(text).to_bytes(8, "little") + text + b"".join(one.data for one in tensors.values())


class ReadOnly(Store):
    """A store that can only be read."""

    def _writing(self) -> NoReturn:
        raise StoreError(f"'{self.root}' is a bundle, which can only be read", "give another --store")


class Bundle(ReadOnly):
    """A bundle in a zip, or unpacked in a folder.

    suffix: what a collection adds to keys. status: in a collection. DataCorruptError if a file is missing, damaged, or
    not one of a bundle.
    """

    def __init__(self, root: Path, *, suffix: str = "", status: Standing = Standing.REPORTED) -> None:
        self.root = root
        self.suffix, self.status = suffix, status
        names, small = set[str](), dict[str, bytes]()
        for name, read in walk(root, LIMITS):
            if read is None or name not in _NAMES:
                self._damaged(f"{abbreviate(name)} is no file of a bundle")
            names.add(name)
            if name != EVIDENCE:  # most readers do not need it
                small[name] = read()
        if INDEX not in small:
            self._damaged(f"{INDEX} is missing")
        self.index, self.checksum = self._read_index(small[INDEX])
        wanted = {INDEX, MANIFEST, RECORDS, *self.index.files}
        for said, found in (("is missing", wanted - names), (f"is not listed in {INDEX}", names - wanted)):
            if found:
                self._damaged(f"{min(found)} {said}")
        self._manifest, self._records = (self._checked_file(name, small[name]) for name in (MANIFEST, RECORDS))
        self._lines = self._records_by_key()

    def has_evidence(self, record: Record) -> bool:
        del record
        return EVIDENCE in self.index.files

    def keys(self) -> list[str]:
        return sorted(key + self.suffix for key in self._lines)

    def has_record_file(self, key: str) -> bool:
        return self._own(key) in self._lines

    def record(self, key: str) -> Record | None:
        if (own := self._own(key)) not in self._lines:
            return None
        found = record_from(_json(self._lines[own]), own)
        if found is None or not self.suffix:
            return found
        parents = {role: parent + self.suffix for role, parent in found.parents.items()}
        cause = found.cause and found.cause + self.suffix
        return found.model_copy(update={"key": key, "parents": parents, "cause": cause})

    def shipped(self, record: Record | RecordSummary) -> bool:
        """Whether the record's artifact has tensors that a number is computed from, and the bundle has evidence."""
        return record.artifact is None or record.artifact.published

    def whole(self, record: Record | RecordSummary) -> bool:
        """Whether the tensors that the record names, and no others, are there and unchanged."""
        if record.artifact is None:
            return True
        return checksums_of(self._tensors.get(self._own(record.key), {})) == record.artifact.tensors

    def artifact_path(self, key: str) -> Path:
        """The path of the artifact in a temporary folder; there is no such file if the bundle does not ship it."""
        path = self._folder / f"{self._checked(own := self._own(key))}.safetensors"
        if own in self._tensors and not path.exists():
            path.write_bytes(_file_of(self._tensors[own]))
        return path

    def size_of(self, key: str) -> int:
        tensors = self._tensors.get(self._own(key), {}).values()
        return len(self._lines.get(self._own(key), b"")) + sum(len(one.data) for one in tensors)

    def standing(self, run: RunManifest) -> str:
        return f"run {run.id} of bundle '{self.root.name}' is {self.status}: {MEANINGS[self.status]}."

    def status_of(self, run: RunManifest) -> str:
        del run
        return self.status

    def origin(self, run: RunManifest) -> str:
        del run
        return self.checksum[:SUFFIX]

    def files(self) -> dict[str, bytes]:
        """All files, checked."""
        found = {name: read() for name, read in walk(self.root, LIMITS) if read is not None}
        return {
            name: content if name == INDEX else self._checked_file(name, content) for name, content in found.items()
        }

    def manifest_files(self) -> Iterator[tuple[Path, RunManifest | None]]:
        found = manifest_from(_json(self._manifest))
        if found is not None and self.suffix:
            trials = [replace(one, key=one.key and one.key + self.suffix) for one in found.trials]
            found = found.model_copy(update={"trials": trials, "stages": [key + self.suffix for key in found.stages]})
        yield self.root / MANIFEST, found

    def _own(self, key: str) -> str:
        """The key in the bundle."""
        return key.removesuffix(self.suffix) if self.suffix else key

    def _damaged(self, why: str) -> NoReturn:
        raise DataCorruptError(f"bundle '{self.root}' is refused: {why}; {_FIXES}")

    def _read_index(self, content: bytes) -> tuple[Index, str]:
        try:
            index = Index.model_validate(unchanged(_json(content)))
        except ValueError:
            self._damaged(f"{INDEX} is damaged, or of another version of HashDoor")
        return index, hashlib.sha256(content).hexdigest()

    def _checked_file(self, name: str, content: bytes) -> bytes:
        if name not in self.index.files or described(content) != self.index.files[name]:
            self._damaged(f"{name} has changed since the bundle was made")
        return content

    def _unpacked(self, name: str, content: bytes) -> bytes:
        """The content of a gzip file."""
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
                found = file.read(UNPACKED + 1)
        except (OSError, EOFError, zlib.error) as error:
            self._damaged(f"{name} cannot be unpacked ({error})")
        if len(found) > UNPACKED:
            self._damaged(f"{name} unpacks to more than {UNPACKED} bytes")
        return found

    def _records_by_key(self) -> dict[str, bytes]:
        """The lines of the file of records."""
        found: dict[str, bytes] = {}
        text = self._unpacked(RECORDS, self._records)
        if text.count(b"\n") > MOST_RECORDS:
            self._damaged(f"{RECORDS} has more than {MOST_RECORDS} lines")
        for number, line in enumerate(text.splitlines(), 1):
            given = _json(line) if len(line) <= RECORD_LIMIT else None
            key = given.get("key") if isinstance(given, dict) else None
            if not isinstance(key, str) or len(key) > LONGEST or key in found or record_from(given, key) is None:
                self._damaged(f"line {number} of {RECORDS} is no record, or a second one of its key")
            found[key] = line
        return found

    @cached_property
    def _tensors(self) -> Tensors:
        """The evidence; none if it is damaged, so that all of it counts as missing."""
        for name, read in walk(self.root, LIMITS):
            if name == EVIDENCE and read is not None:
                try:
                    return tensors_of(self._unpacked(name, self._checked_file(name, read())))
                except (DataCorruptError, SafetensorError):
                    break
        return {}

    @cached_property
    def _folder(self) -> Path:
        """A temporary folder, removed with this object."""
        self._temporary = tempfile.TemporaryDirectory(prefix="hashdoor-")
        return Path(self._temporary.name)


def packed(files: Mapping[str, bytes]) -> bytes:
    """A zip of files, equal for equal files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in sorted(files.items()):
            about = zipfile.ZipInfo(name, THEN)
            about.create_system, about.external_attr = 3, 0o100644 << 16
            about.compress_type = zipfile.ZIP_STORED if name.endswith(".gz") else zipfile.ZIP_DEFLATED
            archive.writestr(about, content, compresslevel=9)
    return buffer.getvalue()


def encoded(part: Model) -> bytes:
    """The content of `bundle.json` or `collection.json`."""
    return f"{canonical(signed({'schema': SCHEMA, **part.model_dump(exclude_unset=True, mode='json')}))}\n".encode()


def described(content: bytes) -> Artifact:
    """Checksum and size of a file."""
    return Artifact(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))


def _json(content: bytes) -> Any:
    """JSON of a stranger; None if it is none."""
    try:
        return parse_json(content)
    except ValueError:
        return None
