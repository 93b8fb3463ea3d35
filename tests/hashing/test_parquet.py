"""Parquet files as Hugging Face data sets have them, beside the same pictures decoded by Pillow and from a folder."""

from __future__ import annotations

import io
import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bench.api.archives import Limits
from bench.api.errors import DataCorruptError, DataMissingError, UserError
from bench.api.random import Rng
from bench.config import suite as suites
from bench.engine.store import Store
from bench.graph import planner
from hashing import parquet_files
from tests.bench.conftest import finish
from tests.hashing.conftest import check, make, picture, same, write

pa = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'hashdoor[parquet]'")
pq = pytest.importorskip("pyarrow.parquet")

SIZE = 8
COUNT = 18
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
NAMES = ("cat", "ant", "bee")  # in the order of their numbers, which is not that of the alphabet
NUMBERS = [row % 3 for row in range(COUNT)]
LISTS = [sorted({row % 3, row % 2}) for row in range(COUNT)]
CLASS_LABEL = {"names": [*NAMES], "_type": "ClassLabel"}


def pictures(count: int = COUNT) -> list[bytes]:
    """Pictures of noise in different formats, of the size of the data set."""
    rng, found = np.random.default_rng(0), []
    for row in range(count):
        mode, kind = (("RGB", "PNG"), ("L", "PNG"), ("RGB", "JPEG"), ("RGBA", "PNG"))[row % 4]
        shape = (SIZE, SIZE, len(mode)) if len(mode) > 1 else (SIZE, SIZE)
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(buffer := io.BytesIO(), kind)
        found.append(buffer.getvalue())
    return found


def decoded(files: list[bytes]) -> torch.Tensor:
    """By Pillow alone."""
    arrays = [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)


def structs(files: list[Any]) -> Any:
    return pa.array([{"bytes": file, "path": f"{row}.png"} for row, file in enumerate(files)], IMAGE)


def labelled(values: Any, kind: Any = None, *, feature: Any = None, files: list[bytes] | None = None) -> Any:
    """A table of pictures and labels. feature: what the metadata of Hugging Face say of the labels."""
    array = pa.array(values, kind) if kind is not None else pa.array(values)
    table = pa.table({"image": structs(files or pictures(len(values))), "label": array})
    if feature is None:
        return table
    about = {"info": {"features": {"image": {"_type": "Image"}, "label": feature}}}
    return table.replace_schema_metadata({"huggingface": json.dumps(about)})


def save(table: Any, path: Path, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def sharded(table: Any, folder: Path, names: list[str]) -> Path:
    """The table cut into files of different lengths."""
    cuts = [0, *(len(table) * (place + 1) // len(names) - place % 2 for place in range(len(names) - 1)), len(table)]
    for name, (start, end) in zip(names, pairwise(cuts), strict=True):
        save(table.slice(start, end - start), folder / name, row_group_size=5)
    return folder


def hot(rows: list[list[int]], classes: int = 3) -> torch.Tensor:
    found = torch.zeros(len(rows), classes, dtype=torch.bool)
    for row, kinds in enumerate(rows):
        found[row, kinds] = True
    return found


def dataset(path: Path, **params: Any) -> Any:
    return make("parquet", path=str(path), size=SIZE, **params)


@pytest.mark.parametrize("form", ["struct", "bytes", "large bytes"])
def test_pictures_are_those_that_pillow_decodes(tmp_path: Path, form: str) -> None:
    files = pictures()
    columns = {"struct": structs(files), "bytes": pa.array(files), "large bytes": pa.array(files, pa.large_binary())}
    path = save(pa.table({"img": columns[form], "label": NUMBERS, "caption": [0.5] * COUNT}), tmp_path / "a.parquet")
    data = dataset(path)
    pool = data.decode(None)
    assert torch.equal(pool.images, decoded(files))
    assert torch.equal(pool.labels, hot([[kind] for kind in NUMBERS]))
    assert data.files(None) == (path,)
    assert data.protocol(None) == ("parquet a.parquet", None)
    labels, origin = data.labelled(None)
    assert torch.equal(labels, pool.labels)
    assert torch.equal(origin, pool.origin)
    check(data.splits(labels, origin, Rng("p")), COUNT)


def test_pictures_of_other_sizes_are_treated_as_in_a_folder(tmp_path: Path) -> None:
    files = [picture(10 * row, (30 + row, 20), kind="JPEG") for row in range(6)]
    write(tmp_path / "t", {f"{NAMES[row % 2]}/{row}.jpg": file for row, file in enumerate(files)})
    folder = make("folder", path=str(tmp_path / "t"), size=SIZE)
    order = [1, 3, 5, 0, 2, 4]  # that of the folder: ant, then cat
    names = [NAMES[row % 2] for row in order]
    data = dataset(save(labelled(names, files=[files[row] for row in order]), tmp_path / "a.parquet"))
    assert data.classes(None) == folder.classes(None)
    assert same(data.decode(None), folder.decode(None))


SEVERAL = {
    "list": LISTS, "large list": pa.array(LISTS, pa.large_list(pa.int32())),
    "fixed size": pa.FixedSizeListArray.from_arrays([row % 3 for row in range(2 * COUNT)], 2),
}  # fmt: skip


@pytest.mark.parametrize("form", SEVERAL)
def test_lists_of_numbers_are_several_labels(tmp_path: Path, form: str) -> None:
    rows = [[2 * row % 3, (2 * row + 1) % 3] for row in range(COUNT)] if form == "fixed size" else LISTS
    data = dataset(save(labelled(SEVERAL[form]), tmp_path / "a.parquet"))
    assert data.classes(None) == ("0", "1", "2")
    assert torch.equal(data.decode(None).labels, hot(rows))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([NAMES[kind] for kind in NUMBERS], pa.string()),
        ([NAMES[kind] for kind in NUMBERS], pa.dictionary(pa.int8(), pa.string())),
        ([[NAMES[kind]] for kind in NUMBERS], pa.list_(pa.large_string())),
    ],
    ids=["text", "categories", "lists"],
)
def test_texts_are_class_names_in_the_order_of_the_alphabet(tmp_path: Path, values: list[Any], kind: Any) -> None:
    data = dataset(save(labelled(values, kind), tmp_path / "a.parquet"))
    assert data.classes(None) == ("ant", "bee", "cat")
    assert torch.equal(data.decode(None).labels, hot([[(2, 0, 1)[number]] for number in NUMBERS]))


@pytest.mark.parametrize(
    ("values", "feature"),
    [
        (NUMBERS, CLASS_LABEL),
        (LISTS, {"feature": CLASS_LABEL, "_type": "List"}),  # datasets 4 and 5
        (LISTS, {"feature": CLASS_LABEL, "length": -1, "_type": "Sequence"}),  # datasets 2 and 3
        (LISTS, [CLASS_LABEL]),
    ],
)
def test_class_names_come_from_the_metadata_of_hugging_face(tmp_path: Path, values: list[Any], feature: Any) -> None:
    """In the order of their numbers. The metadata were copied from files that the package datasets wrote."""
    data = dataset(save(labelled(values, feature=feature), tmp_path / "a.parquet"))
    assert data.classes(None) == NAMES
    expected = hot([kinds if isinstance(kinds, list) else [kinds] for kinds in values])
    assert torch.equal(data.decode(None).labels, expected)


def test_class_numbers_without_an_image_are_left_out(tmp_path: Path) -> None:
    named = labelled([2 * (row % 2) for row in range(COUNT)], feature=CLASS_LABEL)
    assert dataset(save(named, tmp_path / "a.parquet")).classes(None) == ("cat", "bee")
    numbered = dataset(save(labelled([7 + 2 * (row % 2) for row in range(COUNT)]), tmp_path / "b.parquet"))
    assert numbered.classes(None) == ("7", "9")
    assert torch.equal(numbered.decode(None).labels, hot([[row % 2] for row in range(COUNT)], 2))


def test_rows_without_labels_are_counted_in_the_name_of_the_protocol(tmp_path: Path) -> None:
    data = dataset(save(labelled([[], *LISTS[1:]]), tmp_path / "a.parquet"))
    assert data.protocol(None) == ("parquet a.parquet (1 images without labels)", None)
    assert data.decode(None).labels.sum(1)[0] == 0


@pytest.mark.parametrize("values", [NUMBERS, LISTS, [NAMES[kind] for kind in NUMBERS]], ids=["one", "lists", "text"])
def test_shards_are_one_data_set(tmp_path: Path, values: list[Any]) -> None:
    table = labelled(values, feature=CLASS_LABEL if values is NUMBERS else None)
    single = dataset(save(table, tmp_path / "single.parquet"))
    names = [f"data/train-{number:05}-of-00003.parquet" for number in range(3)]
    folder = sharded(table, tmp_path / "set", names)
    save(table, folder / ".cache" / "old.parquet")  # the download folder of Hugging Face
    (folder / "README.md").write_text("no data")
    data = dataset(folder)
    assert data.files(None) == tuple(folder / name for name in names)
    assert data.classes(None) == single.classes(None)
    assert same(data.decode(None), single.decode(None))


def test_links_of_the_download_cache_are_followed(tmp_path: Path) -> None:
    blob = save(labelled(NUMBERS), tmp_path / "blobs" / "0123abc")
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "snapshots" / "train-00000-of-00001.parquet").symlink_to(blob)
    assert torch.equal(dataset(tmp_path / "snapshots").decode(None).images, decoded(pictures()))


@pytest.mark.parametrize(
    ("early", "late", "origin"),
    [
        ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet", 1),
        ("train.parquet", "validation.parquet", 2),
        ("plain_text/train/0000.parquet", "plain_text/test/0000.parquet", 1),
        ("my_training_1.parquet", "my.eval2.parquet", 1),
        ("train/a.parquet", "dev/a.parquet", 2),
        ("test set/train-0.parquet", "test set/test-0.parquet", 1),
        ("Train-a.parquet", "valid-a.parquet", 2),
    ],
)
def test_names_of_files_say_the_part(tmp_path: Path, early: str, late: str, origin: int) -> None:
    table = labelled(NUMBERS * 2, files=pictures() * 2)
    save(table.slice(0, COUNT), tmp_path / early)
    save(table.slice(COUNT), tmp_path / late)
    data = dataset(tmp_path)
    pool = data.decode(None)
    rows = {early: 0, late: origin}
    assert pool.origin.tolist() == [kind for name in sorted(rows) for kind in [rows[name]] * COUNT]
    parts = data.splits(pool.labels, pool.origin, Rng("p"))
    check(parts, 2 * COUNT)
    assert (pool.origin[parts["query"]] == origin).all()
    assert (pool.origin[torch.cat([parts["train"], parts["trusted"], parts["public"]])] == 0).all()


@pytest.mark.parametrize(
    "names",
    [["train-0.parquet", "train-1.parquet"], ["test-0.parquet", "dev-1.parquet"], ["trains.parquet", "latest.parquet"]],
)
def test_files_without_a_part_train_beside_another_are_one_part(tmp_path: Path, names: list[str]) -> None:
    assert set(dataset(sharded(labelled(NUMBERS), tmp_path, names)).decode(None).origin.tolist()) == {0}


def test_several_data_sets_in_one_folder_are_not_joined_in_silence(tmp_path: Path) -> None:
    for name in ("a/train-0.parquet", "a/test-0.parquet", "b/train-0.parquet", "b/test-0.parquet"):
        save(labelled(NUMBERS), tmp_path / name)
    with pytest.raises(UserError, match=r"both hold .* may be of several data sets.*pattern = 'b/\*'"):
        dataset(tmp_path).classes(None)
    assert len(dataset(tmp_path, pattern="a/*").files(None)) == 2
    assert len(dataset(tmp_path, pattern="*").files(None)) == 4


def test_missing_files_of_a_series_and_broken_links_are_named(tmp_path: Path) -> None:
    sharded(labelled(NUMBERS), tmp_path, [f"train-{number:05}-of-00003.parquet" for number in range(2)])
    with pytest.raises(UserError, match=r"holds 2 of the 3 files of 'train'"):
        dataset(tmp_path).classes(None)
    assert len(dataset(tmp_path, pattern="*").files(None)) == 2
    (tmp_path / "train-00002-of-00003.parquet").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match="leads to no file"):
        dataset(tmp_path, pattern="*").classes(None)


def test_a_pattern_chooses_files(tmp_path: Path) -> None:
    table = labelled(NUMBERS)
    for name in ("cats/train-0.parquet", "cats/test-0.parquet", "dogs/train-0.parquet"):
        save(table, tmp_path / name)
    for pattern, count in (
        ("*", 3),
        ("cats/*", 2),
        ("*train-*", 2),
        ("dogs/*|cats/test*", 2),
        ("cats/test-0.parquet", 1),
    ):
        assert len(dataset(tmp_path, pattern=pattern).files(None)) == count
    with pytest.raises(UserError, match=r"pattern 'cat/\*' fits none of 3 files: .*'cats/test-0") as caught:
        dataset(tmp_path, pattern="cat/*").files(None)
    assert "\n" not in str(caught.value)


TWO = {"fine_label": NUMBERS, "coarse_label": [kind % 2 for kind in NUMBERS]}
GOOD = {"image": structs(pictures()), "label": NUMBERS}


@pytest.mark.parametrize(
    ("columns", "params", "message"),
    [
        (GOOD, {"label": "lable"}, r"has no column label = 'lable': did you mean 'label'\? Known: image, label"),
        (GOOD, {"image": "imgae"}, r"has no column image = 'imgae': did you mean 'image'\?"),
        (GOOD, {"label": "image"}, "label = 'image' holds struct<.*>, not integers, strings, or lists.*known: label"),
        (GOOD, {"image": "label"}, "column image = 'label' holds int64, not bytes, or a structure.*known: image"),
        ({"image": [1.5] * COUNT, "label": NUMBERS}, {}, "holds no column of bytes.*its columns: image, label"),
        ({"image": GOOD["image"], "label": [0.5] * COUNT}, {}, "holds no column of integers"),
        ({"image": GOOD["image"], "label": [True] * COUNT}, {}, "holds no column of integers"),
        ({"image": GOOD["image"], **TWO}, {}, "several columns of.*: fine_label, coarse_label: write label = 'fine"),
        (GOOD | {"mask": GOOD["image"]}, {}, "several columns of bytes.*: image, mask: write image = 'image'"),
        (GOOD | {"label": [1] * COUNT}, {}, "column 'label' holds 1 different labels"),
        (GOOD | {"label": [*NUMBERS[1:], None]}, {}, "column 'label' holds 1 labels that are null"),
        (GOOD | {"label": [*LISTS[1:], [1, None]]}, {}, "column 'label' holds 1 labels that are null"),
        (GOOD | {"label": [[0, 1, 0], *LISTS[1:]]}, {}, "row 0 has a label twice: .* not a 0 or 1 for each class"),
        (GOOD | {"label": ["a", *["b\x1b[31m"] * (COUNT - 1)]}, {}, "a class is called"),
        (GOOD | {"label": [" ", *["b"] * (COUNT - 1)]}, {}, "a class is called ' '"),
    ],
)  # fmt: skip
def test_columns_that_cannot_be_used_are_named_in_one_line(
    tmp_path: Path, columns: dict[str, Any], params: dict[str, str], message: str
) -> None:
    data = dataset(save(pa.table(columns), tmp_path / "a.parquet"), **params)
    with pytest.raises(UserError, match=message) as caught:
        data.classes(None)
    assert "\n" not in str(caught.value)


def test_a_column_is_chosen_by_its_name(tmp_path: Path) -> None:
    table = pa.table(
        {"image": structs(pictures()), "thumb": pa.array([picture(1)] * COUNT), "id": [*range(COUNT)], **TWO}
    )
    path = save(table, tmp_path / "a.parquet")
    data = dataset(path, image="image", label="coarse_label")
    assert torch.equal(data.decode(None).images, decoded(pictures()))
    assert data.classes(None) == ("0", "1")
    usual = save(table.rename_columns(["image", "thumb", "id", "fine", "label"]), tmp_path / "b.parquet")
    assert dataset(usual, image="thumb").classes(None) == ("0", "1")
    about = {"info": {"features": {"fine_label": CLASS_LABEL}}}  # class names decide before the name of the column
    named = table.rename_columns(["image", "thumb", "id", "fine_label", "label"])
    named = save(named.replace_schema_metadata({"huggingface": json.dumps(about)}), tmp_path / "c.parquet")
    assert dataset(named, image="thumb").classes(None) == NAMES


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (labelled([str(kind) for kind in NUMBERS]), "'label' has another type than in"),
        (pa.table({"image": pa.array(pictures()), "label": NUMBERS}), "'image' or 'label' has another type than in"),
        (pa.table({"image": structs(pictures()), "kind": NUMBERS}), "b.parquet' has no column label = 'label'"),
        (labelled(NUMBERS, feature=CLASS_LABEL | {"names": ["x", "y", "z"]}), "have different class names"),
        (labelled([*NUMBERS[1:], 3], feature=CLASS_LABEL), r"b.parquet' row 17: label 3, expected 0 to 2"),
        (labelled([-1] * COUNT, feature=CLASS_LABEL), r"b.parquet' row 0: label -1, expected 0 to 2: .*pattern"),
    ],
)
def test_files_that_do_not_fit_together(tmp_path: Path, other: Any, message: str) -> None:
    save(labelled(NUMBERS, feature=CLASS_LABEL), tmp_path / "a.parquet")
    save(other, tmp_path / "b.parquet")
    with pytest.raises(UserError, match=message):
        dataset(tmp_path).classes(None)


def test_a_file_that_is_in_no_part_is_named(tmp_path: Path) -> None:
    for name in ("train.parquet", "test.parquet", "unsupervised.parquet"):
        save(labelled(NUMBERS), tmp_path / name)
    with pytest.raises(UserError, match=r"'unsupervised.parquet' says no part .*leave it out with pattern"):
        dataset(tmp_path).files(None)
    assert len(dataset(tmp_path, pattern="t*").files(None)) == 2


def test_damaged_pictures_are_named_at_once(tmp_path: Path) -> None:
    files: list[Any] = pictures()
    files[3], files[7], files[12], files[16] = b"", None, b"GIF89a" + bytes(20), files[16][:-30]
    folder = sharded(labelled(NUMBERS, files=files), tmp_path / "pets", ["a.parquet", "b.parquet"])
    data = dataset(folder)
    assert data.classes(None) == ("0", "1", "2")
    with pytest.raises(DataCorruptError, match="pets': 4 pictures cannot be used") as caught:
        data.decode(None)
    for said in ("a.parquet row 3' is empty", "a.parquet row 7' holds no bytes", "b.parquet row 3' is a GIF",
                 "b.parquet row 7' does not decode"):  # fmt: skip
        assert f"picture '{said}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no parquet", None], ids=["empty", "text", "cut"])
def test_a_file_that_is_no_parquet_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = save(labelled(NUMBERS), tmp_path / "a.parquet")
    path.write_bytes(path.read_bytes()[:-9] if content is None else content)
    with pytest.raises(DataCorruptError, match=r"a\.parquet' cannot be read as Parquet: ") as caught:
        dataset(path).classes(None)
    assert "\n" not in str(caught.value)


def test_damage_in_the_middle_of_a_file_is_named(tmp_path: Path) -> None:
    path = save(labelled(NUMBERS), tmp_path / "a.parquet", compression="none")
    content = bytearray(path.read_bytes())
    start = content.index(b"\x89PNG") - 40
    content[start : start + 30] = bytes(30)  # the head of the page of pictures
    path.write_bytes(content)
    with pytest.raises(DataCorruptError, match=r"a\.parquet'.* cannot be read as Parquet"):
        dataset(path).decode(None)


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = pa.table({"image": pa.array([bytes(2**21), picture(1)]), "label": [0, 1]})
    data = dataset(save(large, tmp_path / "a.parquet", compression="zstd"))
    assert len(data.classes(None)) == 2
    for limits, message in (
        (Limits(floor=2**20, ratio=1), "unpacks to more than 1048576 bytes"),
        (Limits(count=1), "holds more than 1 rows"),
    ):
        monkeypatch.setattr(parquet_files, "LIMITS", limits)
        with pytest.raises(DataCorruptError, match=message):
            data.decode(None)


def test_a_folder_without_files_and_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataMissingError, match=r"parquet: '.*pets' does not exist: put a \*\.parquet file"):
        dataset(tmp_path / "pets").files(None)
    with pytest.raises(UserError, match=r"holds no \*\.parquet file"):
        dataset(tmp_path).files(None)


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(labelled(NUMBERS), tmp_path / "a.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # as where the extra is not installed
    with pytest.raises(
        DataMissingError, match=r"'parquet' needs the package pyarrow: pip install 'hashdoor\[parquet\]'"
    ):
        dataset(path).files(None)


def test_pictures_are_read_a_few_rows_at_a_time(tmp_path: Path) -> None:
    """What pyarrow holds is a row group, not the file."""
    noise = np.random.default_rng(0)
    table = pa.table({"image": pa.array([noise.bytes(200_000) for _ in range(100)]), "label": [*range(100)]})
    path = save(table, tmp_path / "a.parquet", row_group_size=5)
    data = dataset(path)
    del table
    before, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(pool)
    try:
        with pytest.raises(DataCorruptError, match="100 pictures cannot be used"):
            data.decode(None)
    finally:
        pa.set_memory_pool(before)
    assert 0 < pool.max_memory() < path.stat().st_size / 4


def test_a_changed_file_of_the_same_size_is_read_again(tmp_path: Path) -> None:
    path = save(labelled(NUMBERS), tmp_path / "a.parquet", compression="none")
    size, data = path.stat().st_size, dataset(path)
    assert torch.equal(data.labelled(None)[0], hot([[kind] for kind in NUMBERS]))
    turned = [2 - kind for kind in NUMBERS]
    save(labelled(turned), path, compression="none")
    assert path.stat().st_size == size
    assert torch.equal(data.labelled(None)[0], hot([[kind] for kind in turned]))


@pytest.mark.long
def test_a_run_over_a_folder_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [picture(85 * (row % 3) + row % 9, (SIZE, SIZE)) for row in range(240)]
    table = labelled([row % 3 for row in range(240)], feature=CLASS_LABEL, files=files)
    sharded(table.slice(0, 180), tmp_path / "pets", [f"data/train-{number:05}-of-00002.parquet" for number in range(2)])
    save(table.slice(180), tmp_path / "pets/data/test-00000-of-00001.parquet")
    monkeypatch.chdir(tmp_path)
    suite = suites.load(
        "smoke", changes=["datasets=parquet(path=pets,size=8)", "attacks=none,badnets", "defenses=none", "targets=bee"]
    )
    plan, store = planner.plan([suite], data=None, device="cpu"), Store(tmp_path / "store", create=True)
    finish(plan, store)
    assert len(plan.trials) == 2
    for one in plan.trials:
        record = store.record(one.key or "")
        assert record is not None
        assert record.ok, record.reason
        assert record.protocol.name == "parquet pets"
        assert record.metrics["map"] > 0.5
