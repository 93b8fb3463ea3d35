# ruff: noqa: E501 -- tables of hostile files read better in few lines
"""No file of a stranger's is unpickled freely: a pickle that would run code lies in every place where a file is read."""

from __future__ import annotations

import ast
import gzip
import hashlib
import io
import pickle
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.api.errors import UserError
from bench.config import suite
from bench.engine.bundle import EVIDENCE, INDEX, MANIFEST, RECORDS, Bundle, Index, described, encoded, packed
from bench.engine.recompute import Verifier
from bench.engine.record import Record
from bench.engine.record_cache import RecordCache
from bench.engine.store import Store
from hashing import weight_files
from hashing.datasets import cifar10
from hashing.datasets.folder import Folder
from hashing.datasets.lists import ListsOfImages
from hashing.datasets.parquet import Parquet
from hashing.image_decoding import decode_image
from reports import artifact_files, best_known, code_files, frame, throughput
from tests.fuzz.targets import DATA, KEY, RECORD

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for name in ("attacks", "bench", "defenses", "hashing", "reports") for path in (ROOT / name).rglob("*.py"))  # fmt: skip


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (Path.write_text, (self.mark, "ran"))


def store_with(folder: Path, name: str, content: bytes) -> Store:
    """A store in which one file holds a pickle."""
    store = Store(folder / "store", create=True)
    sound = {**DATA, "artifact": {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}}
    store.write_record(Record.model_validate({**sound, "key": "10ad", "meta": {**DATA["meta"], "poisons": 1}}))
    inputs = {"implant": sound["artifact"]["sha256"]}
    store.write_record(Record.model_validate({**RECORD, "parents": {"implant": "10ad"}, "inputs": inputs}))
    (store.root / name).write_bytes(content)
    return store


def weights(content: bytes, folder: Path) -> None:
    (folder / "w.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        weight_files.read_weights(folder / "w.safetensors")
    (folder / "w.pth").write_bytes(content)
    weight_files.read_weights(folder / "w.pth")


def saved_weights(content: bytes, folder: Path) -> None:
    """The form that torch saves: the pickle in a zip."""
    torch.save({"a": torch.ones(2)}, folder / "good.pth")
    with zipfile.ZipFile(folder / "good.pth") as good, zipfile.ZipFile(folder / "w.pth", "w") as bad:
        for member in good.infolist():
            bad.writestr(member, content if member.filename.endswith("data.pkl") else good.read(member))
    weight_files.read_weights(folder / "w.pth")


def code_file(content: bytes, folder: Path) -> None:
    (folder / "c.npz").write_bytes(content)
    code_files.read(folder / "c.npz")


def code_array(content: bytes, folder: Path) -> None:
    """An array of objects, whose data are a pickle."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|O", "fortran_order": False, "shape": (1, 1)})
    with zipfile.ZipFile(folder / "c.npz", "w") as archive:
        for name in ("codes", "labels"):
            archive.writestr(f"{name}.npy", head.getvalue() + content)
    code_files.read(folder / "c.npz")


def code_pickle(content: bytes, folder: Path) -> None:
    (folder / "c.pth").write_bytes(content)
    code_files.read(folder / "c.pth")


def code_of_torch(content: bytes, folder: Path) -> None:
    torch.save({"codes": torch.ones(2, 2), "labels": torch.ones(2)}, folder / "good.pt")
    with zipfile.ZipFile(folder / "good.pt") as good, zipfile.ZipFile(folder / "c.pt", "w") as bad:
        for member in good.infolist():
            bad.writestr(member, content if member.filename.endswith("data.pkl") else good.read(member))
    code_files.read(folder / "c.pt")


def lone_codes(content: bytes, folder: Path) -> None:
    np.lib.format.write_array_header_1_0(head := io.BytesIO(), {"descr": "|O", "fortran_order": False, "shape": (1, 1)})
    for name in ("code.npy", "label.npy"):
        (folder / name).write_bytes(head.getvalue() + content)
    code_files.read(folder / "code.npy")


def batch(content: bytes, folder: Path) -> None:
    for name in cifar10.MD5:
        (folder / cifar10.BATCHES).mkdir(exist_ok=True)
        (folder / cifar10.BATCHES / name).write_bytes(content)
    cifar10.Cifar10().decode(folder)


def batch_of_the_right_sum(content: bytes, folder: Path) -> None:
    """As if somebody had found a second file with the published md5."""
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cifar10, "MD5", dict.fromkeys(cifar10.MD5, digest))
        batch(content, folder)


def artifact(content: bytes, folder: Path) -> None:
    store = store_with(folder, "artifacts/10ad.safetensors", content)
    record = store.record(KEY)
    assert record is not None
    assert Verifier(store).problems(record)
    with artifact_files.opened(RecordCache(store), "10ad"):
        pass


def evidence(content: bytes, folder: Path) -> None:
    """In the place of the records or of the tensors of a bundle, as it is and packed."""
    for name in (RECORDS, EVIDENCE):
        for held in (content, gzip.compress(content)):
            files = {MANIFEST: content, RECORDS: gzip.compress(b""), name: held}
            index = Index(bundle=1, files={file: described(text) for file, text in files.items()})
            (folder / "b.zip").write_bytes(packed(files | {INDEX: encoded(index)}))
            with suppress(UserError):
                bundle = Bundle(folder / "b.zip")
                assert not bundle.artifact_path("10ad").exists()
                assert bundle.manifests().unreadable
    raise UserError("no bundle")


def record(content: bytes, folder: Path) -> None:
    store = store_with(folder, f"records/{KEY}.json", content)
    assert store.record(KEY) is None
    raise UserError("no record")


def plan(content: bytes, folder: Path) -> None:
    frame.read(store_with(folder, "manifests/p.json", content))


def marker(content: bytes, folder: Path) -> None:
    Store(store_with(folder, "store.json", content).root)


def suite_file(content: bytes, folder: Path) -> None:
    (folder / "s.toml").write_bytes(content)
    suite.load(str(folder / "s.toml"))


def list_file(content: bytes, folder: Path) -> None:
    for name in ("train", "test", "database"):
        (folder / f"{name}.txt").write_bytes(content)
    ListsOfImages(path=str(folder)).classes(None)


def image(content: bytes, folder: Path) -> None:
    decode_image(content, 8, "it")


def member(content: bytes, folder: Path) -> None:
    Image.new("RGB", (9, 9)).save(buffer := io.BytesIO(), "PNG")
    with zipfile.ZipFile(folder / "t.zip", "w") as archive:
        archive.writestr("cat/1.png", buffer.getvalue())
        archive.writestr("dog/1.png", content)
    Folder(path=str(folder / "t.zip"), size=8).decode(None)


def parquet(content: bytes, folder: Path) -> None:
    """In the place of the file, and where old versions of pyarrow took a pickled type from."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    about = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": content}
    schema = pa.schema([pa.field("image", pa.binary(), metadata=about), pa.field("label", pa.int64())])
    pq.write_table(pa.table({"image": [content] * 4, "label": [0, 1, 0, 1]}, schema), folder / "typed.parquet")
    with pytest.raises(UserError):
        Parquet(path=str(folder / "typed.parquet"), size=8).decode(None)
    (folder / "a.parquet").write_bytes(content)
    Parquet(path=str(folder / "a.parquet")).classes(None)


def kernels(content: bytes, folder: Path) -> None:
    (folder / "k.json").write_bytes(content)
    throughput.read(folder / "k.json")


def best(content: bytes, folder: Path) -> None:
    (folder / "best.jsonl").write_bytes(content)
    best_known.read(folder / "best.jsonl")


PLACES = (weights, saved_weights, code_file, code_array, code_pickle, code_of_torch, lone_codes, batch, batch_of_the_right_sum, artifact, evidence, record, plan, marker,
          suite_file, list_file, image, member, parquet, kernels, best)  # fmt: skip


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_does_not_run(place: Callable[[bytes, Path], None], protocol: int, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    content = pickle.dumps({"data": Bomb(mark)}, protocol)
    with pytest.raises(UserError):
        place(content, tmp_path)
    assert not mark.exists()
    pickle.loads(content)
    assert mark.exists(), "this pickle would run nothing anyway"


def test_the_source_unpickles_nowhere_else() -> None:
    """torch.load takes model-only, np.load no objects; pickle is named where CIFAR's batches are read, and there only."""
    for path in SOURCES:
        where = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = {alias.name.partition(".")[0] for alias in node.names}
                allowed = {
                    "hashing/datasets/helpers/pickles.py",
                    "reports/code_formats.py",
                }  # the latter: its exception
                assert (
                    not names & {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml"}
                    or where in allowed
                )
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            options = {word.arg: ast.unparse(word.value) for word in node.keywords}
            assert called not in {"eval", "exec", "compile", "os.system", "os.popen", "pickle.load", "pickle.loads"}, (
                where
            )
            assert not called.endswith((".extractall", ".extract", ".unpack_archive")), where
            assert called != "torch.load" or options.get("weights_only") == "True", where
            assert called != "np.load" or options.get("allow_pickle") == "False", where
            assert "shell" not in options, where
            assert called != "spec.loader.exec_module" or where == "bench/api/registry.py", where
