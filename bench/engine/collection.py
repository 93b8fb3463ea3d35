"""Collections: folders of bundles, each with its status, read like one store.

    collection.json     the bundles, in the order of their merging, with their status
    *.zip               the bundles

This package ships one: `bench/reference`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from bench.api.errors import DataCorruptError, StoreError
from bench.api.untrusted import read_json
from bench.engine.bundle import SUFFIX, Bundle, ReadOnly, Standing, encoded, packed
from bench.engine.record import RECORD_LIMIT, Model, Record, RecordSummary, RunManifest, Sha256, unchanged
from bench.engine.running import alone
from bench.engine.store import ENTRIES, NAME, REFERENCE, Store, is_bundle, write_whole, writing


class Entry(Model):
    """A bundle of a collection. file: its name. checksum: of its `bundle.json`."""

    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9_+-][A-Za-z0-9_.+-]*$")]
    checksum: Sha256
    status: Annotated[Standing, Field(strict=False)]


class Entries(Model):
    """The file `collection.json`."""

    collection: Literal[1]
    bundles: list[Entry]


class Collection(ReadOnly):
    """A folder of bundles, each with its status.

    Keys get a suffix, since two bundles may have different results of one key. shown: the path for messages.
    """

    def __init__(self, root: Path, *, shown: Path | None = None) -> None:
        self.root = shown or root
        self.bundles: dict[str, Bundle] = {}
        for entry in entries(root).bundles:
            suffix = entry.checksum[:SUFFIX]
            bundle = Bundle(root / entry.file, suffix=suffix, status=entry.status)
            if bundle.checksum != entry.checksum:
                raise DataCorruptError(
                    f"bundle '{bundle.root}' is not the one that was merged", "remove it, and merge it again"
                )
            self.bundles[suffix] = bundle

    def keys(self) -> list[str]:
        return sorted(key for bundle in self.bundles.values() for key in Bundle.keys(bundle))

    def has_record_file(self, key: str) -> bool:
        return (bundle := self._of(key)) is not None and bundle.has_record_file(key)

    def record(self, key: str) -> Record | None:
        return bundle.record(key) if (bundle := self._of(key)) is not None else None

    def has_evidence(self, record: Record) -> bool:
        return (bundle := self._of(record.key)) is not None and bundle.has_evidence(record)

    def shipped(self, record: Record | RecordSummary) -> bool:
        return (bundle := self._of(record.key)) is not None and bundle.shipped(record)

    def whole(self, record: Record | RecordSummary) -> bool:
        return (bundle := self._of(record.key)) is not None and bundle.whole(record)

    def artifact_path(self, key: str) -> Path:
        return bundle.artifact_path(key) if (bundle := self._of(key)) is not None else super().artifact_path(key)

    def size_of(self, key: str) -> int:
        return bundle.size_of(key) if (bundle := self._of(key)) is not None else 0

    def standing(self, run: RunManifest) -> str:
        return bundle.standing(run) if (bundle := self._bundle_of(run)) is not None else ""

    def status_of(self, run: RunManifest) -> str:
        return bundle.status_of(run) if (bundle := self._bundle_of(run)) is not None else ""

    def origin(self, run: RunManifest) -> str:
        return bundle.origin(run) if (bundle := self._bundle_of(run)) is not None else ""

    def _bundle_of(self, run: RunManifest) -> Bundle | None:
        """The bundle that a run is from."""
        return self._of(next((planned.key for planned in run.trials if planned.key), ""))

    def manifest_files(self) -> Iterator[tuple[Path, RunManifest | None]]:
        for place, bundle in enumerate(self.bundles.values(), 1):
            for path, manifest in bundle.manifest_files():
                # the bundle that was merged last is the latest
                yield path, manifest and manifest.model_copy(update={"started": float(place)})

    def _of(self, key: str) -> Bundle | None:
        return self.bundles.get(key[-SUFFIX:])


def opened(path: Path) -> Store:
    """The store, bundle or collection at a path, for reading. "reference": the bundles that this package ships.

    StoreError or DataCorruptError if it cannot be read.
    """
    if str(path) == REFERENCE:
        return Collection(Path(str(resources.files("bench") / REFERENCE)), shown=path)
    if not is_bundle(path):
        return Store(path)
    return Collection(path) if (path / ENTRIES).exists() else Bundle(path)


def there(path: Path) -> bool:
    """Whether `opened` finds something at a path."""
    return str(path) == REFERENCE or path.exists()


def add(bundle: Bundle, root: Path, status: Standing) -> Entry:
    """Copy a bundle into a collection, which is made if it is not there. Returns its entry there.

    A bundle that is there already keeps its status if that is the higher one. StoreError if the folder holds something
    else, or has the name of the results that this package ships.
    """
    if str(root) == REFERENCE:
        raise StoreError(f"'{root}' is the word for the results that this package ships", "give another --store")
    suites = "+".join(name for run in bundle.runs() for name in run.suites)
    stem = re.sub(r"[^A-Za-z0-9_+-]+", "_", suites)[:NAME] or "bundle"
    with writing(root):
        root.mkdir(parents=True, exist_ok=True)
        with alone(root):  # or else one of two merges would leave out the other's bundle
            held = entries(root).bundles if (root / ENTRIES).exists() else []
            if not held and any(root.iterdir()):
                raise StoreError(f"'{root}' is no collection of bundles", "give an empty or a new folder (--store)")
            same = [one for one in held if one.checksum[:SUFFIX] == bundle.checksum[:SUFFIX]]
            status = max([status, *(one.status for one in same)], key=list(Standing).index)
            entry = Entry(file=f"{stem}-{bundle.checksum[:SUFFIX]}.zip", checksum=bundle.checksum, status=status)
            listed = Entries(collection=1, bundles=[*(one for one in held if one not in same), entry])
            write_whole(root / entry.file, packed(bundle.files()))
            write_whole(root / ENTRIES, encoded(listed))
    return entry


def entries(root: Path) -> Entries:
    """The bundles of a collection. StoreError if its list is damaged."""
    path = root / ENTRIES
    try:
        return Entries.model_validate(unchanged(read_json(path, RECORD_LIMIT)))
    except (OSError, ValueError):
        raise StoreError(f"'{path}' is missing or damaged: restore it, or merge the bundles again") from None
