"""The store: a directory, local or shared, that holds all results as artifacts and records, named by content keys.

    store.json                 schema version
    artifacts/<key>.safetensors
    records/<key>.json         written last: a stage without a record counts as not run
    manifests/<suites>-<id>.json   the trials of a run, and the keys of the records that its boards show
    damaged/                   damaged files that a run moved away and made again

A store may come from a stranger: `record.py` checks its files before they are used, only hexadecimal keys become file
names, and only files named by a key are deleted or moved. `recompute.py` checks its numbers. `bundle.py` has stores in
one file, which can only be read.

Each file is written under a temporary name and then renamed, so that readers never see half a file, and several drivers
may use one store. Records and manifests hold their own checksums. Reading changes nothing.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.api.errors import StoreError
from bench.api.untrusted import parse_json, read_bytes, read_json
from bench.config.trial import canonical, sha256
from bench.engine.record import (
    MANIFEST_LIMIT,
    RECORD_LIMIT,
    SCHEMA,
    YEAR_9900,
    Artifact,
    Record,
    RecordSummary,
    RunManifest,
    encoded,
    is_key,
    manifest_from,
    record_from,
)

if TYPE_CHECKING:
    from torch import Tensor

NAME = 100  # bytes of a manifest's file name
ROOM = 1e6  # seconds before the year 9900 that later runs have if the clock is beyond it
REFERENCE = "reference"  # the word for the bundles that this package ships
INDEX, ENTRIES = "bundle.json", "collection.json"  # files of a bundle and of a collection of bundles


def nearest_folder(root: Path) -> Path:
    """The folder that exists nearest to a store that is there or can be made. StoreError if it cannot be made there."""
    with writing(root):
        for path in (root, *root.parents):
            try:
                found = path.stat()
            except FileNotFoundError:
                if path.is_symlink():  # to nothing
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from None
                continue
            if not stat.S_ISDIR(found.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
            return path
    return Path()


@dataclass(frozen=True)
class Manifests:
    """The manifests of a store.

    runs: of the manifests that can be read, each run once, the latest last. unreadable: files that are damaged, of
    another version, or no ordinary files. paths: the files that hold a run's manifest, by the id of the run. differing:
    ids of runs whose files differ, as copies of two states of a folder do; `runs` has the latest.
    """

    runs: list[RunManifest]
    unreadable: list[Path]
    paths: Mapping[str, list[Path]]
    differing: list[str]


class Store:
    """One store directory.

    create: make the directory if it does not exist. StoreError if the directory is no store, or of another schema.
    """

    def __init__(self, root: Path, *, create: bool = False) -> None:
        self.root = root
        marker = root / "store.json"
        if str(root) == REFERENCE or is_bundle(root):
            raise StoreError(f"'{root}' is a bundle, which can only be read", "give another --store")
        try:
            str(root.absolute()).encode()
        except UnicodeEncodeError:  # readers of artifacts take text only
            raise StoreError(f"the name of store {str(root)!r} is not UTF-8", "use another --store") from None
        if create:
            with writing(root):
                for folder in ("artifacts", "records", "manifests"):
                    (root / folder).mkdir(parents=True, exist_ok=True)
            if not marker.exists():
                if any((root / "records").iterdir()):
                    raise StoreError(
                        f"store '{root}' is damaged: it has records but no store.json", "use another --store"
                    )
                self._write(marker, canonical({"schema": SCHEMA}).encode())
        if not marker.exists():
            raise StoreError(f"'{root}' is not a store", "run `python -m bench run` first, or give another --store")
        try:
            found = read_json(marker, RECORD_LIMIT).get("schema")
        except (OSError, ValueError, AttributeError) as error:
            raise StoreError(f"'{marker}' cannot be read ({error})", "use another --store") from None
        if found != SCHEMA:
            raise StoreError(
                f"store '{root}' has file format (schema) {found}, and this version reads {SCHEMA} only",
                "use another folder (--store), or the HashDoor version that wrote the store",
            )

    def has_evidence(self, record: Record) -> bool:
        """Whether the store is meant to have what a trial's numbers follow from. A bundle may leave it out."""
        del record
        return True

    def check_writable(self) -> None:
        """StoreError if the store cannot be written: a run asks before its first stage."""
        with self._writing(), tempfile.TemporaryFile(dir=self.root / "records"):
            pass

    # Records

    def record(self, key: str) -> Record | None:
        """The record of a stage; None if there is none or its file is damaged. StoreError if it may not be read."""
        if not is_key(key):
            return None
        try:
            return record_from(parse_json(self._record_content(key)), key)
        except (FileNotFoundError, ValueError):
            return None
        except OSError as error:
            path = self._record_path(key)
            raise StoreError(f"'{path}' cannot be read ({error.strerror})", "make it readable, or remove it") from None

    def has_record_file(self, key: str) -> bool:
        """Whether the file of a stage's record exists, readable or not."""
        return is_key(key) and self._record_path(key).exists()

    def write_record(self, record: Record) -> None:
        self._write(self._record_path(record.key), encoded(record))

    def commit(self, record: Record) -> Record:
        """Write a record, unless another driver has finished the stage. Returns the record that the store keeps.

        Neither a failure nor the same result replaces an intact result.
        """
        held = self.record(record.key)
        if held is None and self.has_record_file(record.key):  # a damaged one
            self._set_aside(self._record_path(record.key))
        if held is not None and held.ok:
            same = held.inputs == record.inputs and held.artifact == record.artifact
            if same if record.ok else self.intact(held):
                return held
        self.write_record(record)
        return record

    def finished(self, key: str, inputs: Mapping[str, str | None]) -> Record | None:
        """The record of a stage that has its result, from the same inputs, and an intact artifact; else None.

        inputs: checksums by role.
        """
        held = self.record(key)
        if held is None or not held.ok or held.inputs != inputs:
            return None
        return held if self.whole(held) else None

    def set_aside(self, record: Record) -> None:
        """Move a record away, so that its stage runs again."""
        self._set_aside(self._record_path(record.key))

    def records(self) -> Iterator[Record]:
        """All readable records, in the order of keys."""
        for key in self.keys():
            if (found := self.record(key)) is not None:
                yield found

    def keys(self) -> list[str]:
        """The keys of all records, sorted; the names of files that are no records may be among them."""
        return sorted(path.stem for path in (self.root / "records").glob("*.json"))

    def _record_content(self, key: str) -> bytes:
        """The content of a record's file. FileNotFoundError if there is none."""
        return read_bytes(self._record_path(key), RECORD_LIMIT)

    # Artifacts

    def write_artifact(self, key: str, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Artifact:
        """Store tensors. Returns their checksum and size for the record. StoreError if the store is not writable."""
        from safetensors.torch import save_file

        path = self.artifact_path(key)
        whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        with self._writing(), _temporary(path) as temporary:
            mode = temporary.stat().st_mode
            save_file(whole, temporary, metadata={"hashdoor": canonical(meta)})
            temporary.chmod(mode)  # safetensors lets only the owner read its files
            found = Artifact(sha256=sha256(temporary), bytes=temporary.stat().st_size)
            temporary.replace(path)
        return found

    def tensors(self, key: str) -> dict[str, Tensor]:
        """The tensors of an artifact, memory-mapped. OSError if the file cannot be read or is no ordinary file."""
        from safetensors import safe_open

        if not (path := self.artifact_path(key)).is_file():
            raise FileNotFoundError(errno.ENOENT, "missing, or no ordinary file", str(path))
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

    def intact(self, record: Record | RecordSummary) -> bool:
        """Whether a record's artifact exists and matches its checksum. A damaged artifact is moved away."""
        if self.whole(record):
            return True
        self.set_aside_artifact(record)
        return False

    def set_aside_artifact(self, record: Record | RecordSummary) -> None:
        """Move a damaged artifact away, so that its stage runs again."""
        path = self.artifact_path(record.key)
        if path.is_file():
            self._set_aside(path)

    def shipped(self, record: Record | RecordSummary) -> bool:
        """Whether this store is meant to have the record's artifact. A bundle leaves out artifacts."""
        del record
        return True

    def whole(self, record: Record | RecordSummary) -> bool:
        """Whether a record's artifact exists and matches its checksum, or the record has none. Changes nothing."""
        if record.artifact is None:
            return True
        path, artifact = self.artifact_path(record.key), record.artifact
        return path.is_file() and path.stat().st_size == artifact.bytes and sha256(path) == artifact.sha256

    # Runs

    def write_run(self, manifest: RunManifest) -> RunManifest:
        """Write a run's manifest. Returns it with its time, which is later than that of all other runs."""
        latest = max((run.started for run in self.runs()), default=0.0)
        now = min(time.time(), YEAR_9900 - ROOM)  # clocks step back, and a stranger's is anywhere
        started = min(max(now, latest + 0.001), YEAR_9900)
        stamped = manifest.model_copy(update={"started": started})
        name = re.sub(r"[^\w.+-]+", "_", "+".join(manifest.suites)).lstrip(".").encode()[:NAME].decode(errors="ignore")
        self._write(self.root / "manifests" / f"{name}-{manifest.id}.json", encoded(stamped))
        return stamped

    def runs(self) -> list[RunManifest]:
        """The runs of this store whose manifests can be read, the latest last."""
        return self.manifests().runs

    def manifests(self) -> Manifests:
        """All manifests of this store, read now; those of large runs take a second."""
        runs: dict[str, RunManifest] = {}
        unreadable: list[Path] = []
        differing: list[str] = []
        paths: dict[str, list[Path]] = {}
        for path, manifest in self.manifest_files():
            if manifest is None:
                unreadable.append(path)
                continue
            held = runs.setdefault(run := manifest.id, manifest)
            if held is not manifest and encoded(held) != encoded(manifest):
                differing.append(run)
                runs[run] = max(held, manifest, key=lambda one: one.started)
            paths.setdefault(run, []).append(path)
        ordered = sorted(runs.values(), key=lambda manifest: (manifest.started, manifest.id))
        return Manifests(ordered, unreadable, paths, differing)

    def manifest_files(self) -> Iterator[tuple[Path, RunManifest | None]]:
        """The files of manifests; None for one that cannot be read."""
        for path in sorted((self.root / "manifests").glob("*.json")):
            try:
                yield path, manifest_from(read_json(path, MANIFEST_LIMIT))
            except (OSError, ValueError):
                yield path, None

    def standing(self, run: RunManifest) -> str:
        """A sentence about a run that somebody has published; "" for a run of one's own."""
        del run
        return ""

    def status_of(self, run: RunManifest) -> str:
        """How far a published run has been checked, in a word; "" for a run of one's own."""
        del run
        return ""

    def origin(self, run: RunManifest) -> str:
        """The beginning of the checksum of the bundle that a run was published in; "" for a run of one's own."""
        del run
        return ""

    # Housekeeping

    def artifact_path(self, key: str) -> Path:
        """The path of an artifact, which need not exist. StoreError if the text is no key."""
        return self.root / "artifacts" / f"{self._checked(key)}.safetensors"

    def size_of(self, key: str) -> int:
        """Bytes of a stage's record and artifact."""
        paths = (self.artifact_path(key), self._record_path(key))
        return sum(path.stat().st_size for path in paths if path.is_file())

    def _record_path(self, key: str) -> Path:
        return self.root / "records" / f"{self._checked(key)}.json"

    def _checked(self, key: str) -> str:
        if not is_key(key):
            raise StoreError(f"{key!r} is no key, so store '{self.root}' has no such file: keys are hexadecimal")
        return key

    def _set_aside(self, path: Path) -> None:
        """Move a damaged file to the folder `damaged`. A file that cannot be moved stays, and counts as missing.

        A file in a linked folder stays too: the links of a stranger's store could lead to the user's own files.
        """
        folder = self.root / "damaged"
        if folder.is_symlink() or path.parent.is_symlink():
            return
        with suppress(StoreError, FileNotFoundError), self._writing():  # not found: another process has moved it
            folder.mkdir(exist_ok=True)
            path.replace(folder / path.name)

    def _write(self, path: Path, content: bytes) -> None:
        with self._writing():
            write_whole(path, content)

    def _writing(self) -> AbstractContextManager[None]:
        """Where this store is changed."""
        return writing(self.root)


def is_bundle(path: Path) -> bool:
    """Whether a path is that of a zip, or of a folder with an unpacked bundle or with several bundles."""
    return (path.suffix.lower() == ".zip" and path.is_file()) or any(
        (path / name).exists() for name in (INDEX, ENTRIES)
    )


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, then rename it: no error leaves half of it, or loses an older file.

    The rights of an older file of that name are kept.
    """
    with _temporary(path) as temporary:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.is_file():
            with suppress(OSError):  # a file system without rights
                shutil.copymode(path, temporary)
        temporary.replace(path)


def is_temporary(name: str) -> bool:
    """Whether a file has a name that `write_whole` gives to files that it has not finished."""
    return re.fullmatch(r"\.[0-9a-f]{16}\.tmp", name) is not None


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, removed at the end unless it was renamed. Its rights follow the user's umask."""
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")  # a longer name could be too long
    temporary.touch(exist_ok=False)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Turn the errors of a full disk, a read-only store or missing rights into a StoreError of one line."""
    try:
        yield
    except OSError as error:
        advice = {
            errno.ENOSPC: "the disk is full: free some space (see `bench gc`), then run the same command again",
            errno.EDQUOT: "the disk quota is used up: free some space, then run the same command again",
            errno.EROFS: "it is read-only: give a writable --store",
            errno.EACCES: "it is not writable for you: give a writable --store",
            errno.EPERM: "it is not writable for you: give a writable --store",
            errno.ENOTDIR: "a part of its path is a file: give another --store",
            errno.EEXIST: "a part of its path is a file: give another --store",
            errno.ELOOP: "a part of its path is a link to itself: give another --store",
            errno.ENAMETOOLONG: "its path is too long: give another --store",
        }.get(error.errno or 0, f"{error.strerror or error}: solve this, then run the same command again")
        raise StoreError(f"cannot write to store '{root}': {advice}; finished stages are kept") from error
    except Exception as error:
        # safetensors wraps errors of the operating system in its own type
        number = re.search(r"os error (\d+)", str(error))
        if type(error).__name__ != "SafetensorError" or number is None:
            raise
        with writing(root):
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
