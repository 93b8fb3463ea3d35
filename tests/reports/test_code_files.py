"""Which files `score` reads, under which names it finds codes and labels, and where it cuts bits."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import scipy.io
import torch

from bench.api.errors import UserError
from reports.board import Board
from reports.code_files import EMBEDDINGS, CodeFile, packed, read
from reports.matlab_files import arrays
from reports.score import score

pa = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'hashdoor[parquet]'")
pq = pytest.importorskip("pyarrow.parquet")

RNG = np.random.default_rng(0)
LABELS = {"query": RNG.integers(0, 3, 12), "database": RNG.integers(0, 3, 40)}
LOGITS = {side: RNG.normal(np.eye(3, 16)[labels] * 3 - 0.5) for side, labels in LABELS.items()}


def values(board: Board) -> dict[str, float]:
    return dict(zip(board.table["metric"], board.table["value"], strict=True))


def saved(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    if path.suffix == ".mat":
        scipy.io.savemat(path, arrays, do_compression=True)
    elif path.suffix in {".pt", ".pth"}:
        legacy = path.suffix == ".pth"
        torch.save({name: torch.tensor(array) for name, array in arrays.items()}, path,
                   _use_new_zipfile_serialization=not legacy)  # fmt: skip
    elif path.suffix == ".safetensors":
        safetensors.numpy.save_file(arrays, path)
    elif path.suffix == ".parquet":
        pq.write_table(pa.table({"codes": [*arrays["codes"]], "labels": arrays["labels"]}), path, row_group_size=7)
    elif path.suffix == ".npy":
        np.save(path, arrays["codes"])
        np.save(path.with_name(path.name.replace("binary", "label")), arrays["labels"])
    else:
        np.savez(path, **arrays)
    return path


def both(folder: Path, codes: dict[str, np.ndarray] = LOGITS, suffix: str = ".npz") -> list[Path]:
    return [saved(folder / f"{side}_binary{suffix}", {"codes": codes[side], "labels": LABELS[side]}) for side in codes]


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".pt", ".pth", ".mat", ".safetensors", ".parquet"])
@pytest.mark.parametrize("kind", ["logits", "half", "signs", "bits", "booleans"])
def test_all_formats_hold_the_same_numbers(tmp_path: Path, suffix: str, kind: str) -> None:
    changes = {"logits": lambda x: x, "half": np.float16, "signs": lambda x: np.sign(x).astype(np.int8),
               "bits": lambda x: (x > 0).astype(np.uint8), "booleans": lambda x: x > 0}  # fmt: skip
    codes = {side: changes[kind](array) for side, array in LOGITS.items()}
    if kind == "half" and suffix == ".mat":
        codes = {side: array.astype(np.float32) for side, array in codes.items()}  # MATLAB has no half
    expected = values(score(*both(tmp_path))[0])
    assert 0.4 < expected["mAP"] < 0.99
    assert values(score(*both(tmp_path, codes, suffix))[0]) == pytest.approx(expected)


@pytest.mark.parametrize("suffix", [".npz", ".pt", ".mat"])
def test_multi_hot_labels_and_columns_of_ids_are_labels(tmp_path: Path, suffix: str) -> None:
    expected = values(score(*both(tmp_path))[0])
    for change in (lambda x: np.eye(3)[x], lambda x: x[:, None].astype(float), lambda x: x[None]):
        paths = [saved(tmp_path / f"{s}{suffix}", {"codes": LOGITS[s], "labels": change(LABELS[s])}) for s in LOGITS]
        assert values(score(*paths)[0]) == pytest.approx(expected)


@pytest.mark.parametrize(
    "names",
    [("qB", "qL", "rB", "rL"), ("tst_binary", "tst_label", "trn_binary", "trn_label"), ("B_te", "L_te", "B_tr", "L_tr"),
     ("query_codes", "query_labels", "database_codes", "database_labels"), ("hash_codes", "targets") * 2],
)  # fmt: skip
def test_names_of_the_field_are_understood_and_said(tmp_path: Path, names: tuple[str, str, str, str]) -> None:
    arrays = [LOGITS["query"], LABELS["query"], LOGITS["database"], LABELS["database"]]
    held = list(zip(names, arrays, strict=True))
    query, base = saved(tmp_path / "q.npz", dict(held[:2])), saved(tmp_path / "d.npz", dict(held[2:]))
    (board,) = score(query, base)
    assert values(board) == pytest.approx(values(score(*both(tmp_path))[0]))
    assert names[0] in board.caption
    if len(set(names)) == 4:
        one = saved(tmp_path / "one.npz", dict(held))
        assert values(score(one, one)[0]) == values(board), "the side decides"


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"B": np.ones((3, 4)), "H": np.ones((3, 4)), "L": np.arange(3)}, "both 'B' and 'H'"),
        ({"rB": np.ones((3, 4)), "L": np.arange(3)}, "no array 'codes'; it has: rB, L"),
        ({"features": np.ones((3, 4)), "L": np.arange(3)}, "no array 'codes'"),
    ],
)
def test_names_are_not_guessed(tmp_path: Path, arrays: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(UserError, match=words):
        read(saved(tmp_path / "q.npz", arrays), "query")


def test_codes_alone_need_their_labels_beside(tmp_path: Path) -> None:
    np.save(tmp_path / "tst_binary.npy", np.ones((3, 4)))
    with pytest.raises(UserError, match=r"labels into 'tst_label\.npy' beside it"):
        read(tmp_path / "tst_binary.npy")
    np.save(tmp_path / "mine.npy", np.ones((3, 4)))
    with pytest.raises(UserError, match=r"codes without labels: write it with numpy\.savez"):
        read(tmp_path / "mine.npy")
    np.savez(tmp_path / "tst_label.npy", labels=np.arange(3))
    (tmp_path / "tst_label.npy.npz").rename(tmp_path / "tst_label.npy")
    with pytest.raises(UserError, match="labels alone"):
        read(tmp_path / "tst_binary.npy")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"MATLAB 7.3 MAT-file, Platform: GLNXA64" + bytes(474) + b"\x89HDF\r\n\x1a\n", "MATLAB 7.3.*-v7"),
        (b"MATLAB 5.0 MAT-file" + bytes(200), "not a MATLAB file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
        (b"codes,labels\n", "no file of numpy, torch, safetensors, Parquet or MATLAB"),
        (b"", "no file of numpy, torch, safetensors, Parquet or MATLAB"),
        (b"\x80\x04K\x01.", "more than tensors"),
    ],
)
def test_other_files_are_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "c.bin"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words) as caught:
        read(path)
    assert "numpy.savez" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("kind", ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "b1"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (4, 2), (5, 7), (0, 3)])
def test_matlab_s_arrays_are_those_that_scipy_reads(
    tmp_path: Path, compressed: bool, kind: str, shape: tuple[int, int]
) -> None:
    written = {"A": (10 * RNG.random(shape)).astype(kind), "words": "abc", "cell": np.array([[1, "a"]], object)}
    scipy.io.savemat(tmp_path / "c.mat", written, do_compression=compressed)
    (found,) = arrays((tmp_path / "c.mat").read_bytes(), 2**20).items()
    theirs = scipy.io.loadmat(tmp_path / "c.mat", mat_dtype=False)["A"]
    assert found[0] == "A"
    assert np.array_equal(found[1].read(), theirs)
    assert found[1].read().dtype == np.dtype(kind)


def test_matlab_of_other_machines_is_read() -> None:
    def element(kind: int, data: bytes) -> bytes:
        return struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)

    flags, sides, numbers = struct.pack(">II", 6, 0), struct.pack(">ii", 2, 3), struct.pack(">6h", *range(6))
    parts = [(6, flags), (5, sides), (1, b"codes"), (3, numbers)]
    content = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI" + element(14, b"".join(element(*one) for one in parts))
    found = arrays(content, 2**20)["codes"].read()
    assert found.tolist() == [[0, 2, 4], [1, 3, 5]]
    assert found.dtype == np.float64


def test_a_matlab_file_of_version_4_is_named(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "c.mat", {"codes": np.ones((3, 4)), "labels": np.arange(3)}, format="4")
    with pytest.raises(UserError, match="not a MATLAB file of version 5 to 7"):
        read(tmp_path / "c.mat")


def test_what_matlab_calls_something_else_is_no_array(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "c.mat", {"codes": np.array([["a"]], object), "labels": "words", "B": np.ones((3, 4))})
    with pytest.raises(UserError, match="it has: B"):
        read(tmp_path / "c.mat")


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-x)))


def test_outputs_of_a_sigmoid_are_cut_at_one_half_and_said_to_be(tmp_path: Path) -> None:
    expected = values(score(*both(tmp_path))[0])
    for outputs in ({s: sigmoid(x) for s, x in LOGITS.items()}, {s: sigmoid(99 * x) for s, x in LOGITS.items()},
                    {"query": LOGITS["query"] > 0, "database": sigmoid(LOGITS["database"])}):  # fmt: skip
        (board,) = score(*both(tmp_path, outputs))
        assert values(board) == pytest.approx(expected)
        assert "code > 0.5" in board.caption
    assert "code > 0.5" not in score(*both(tmp_path))[0].caption


@pytest.mark.parametrize("change", [lambda x: x + 9, lambda x: -np.abs(x), lambda x: (x > 0) + 1.0, np.exp])
def test_numbers_without_a_sign_are_refused(tmp_path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    with pytest.raises(UserError, match="subtract the threshold"):
        score(*both(tmp_path, {side: change(x) for side, x in LOGITS.items()}))


@pytest.mark.parametrize("code", [np.ones(16, np.int8), np.where(np.arange(16) % 3, 1.0, -1.0), np.zeros(16, np.bool_)])
@pytest.mark.parametrize("side", ["query", "database"])
def test_equal_codes_are_scored_and_said(tmp_path: Path, code: np.ndarray, side: str) -> None:
    """A perfect trigger makes all codes equal, as a collapsed model does."""
    (board,) = score(*both(tmp_path, {**LOGITS, side: np.tile(code, (len(LABELS[side]), 1))}))
    assert f"All {len(LABELS[side])} codes of '{tmp_path / side}_binary.npz' are equal." in board.caption
    assert board.caption.count("are equal") == 1


def test_one_query_is_no_collapse() -> None:
    one = CodeFile(Path("q"), np.ones((1, 4)) * 0.3, np.zeros(1, np.int64))
    base = CodeFile(Path("d"), np.array([[1, 1, -1, -1], [1, -1, 1, -1]]), np.zeros(2, np.int64))
    queries, _, notes = packed(one, base)
    assert (queries.unpack() == 1).all(), "the other side has both signs: these are no outputs of a sigmoid"
    assert len(notes) == 1


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float16(), 3)])
def test_lists_of_parquet_are_rows(tmp_path: Path, kind: pa.DataType) -> None:
    rows = np.array([[1.0, -2, 0.5], [0.25, 3, -1]], dtype=np.float16)
    hot = [[True, False], [True, True]]
    pq.write_table(pa.table({"embedding": pa.array([*rows], kind), "label": hot}), tmp_path / "a.parquet")
    found = read(tmp_path / "a.parquet", words=EMBEDDINGS)
    np.testing.assert_array_equal(found.codes, rows)
    np.testing.assert_array_equal(found.labels, hot)
    assert "'embedding' and 'label'" in found.note


def test_texts_of_parquet_are_class_names(tmp_path: Path) -> None:
    pq.write_table(pa.table({"codes": [[1.0], [-1.0]], "labels": ["cat", "ant"]}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet").labels.tolist() == ["cat", "ant"]


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ([[1.0, 2.0], [1.0]], "its lists are empty or of different lengths"),
        ([[], []], "its lists are empty or of different lengths"),
        ([[1.0], None], "its lists are empty or of different lengths"),
        ([[1.0], [None]], "it holds values that are null"),
        ([1.0, 2.0], r"codes have shape \[2\]; expected \[items, bits\]"),
        ([{"a": 1.0}, {"a": 2.0}], "codes are object"),
    ],
)
def test_columns_of_parquet_that_are_no_codes_are_named(tmp_path: Path, codes: list[object], message: str) -> None:
    pq.write_table(pa.table({"codes": codes, "labels": [0, 1]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path / "a.parquet")
    assert "\n" not in str(caught.value)


def test_a_parquet_file_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = both(tmp_path, suffix=".parquet")[0]
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"query_binary.parquet' needs the package pyarrow: .*hashdoor\[parquet\]"):
        read(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".parquet"])
def test_a_damaged_file_is_one_line(tmp_path: Path, suffix: str) -> None:
    path = both(tmp_path, suffix=suffix)[0]
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(UserError, match=r"damaged|cannot be read as Parquet") as caught:
        read(path)
    assert "\n" not in str(caught.value)
