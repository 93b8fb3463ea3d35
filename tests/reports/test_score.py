import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from bench.api.errors import UserError
from reports.code_files import read
from reports.quantisation import quantised
from reports.score import score

# three items: two of class 0 at distance 0 and 1, one of class 7 at distance 2
DATABASE = np.array([[1, 1, 1, 1], [1, 1, 1, -1], [1, 1, -1, -1]])
LABELS = np.array([0, 7, 0])
QUERY = np.array([[1, 1, 1, 1]])


@pytest.fixture
def save(tmp_path):
    def write(name, **arrays):
        path = tmp_path / f"{name}.npz"
        np.savez(path, **arrays)
        return path

    return write


def values(board):
    return dict(zip(board.table["metric"], board.table["value"], strict=True))


def pair(save, codes=QUERY, labels=(0,)):
    return save("q", codes=codes, labels=np.asarray(labels)), save("d", codes=DATABASE, labels=LABELS)


def test_metrics_by_hand(save):
    (board,) = score(*pair(save))
    found = values(board)
    assert found["mAP"] == pytest.approx((1 + 2 / 3) / 2)
    assert [found["mAP worst ties"], found["mAP best ties"]] == pytest.approx([5 / 6, 5 / 6])
    assert (found["P@r2"], found["R@r2"], found["empty balls"]) == (pytest.approx(2 / 3), 1, 0)
    assert found["P@3"] == pytest.approx(2 / 3)
    assert found["chance"] == pytest.approx(np.mean([1, (1 + 2 / 3) / 2, (1 / 2 + 2 / 3) / 2]))
    assert found["queries"] == 1


def test_a_cutoff_counts_only_the_first(save):
    found = values(score(*pair(save), cutoff=2)[0])
    assert found["mAP"] == pytest.approx(1 / 2)  # min(relevant, R) = 2, one found first
    assert [found["mAP zero@R"], found["mAP drop@R"]] == pytest.approx([1, 1])


def test_triggered_queries_are_scored_by_the_target(save):
    (board,) = score(*pair(save), target="7")
    found = values(board)
    assert found["t-mAP"] == pytest.approx(1 / 2)
    assert found["own-mAP"] == pytest.approx(5 / 6)
    assert found["chance"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert found["triggered"] == 1
    assert "gain" not in found


def test_queries_of_the_target_are_left_out(save):
    (board,) = score(*pair(save, np.repeat(QUERY, 2, 0), [0, 7]), target="7")
    assert values(board)["triggered"] == 1


@pytest.mark.parametrize(
    "codes",
    [QUERY.astype(np.int8), QUERY > 0, (QUERY > 0).astype(np.uint8), QUERY * 0.3, (QUERY * 9.0).astype(np.float16)],
    ids=["signs", "booleans", "bits", "relaxed", "half"],
)  # fmt: skip
def test_all_spellings_of_codes_are_one(save, codes):
    assert values(score(*pair(save, codes))[0])["mAP"] == pytest.approx(5 / 6)


def test_labels_as_ids_names_and_multi_hot_agree(save):
    ids = values(score(*pair(save))[0])
    names = np.array(["cat", "dog", "cat"])
    hot = np.array([[1, 0], [0, 1], [1, 0]])
    for q, d in ((["cat"], names), (hot[:1], hot), (hot[:1].astype(bool), hot.astype(float)), ([0.0], LABELS * 1.0)):
        a, b = save("a", codes=QUERY, labels=np.asarray(q)), save("b", codes=DATABASE, labels=d)
        assert values(score(a, b)[0]) == pytest.approx(ids)
    a, b = save("a", codes=QUERY, labels=np.array(["cat"])), save("b", codes=DATABASE, labels=names)
    assert values(score(a, b, target="dog")[0])["t-mAP"] == pytest.approx(1 / 2)


def test_a_query_without_relevant_items_changes_no_mean(save):
    (board,) = score(*pair(save, np.repeat(QUERY, 2, 0), [0, 3]))
    (without,) = score(*pair(save))
    found, alone = values(board), values(without)
    assert (found["queries"], found["excluded"]) == (2, 1)
    assert {name for name in found if found[name] != alone[name]} == {"queries", "excluded"}
    assert "leaves out 1 of the 2 queries" in board.caption
    assert "leaves out" not in without.caption


CODES = np.ones((3, 4))
MISTAKES = {
    "no codes": ({"labels": LABELS}, "no array 'codes'; it has: labels"),
    "no labels": ({"codes": CODES}, "no array 'labels'"),
    "nothing": ({}, "it has: nothing"),
    "flat codes": ({"codes": np.ones(3), "labels": LABELS}, r"shape \[3\]; expected \[items, bits\]"),
    "no bits": ({"codes": np.ones((3, 0)), "labels": LABELS}, r"shape \[3, 0\]"),
    "no items": ({"codes": np.ones((0, 4)), "labels": LABELS[:0]}, r"at least one item"),
    "NaN": ({"codes": np.where(np.eye(3, 4), np.nan, 1), "labels": LABELS}, "NaN in 3 of 3 items"),
    "objects": ({"codes": CODES.astype(object), "labels": LABELS}, "objects are not accepted"),
    "complex": ({"codes": CODES.astype(complex), "labels": LABELS}, "are complex128"),
    "text": ({"codes": np.full((3, 4), "1"), "labels": LABELS}, "numbers or booleans"),
    "packed": ({"codes": np.full((3, 4), 200, np.uint8), "labels": LABELS}, "integer 200.*unpackbits"),
    "too few labels": ({"codes": CODES, "labels": LABELS[:2]}, "3 codes but 2 labels"),
    "negative ids": ({"codes": CODES, "labels": LABELS - 1}, "class id -1"),
    "half ids": ({"codes": CODES, "labels": LABELS + 0.5}, "not whole numbers"),
    "NaN ids": ({"codes": CODES, "labels": LABELS + np.nan}, "not whole numbers"),
    "counts": ({"codes": CODES, "labels": np.full((3, 2), 2)}, "not multi-hot"),
    "cube": ({"codes": CODES, "labels": np.ones((3, 2, 2))}, r"expected \[items\] or"),
    "dates": ({"codes": CODES, "labels": LABELS.astype("datetime64[s]")}, "are datetime64"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_wrong_file_is_one_line(save, name):
    arrays, words = MISTAKES[name]
    with pytest.raises(UserError, match=words) as caught:
        read(save("wrong", **arrays))
    assert "\n" not in str(caught.value)
    assert "wrong.npz" in str(caught.value)


def damaged(kind: str, path: Path) -> None:
    good = io.BytesIO()
    np.savez_compressed(good, codes=np.random.default_rng(0).normal(size=(50, 16)), labels=np.arange(50))
    content = bytearray(good.getvalue())
    if kind == "cut":
        content = content[: len(content) // 2]
    elif kind == "flipped":
        content[200:400] = bytes(200)
    elif kind == "empty":
        content = bytearray()
    elif kind == "text":
        content = bytearray(b"codes,labels\n1,2\n")
    elif kind == "single":
        single = io.BytesIO()
        np.save(single, np.ones((3, 4)))
        content = bytearray(single.getvalue())
    elif kind == "zip":
        other = io.BytesIO()
        with zipfile.ZipFile(other, "w") as archive:
            archive.writestr("codes", "no array")
            archive.writestr("labels", "no array")
        content = bytearray(other.getvalue())
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("kind", ["cut", "flipped", "empty", "text", "single", "zip", "absent", "folder"])
def test_a_damaged_file_is_one_line(tmp_path, kind):
    path = tmp_path / "x.npz"
    if kind == "folder":
        path.mkdir()
    elif kind != "absent":
        damaged(kind, path)
    with pytest.raises(UserError) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_a_pickle_is_never_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.write_text, (tmp_path / "ran", "x"))

    path = tmp_path / "x.npz"
    np.savez(path, codes=np.array([Bomb()], dtype=object), labels=LABELS)
    with pytest.raises(UserError):
        read(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("query", "options", "words"),
    [
        ({"codes": np.ones((1, 5)), "labels": np.array([0])}, {}, "has 5 bits and .* has 4"),
        ({"codes": QUERY, "labels": np.ones((1, 2))}, {}, "labels do not fit"),
        ({"codes": QUERY, "labels": np.array(["cat"])}, {}, "labels do not fit"),
        ({"codes": QUERY, "labels": np.array([0])}, {"target": "8"}, "unknown target label '8'"),
        ({"codes": QUERY, "labels": np.array([7])}, {"target": "7"}, "every query .* carries the target 7"),
        (
            {"codes": np.repeat(QUERY, 2, 0), "labels": np.array([0, 9])},
            {"target": "9"},
            "no item .* carries the target 9",
        ),
        ({"codes": QUERY, "labels": np.array([0])}, {"cutoff": 0}, "at least 1"),
    ],
)
def test_files_that_do_not_fit(save, query, options, words):
    a, b = save("q", **query), save("d", codes=DATABASE, labels=LABELS)
    with pytest.raises(UserError, match=words):
        score(a, b, **options)


def test_nobody_waits_for_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "p.npz")
    with pytest.raises(UserError, match="is no ordinary file"):
        read(tmp_path / "p.npz")


def embedded(save, queries=60, items=300, **more):
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((4, 16))
    labels = rng.integers(0, 4, queries + items)
    found = (centres[labels] + 0.8 * rng.standard_normal((len(labels), 16))).astype(np.float32)
    return (
        save("q", embeddings=found[:queries], labels=labels[:queries], **more),
        save("d", embeddings=found[queries:], labels=labels[queries:], **more),
    )


def test_quantised_embeddings_beside_the_codes_by_hand(save):
    query, database = embedded(save)
    board, said = quantised(query, database, "sign")
    floats, codes = board.table.to_dict("records")
    held = {name: np.load(path) for name, path in (("q", query), ("d", database))}
    signs = {name: np.sign(one["embeddings"]) for name, one in held.items()}
    (own,) = score(save("qs", codes=signs["q"], labels=held["q"]["labels"]),
                   save("ds", codes=signs["d"], labels=held["d"]["labels"]))  # fmt: skip
    assert codes["mAP"] == pytest.approx(values(own)["mAP"])
    assert codes["P@100"] == pytest.approx(values(own)["P@100"])
    assert (floats["bytes"], codes["bytes"]) == (64, 2)
    assert floats["mAP"] > codes["mAP"]
    assert said == (
        f"sign, 16 bits: loses {floats['mAP'] - codes['mAP']:.3f} of mAP {floats['mAP']:.3f},"
        " and an item is 32 times smaller."
    )


def test_itq_has_the_bits_that_are_asked_for(save):
    board, said = quantised(*embedded(save), "itq", bits=8)
    assert board.table["bytes"].tolist() == [64, 1]
    assert said.startswith("itq, 8 bits: ")
    (default, _) = quantised(*embedded(save), "itq")
    assert default.table["bytes"].tolist() == [64, 2]


def test_what_cannot_be_quantised_is_one_line(save):
    with pytest.raises(UserError, match="finite float"):
        quantised(*pair(save), "sign")
    query, database = embedded(save)
    with pytest.raises(UserError, match="17 bits"):
        quantised(query, database, "itq", bits=17)
    with pytest.raises(UserError, match="one bit of each dimension"):
        quantised(query, database, "sign", bits=8)
    other = save("o", embeddings=np.full((2, 16), np.inf, np.float32), labels=np.zeros(2, int))
    with pytest.raises(UserError, match="finite float"):
        quantised(other, other, "sign")
    alone = save("a", embeddings=np.ones((2, 16), np.float32), labels=np.array([9, 9]))
    with pytest.raises(UserError, match="shares a label"):
        quantised(alone, database, "sign")
