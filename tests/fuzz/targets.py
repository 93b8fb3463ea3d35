"""What every reader of strangers' files must keep: it accepts, or it says UserError in a line; no crash, no hang.

A target takes bytes and a folder to write in. Tests feed it what hypothesis makes, `run.py` what atheris finds.
"""

from __future__ import annotations

import gzip
import itertools
import json
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

from attacks.helpers import poison_sets
from bench.api.archives import walk
from bench.api.errors import UserError
from bench.config import expand, suite
from bench.config.trial import Spec
from bench.engine import bundle as bundling
from bench.engine.record import SCHEMA, encoded, signed
from bench.engine.record_cache import RecordCache
from bench.engine.runs import ALL, chosen
from bench.engine.store import Store
from hashing import weight_files
from hashing.datasets.folder import Folder
from hashing.datasets.lists import ListsOfImages
from hashing.datasets.parquet import Parquet
from hashing.image_decoding import decode_image, decode_rgba
from reports import best_board, best_known, frame, render, score, throughput, trial_details
from reports.board_registry import BoardData, all_boards, make_boards

PARTS = b"\n\x1e\n"  # between the files of one input
SECONDS = 60  # an input that takes longer hangs, on a slow machine too
INDEXES = tuple(poison_sets.READERS)
ENDINGS = ("zip", "tar", "tar.gz", "tgz", "tar.xz", "txz")
KEY, LOAD = "ab" * 16, "10ad"
Target = Callable[[bytes, Path], bool]


@contextmanager
def promptly() -> Iterator[None]:
    """TimeoutError in an input that takes too long."""

    def late(*_: object) -> None:
        raise TimeoutError(f"longer than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def holds(target: Target, data: bytes, folder: Path) -> bool:
    """Whether the target accepted the input; whatever is not a UserError goes on."""
    with promptly():
        try:
            return target(data, folder)
        except UserError as error:
            said = str(error)
    assert said.strip()
    return False


def suites(data: bytes, folder: Path) -> bool:
    """A suite's text, then changes as `--set` takes them."""
    text, *changes = data.split(PARTS)
    path = folder / "s.toml"
    path.write_bytes(text)
    made = suite.load(str(path), changes=[change.decode(errors="replace") for change in changes])
    for trial in itertools.islice(made.trials(None), 20):
        assert trial.axes() if not isinstance(trial, expand.Skipped) else trial.reason
    return True


def lists(data: bytes, folder: Path) -> bool:
    """train.txt, test.txt, database.txt, classes.txt."""
    place = Path(tempfile.mkdtemp(dir=folder))  # lists that look unchanged are not read again
    parts = [*data.split(PARTS), b"", b"", b"", b""]
    for name, part in zip(("train", "test", "database", "classes"), parts, strict=False):
        (place / f"{name}.txt").write_bytes(part)
    held = ListsOfImages(path=str(place))
    classes = held.classes(None)
    assert len({*classes}) == len(classes) > 0
    held.protocol(None)
    with pytest.raises(UserError):  # no image of the lists is there
        held.decode(None)
    return True


def archives(data: bytes, folder: Path) -> bool:
    """The first byte chooses the ending."""
    path = folder / f"a.{ENDINGS[data[0] % len(ENDINGS)] if data else 'zip'}"
    path.write_bytes(data[1:])
    for name, read in walk(path):
        assert not name.startswith("/")
        assert ".." not in name.split("/")
        if read is not None:
            read()
    with suppress(UserError):  # most of what can be read holds no tree of classes
        Folder(path=str(path)).classes(None)
    return True


def parquet(data: bytes, folder: Path) -> bool:
    path = Path(tempfile.mkdtemp(dir=folder)) / "a.parquet"  # a file that looks unchanged is not read again
    path.write_bytes(data)
    held = Parquet(path=str(path), size=8)
    assert len({*held.classes(None)}) > 1
    pool = held.decode(None)
    assert len(pool.images) == len(pool.labels)
    return True


def images(data: bytes, folder: Path) -> bool:
    assert decode_image(data, 8, "it").shape == (3, 8, 8)
    picture, opacity = decode_rgba(data, "it", channels=1)
    assert picture.shape == opacity.shape
    return True


def codes(data: bytes, folder: Path) -> bool:
    for path in (folder / "c.mat", folder / "c.safetensors", folder / "c.npz"):
        path.write_bytes(data)
        with suppress(UserError) if path.suffix != ".npz" else nullcontext():
            score.score(path, path)
    return True


def weights(data: bytes, folder: Path) -> bool:
    for path in (folder / "w.safetensors", folder / "w.pth"):
        path.write_bytes(data)
        with suppress(UserError) if path.suffix == weight_files.SAFE else nullcontext():
            weight_files.read_weights(path)
    return True


def poisons(data: bytes, folder: Path) -> bool:
    """An index of poisoned images, of the kind that its first byte chooses, beside two pictures."""
    base = Path(tempfile.mkdtemp(dir=folder))
    (base / "train").mkdir()
    for name in ("a.png", "b.png"):
        (base / "train" / name).touch()
    (base / f"train{INDEXES[data[0] % len(INDEXES)] if data else INDEXES[0]}").write_bytes(data[1:])
    entries = poison_sets.read_entries(base, poison_sets.TRAIN, 0)
    assert {entry.file.name for entry in entries} == {"a.png", "b.png"}
    for entry in entries:
        with suppress(UserError):
            poison_sets.label_vector(entry, ("cat", "dog"))
    return True


def kernels(data: bytes, folder: Path) -> bool:
    path = folder / "k.json"
    path.write_bytes(data)
    throughput.read(path)
    return True


def _filled(data: bytes, folder: Path) -> Store:
    """A store that holds a record, a plan and the record of its data."""
    root = folder / "store"
    store = Store(root, create=True) if not root.exists() else Store(root)
    record, run, *load = data.split(PARTS) if PARTS in data else (data, data)
    files = {"records": {KEY: record, LOAD: load[0] if load else json.dumps(DATA).encode()}, "manifests": {"p": run}}
    for kind, held in files.items():
        for old in (root / kind).glob("*.json"):
            old.unlink()
        for name, content in held.items():
            (root / kind / f"{name}.json").write_bytes(sealed(content))
    return store


def sealed(content: bytes) -> bytes:
    """JSON with the checksum that a stranger would give it; what is no JSON table stays."""
    try:
        given = json.loads(content)
        return json.dumps(signed({k: v for k, v in given.items() if k != "checksum"})).encode()
    except (ValueError, AttributeError, TypeError, RecursionError):
        return content


def records(data: bytes, folder: Path) -> bool:
    """A record and a plan as a table of results; what is damaged counts as absent."""
    store = _filled(data, folder)
    sound = len(list(store.records()))
    made, found = chosen(store, ALL), frame.read(store, run=ALL)
    rows = [*found.trials.to_dict("records"), *found.detectors.to_dict("records")]
    json.dumps(rows, ensure_ascii=False, default=Spec.as_json).encode()
    assert all(encoded(part) for part in (*made, *store.records()))
    return sound == 2


def reports(data: bytes, folder: Path) -> bool:
    """The same through every table, as it is printed."""
    store = _filled(data, folder)
    found = frame.read(store)
    board_data, made = BoardData(found, RecordCache(store)), list[Any]()
    for name, kind in all_boards().items():
        try:
            made += make_boards(name, board_data, kind.on_page)
        except UserError:  # not every run has every table
            continue
    made += trial_details.page(store, KEY[:8])
    for write in (render.markdown, render.latex, render.csv, render.as_json):
        write(made).encode()
    "".join(map(render.plain, made)).encode()
    return True


def bundles(data: bytes, folder: Path) -> bool:
    """The content in the place of each file of a bundle whose other files are sound."""
    own = {
        bundling.INDEX: data,
        bundling.MANIFEST: sealed(data),
        bundling.RECORDS: gzip.compress(sealed(data)),
        bundling.EVIDENCE: gzip.compress(data),
    }
    accepted, path = 0, folder / "b.zip"
    for name, content in own.items():
        files = {bundling.MANIFEST: sealed(json.dumps(RUN).encode()), bundling.RECORDS: gzip.compress(b"")}
        files |= {name: content}
        listed = {file: bundling.described(text) for file, text in files.items() if file != bundling.INDEX}
        index = bundling.encoded(bundling.Index(bundle=1, files=listed))
        path.write_bytes(bundling.packed({bundling.INDEX: index} | files))
        with suppress(UserError):
            bundle = bundling.Bundle(path)
            bundle.artifact_path(KEY)
            held = [*bundle.records(), *(run for run in bundle.runs() if name == bundling.MANIFEST)]
            accepted += bool(held) or bundle.size_of("a") > 0
    return accepted > 0


def best(data: bytes, folder: Path) -> bool:
    """A line of the list of best known results, and its tables."""
    path = folder / "best.jsonl"
    path.write_bytes(sealed(data))
    known = best_known.read(path)
    made = best_board.boards(known)
    for write in (render.markdown, render.latex, render.csv, render.as_json):
        write(made).encode()
    return bool(known.entries)


TARGETS: dict[str, Target] = {
    "suites": suites, "lists": lists, "archives": archives, "images": images, "codes": codes, "weights": weights,
    "kernels": kernels, "records": records, "reports": reports, "bundles": bundles,
    "best": best, "parquet": parquet, "poisons": poisons,
}  # fmt: skip

DATA: dict[str, Any] = {
    "schema": SCHEMA, "key": LOAD, "stage": "load", "label": "load toy", "status": "ok", "reason": "", "log": "",
    "parents": {}, "code": "l", "meta": {"classes": ["a", "b"], "protocol": "toy", "cutoff": None}, "metrics": {},
    "artifact": None, "cost": {"seconds": 1.5, "started": 1e9, "host": "here"},
}  # fmt: skip
RECORD: dict[str, Any] = DATA | {
    "key": KEY, "stage": "measure", "label": "measure badnets", "inputs": {"load": None},
    "parents": {"load": LOAD, "implant": "cd" * 16}, "spec": {"bits": 8, "target": ["a"],
    "attack": {"name": "badnets", "params": {"poisons": 4}}},
    "meta": {"protocol": {"name": "toy", "version": 2, "cutoff": None, "sizes": {"query": 9}, "digests": {"q": "1"}},
             "notes": {"rate": 0.5}},
    "metrics": {"map": 0.9, "t_map": 0.8, "gain": 0.7, "t_map_control": 0.1, "own_map": 0.2, "own_map_control": 0.9,
                "chance": 0.1, "collapsed": 0.0, "poisons": 4, "psnr": None, "map_clean": 0.9, "map_chance": 0.1,
                "detectors": {"headline": "x", "scores": {"x": {"auroc": 0.9, "tpr_1": None}}}},
    "provenance": {"metrics": 1, "device": "cpu", "packages": {"torch": "2.4"}, "python": "3", "system": "s",
                   "processor": "p", "git": {"commit": "0" * 40, "dirty": False}},
}  # fmt: skip
TRIAL: dict[str, Any] = {  # components by their positions in the list below
    "dataset": 0, "backbone": 1, "method": 2, "bits": 8, "attack": 3, "defense": 4, "target": ["a"], "seed": 0,
    "surrogate": "other_seed", "surrogate_seed": 1, "augment": "victim", "training": {"lr": 0.1},
}  # fmt: skip
COMPONENTS = [{"name": name, "params": {}, "given": {}} for name in ("toy", "net", "csq", "badnets", "strip", "none")]
COMPONENTS[3] |= {"params": {"poisons": 4, "labels": "dirty"}, "given": {"poisons": 4}}
RUN: dict[str, Any] = {
    "schema": SCHEMA, "suites": ["toy"], "descriptions": {"toy": "A toy."},
    "command": "python -m bench run --suite toy",
    "components": COMPONENTS,
    "trials": [
        {"trial": TRIAL, "key": KEY, "skipped": "", "access": "dirty-label", "targeted": True,
         "defense_kind": "input_detector", "threads": 1, "surrogate_seed": 1, "seed_dependent": True},
        {"trial": TRIAL | {"attack": 5, "defense": 5, "training": {}}, "key": None, "skipped": "no data"},
    ],
}  # fmt: skip
KERNELS: dict[str, Any] = {
    "machine": {"processor": "p", "cores": 2, "packages": {"numpy": "2", "faiss-cpu": None}},
    "rows": [{"section": "ranking", "operation": "AP", "by": "HashDoor", "threads": 1, "bits": 64, "items": 10,
              "unit": "query", "seconds": [1e-6, 2e-6, 3e-6], "codes": 1, "nbytes": 8, "faster": None, "limit": 0.5,
              "note": ""}],
}  # fmt: skip


ENTRY: dict[str, Any] = json.loads(best_known.shipped_path().read_bytes().splitlines()[0])


def timed(target: Target, inputs: Iterator[bytes], folder: Path, seconds: float) -> tuple[int, int]:
    """How many inputs went through in so many seconds, and how many of them were accepted."""
    started, count, accepted = time.monotonic(), 0, 0
    while time.monotonic() - started < seconds:
        accepted += holds(target, next(inputs), folder)
        count += 1
    return count, accepted
