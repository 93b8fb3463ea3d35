"""Makes bundles of runs: equal for equal runs, without hosts, times and paths, and without images and weights."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from bench.api.errors import StoreError
from bench.config.trial import canonical
from bench.engine.bundle import EVIDENCE, MANIFEST, RECORDS, Index, checksums_of, described, encoded, packed, tensors_of
from bench.engine.gc import needed
from bench.engine.recompute import Verifier
from bench.engine.record import SCHEMA, Artifact, Record, RunManifest, manifest_from, signed
from bench.engine.record import encoded as encoded_part
from bench.engine.store import INDEX, Store

if TYPE_CHECKING:
    from torch import Tensor

DIMENSIONS = 2  # images and filters of networks have more
# an absolute path of two or more parts, or of Windows
_PATH = re.compile(r"""(?<![\w./\\~])(?:/[^\s/'"`,;()\[\]{}<>=|]+){2,}/?|\b[A-Za-z]:[\\/][^\s'"`,;()\[\]{}<>=|]+""")

_HOME = re.compile(r"(?:/home|/Users)/[^\s/'\"`]+|(?<!\w)~\w[\w.-]*")  # what is left of them names a person


@dataclass(frozen=True)
class Published:
    """A bundle.

    trials: those with a result. without: number of planned trials without one. evidence: bytes before packing.
    """

    content: bytes
    trials: int
    without: int
    records: int
    evidence: int


def publish(
    store: Store, run: RunManifest, *, evidence: bool, watched: Callable[[list[Record]], Iterable[Record]] = iter
) -> Published:
    """The bundle of a run.

    evidence: with the tensors that its numbers follow from. watched: yields the trials while they are verified.
    StoreError if a trial does not verify, or a stage ran with code that no commit has.
    """
    keys = sorted(needed(store, [run], complete=False))
    records = {key: record for key in keys if (record := store.record(key)) is not None}
    planned = {trial.key for trial in run.trials if trial.key}
    done = [record for key in sorted(planned) if (record := records.get(key)) is not None and record.ok]
    if not done:
        raise StoreError(f"run {run.id} of store '{store.root}' has no finished trial: nothing to publish")
    _refuse_changed_code(run, records.values())
    verifier = Verifier(store)
    for record in watched(done):
        if found := verifier.problems(record, [trial for trial in run.trials if trial.key == record.key]):
            raise StoreError(
                f"nothing is published: {record.key[:8]} {record.label} does not verify ({found[0]})",
                "run `python -m bench verify`, which says what to do",
            )
    shipped = _evidence(store, {key: verifier.read[key] for key in sorted(verifier.read)} if evidence else {})
    tensors = tensors_of(shipped) if shipped else {}
    for key, record in records.items():
        if (held := record.artifact) is not None:
            sums = {"tensors": checksums_of(tensors[key])} if key in tensors else {}
            made = Artifact(sha256=held.sha256, bytes=held.bytes, **sums)
            records[key] = record.model_copy(update={"artifact": made})
    files = _texts(run, [*records.values()])
    if shipped:
        files[EVIDENCE] = gzip.compress(shipped, 9, mtime=0)
    index = Index(bundle=1, files={name: described(content) for name, content in sorted(files.items())})
    content = packed(files | {INDEX: encoded(index)})
    return Published(content, len(done), len(planned) - len(done), len(records), len(shipped))


def _refuse_changed_code(run: RunManifest, records: Collection[Record]) -> None:
    """StoreError if the run or a stage ran with code that differs from its commit."""
    commits = [run.provenance.git, *(record.provenance.git for record in records)]
    changed = [git for git in commits if git is not None and git.dirty]
    if changed:
        raise StoreError(
            f"nothing is published: the checkout of HashDoor had files that are in no commit when {len(changed)} of"
            f" {len(commits)} parts of run {run.id} ran (commit {changed[0]}), so that nobody can run the same code:"
            " commit or remove these files, and run the suite again into a new --store"
        )


def _evidence(store: Store, names: Mapping[str, AbstractSet[str]]) -> bytes:
    """A safetensors file with some tensors of artifacts; "" without any. StoreError for images and filters.

    names: by key.
    """
    from safetensors import safe_open
    from safetensors.torch import save

    held: dict[str, Tensor] = {}
    for key, wanted in names.items():
        if not wanted:
            continue
        with safe_open(store.artifact_path(key), framework="pt") as file:
            for name in wanted:
                if len(file.get_slice(name).get_shape()) > DIMENSIONS:
                    raise StoreError(f"tensor '{name}' of {key[:8]} could be images or weights, and is not published")
                held[f"{key}/{name}"] = file.get_tensor(name)
    content: bytes = save(held) if held else b""
    return content


def _texts(run: RunManifest, records: Sequence[Record]) -> dict[str, bytes]:
    """The files of the manifest and of the records, without hosts, times, logs and absolute paths."""
    lines = [_anonymous(record).as_json() for record in sorted(records, key=lambda one: (one.stage, one.key))]
    manifest = run.model_copy(update={"started": 0.0, "local": []}).as_json()
    short = _short_names([manifest, lines])
    lines = [Record.model_validate(_without_paths(line, short)).as_json() for line in lines]
    text = b"".join(canonical(signed({"schema": SCHEMA, **line})).encode() + b"\n" for line in lines)
    made = manifest_from(signed({"schema": SCHEMA, **_without_paths(manifest, short)}))
    assert made is not None, "a manifest stays one if its paths are shorter"
    return {RECORDS: gzip.compress(text, 9, mtime=0), MANIFEST: encoded_part(made)}


def _anonymous(record: Record) -> Record:
    cost = record.cost and record.cost.model_copy(update={"host": "", "started": 0.0})
    return record.model_copy(update={"cost": cost, "log": ""})


def _short_names(parts: Any) -> dict[str, str]:
    """A name for each absolute path in values of JSON: its last parts, as many as tell it from the other paths."""
    paths = {path for text in _strings(parts) for path in _paths(text)}
    found, several = {}, {path: PurePosixPath(path.replace("\\", "/")).parts for path in paths}
    for path, pieces in several.items():
        count = 1
        while count < len(pieces) - 1 and any(
            other[-count:] == pieces[-count:] for one, other in several.items() if one != path
        ):
            count += 1
        found[path] = "/".join(pieces[-count:]).strip("/") or "folder"
    return found


def _paths(text: str) -> Iterator[str]:
    if text.startswith("/") and "\n" not in text and len(text) > 1:  # it may hold spaces
        yield text
    else:
        yield from (found[0] for found in _PATH.finditer(text))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _strings(name)
            yield from _strings(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _strings(inner)


def _without_paths(value: Any, short: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return short[value] if value in short else _HOME.sub("~", _PATH.sub(lambda found: short[found[0]], value))
    if isinstance(value, Mapping):
        return {_without_paths(name, short): _without_paths(inner, short) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_paths(inner, short) for inner in value]
    return value
