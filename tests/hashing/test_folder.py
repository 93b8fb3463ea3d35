"""Image folders: directories and archives, what is read of them, and what is refused."""

from __future__ import annotations

import io
import warnings
import zipfile
from math import isqrt
from pathlib import Path

import pytest
import torch
from PIL import Image

from bench.api.errors import DataCorruptError, DataMissingError, UserError
from bench.api.random import Rng
from hashing.image_decoding import PIXEL_LIMIT
from tests.hashing.conftest import check, make, picture, same, tree, write


@pytest.mark.parametrize("form", ["pets", "pets.zip", "pets.tar", "pets.tar.gz", "pets.tar.xz"])
def test_every_form_of_a_folder_gives_the_same_pool(tmp_path: Path, form: str) -> None:
    files = tree() | {"c/deep/er/9.PNG": picture(200), "README.txt": b"", "a/notes.csv": b"", ".hidden/1.png": b"no"}
    path = write(tmp_path / form, dict(reversed(files.items())))
    data = make("folder", path=form, size=8, train=3, query=2, trusted=1)
    assert data.classes(tmp_path) == ("a", "b", "c")
    assert data.protocol(tmp_path) == (f"folder {form}", None)
    pool = data.decode(tmp_path)
    assert pool.images.shape == (10, 3, 8, 8)
    assert pool.labels.int().argmax(1).tolist() == [0] * 3 + [1] * 3 + [2] * 4
    assert pool.images[:, :, 4, 4].tolist() == [[c, 255 - c, 7] for c in (*range(0, 180, 20), 200)]
    assert pool.origin.tolist() == [0] * 10
    assert pool.names == tuple(sorted(name for name in files if name[-3:].lower() == "png" and name[0] != "."))
    assert data.files(tmp_path) == (
        (path,)
        if path.is_file()
        else tuple(path / name for name in sorted(files) if name[-3:].lower() == "png" and name[0] != ".")
    )
    assert same(pool, make("folder", path=str(path), size=8).decode(None))  # an absolute path needs no --data
    parts = data.splits(pool.labels, pool.origin, Rng("f"))
    check(parts, 10)


def test_a_palette_with_transparency_is_decoded_without_a_warning(tmp_path: Path) -> None:
    """Pillow warns of it; here warnings are errors."""
    buffer = io.BytesIO()
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([1, 2, 3, 4, 5, 6])
    palette.save(buffer, "PNG", transparency=bytes([0, 128]))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")
    assert caught
    path = write(tmp_path / "t.zip", tree(per_class=4) | {"a/palette.png": buffer.getvalue()})
    assert len(make("folder", path=str(path), size=8).decode(None).images) == 13


@pytest.mark.parametrize("late", ["test", "val"])
@pytest.mark.parametrize("wrapper", ["", "pets-1.0/", "a/b/"])
def test_a_test_part_gives_the_queries(tmp_path: Path, late: str, wrapper: str) -> None:
    files = tree(parts=(f"{wrapper}train/", f"{wrapper}{late}/"), per_class=6)
    write(tmp_path / "t.tar.gz", files)
    data = make("folder", path="t.tar.gz", size=8, train=6, query=9, trusted=3)
    pool = data.decode(tmp_path)
    assert data.classes(tmp_path) == ("a", "b", "c")
    assert sorted(set(pool.origin.tolist())) == [0, 1 if late == "test" else 2]
    assert (pool.origin > 0).sum() == 18
    parts = data.splits(pool.labels, pool.origin, Rng("f"))
    check(parts, 36)
    assert (pool.origin[parts["query"]] > 0).all()
    assert (pool.origin[torch.cat([parts["train"], parts["trusted"], parts["public"]])] == 0).all()
    assert len(parts["database"]) == 36 - 6 - 9 - 3 - 3


@pytest.mark.parametrize(
    ("early", "late", "origin"),
    [("Train", "Test", 1), ("training", "testing", 1), ("training_set", "test_set", 1), ("training", "validation", 2),
     ("train_images", "test_images", 1), ("images_train", "images_test", 1), ("TRAIN", "VALID", 2),
     ("trainset", "valset", 2), ("train2017", "val2017", 2), ("Training Data", "Test Data", 1)],
)  # fmt: skip
@pytest.mark.parametrize("wrapper", ["", "pets/"])
def test_parts_are_known_by_the_names_of_published_archives(
    tmp_path: Path, early: str, late: str, origin: int, wrapper: str
) -> None:
    path = write(tmp_path / "t.zip", tree(parts=(f"{wrapper}{early}/", f"{wrapper}{late}/"), per_class=4))
    data = make("folder", path=str(path), size=8)
    assert data.classes(None) == ("a", "b", "c")
    pool = data.decode(None)
    assert {0, origin} == set(pool.origin.tolist())
    assert (pool.origin == origin).sum() == 12
    assert (pool.labels.sum(0) == 8).all()


def test_three_parts_are_three_parts(tmp_path: Path) -> None:
    data = make("folder", path=str(write(tmp_path / "t.zip", tree(parts=("train/", "valid/", "Test/")))), size=8)
    assert data.classes(None) == ("a", "b", "c")
    assert set(data.decode(None).origin.tolist()) == {0, 1, 2}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (tree(parts=("art/", "photo/", "sketch/")), "art, photo, sketch hold the same folders"),
        (tree(parts=("seen/", "unseen/")), "look like parts"),
        (tree(parts=("query/", "gallery/")) | {"gallery/d/0.png": picture(1)}, "look like parts"),
        (tree(parts=("Train/",)) | dict.fromkeys(("Test/0.png", "Test/1.png"), b""), "'Test/0.png' lies in no class"),
        ({f"{part}/{i}.png": b"" for part in ("train", "test") for i in range(4)}, "lies in no class"),
        (tree(parts=("train/", "Training/", "test/")), "'Training' and 'train' are the same part"),
        (tree(parts=("train_set/", "test_set/", "extra/")), "'extra' lies beside train"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["t", "t.zip"])
def test_parts_are_never_classes(tmp_path: Path, form: str, files: dict[str, bytes], message: str) -> None:
    write(tmp_path / form, files)
    with pytest.raises(UserError, match=message):
        make("folder", path=form).classes(tmp_path)


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (("bus/day/0", "bus/night/0", "car/day/0", "car/fog/0"), ("bus", "car")),
        (("n01/images/0", "n01/images/1", "n02/images/0"), ("n01", "n02")),
        (("train/old/0", "train/new/0", "tram/1"), ("train", "tram")),
        (("training shoes/0", "test tubes/0"), ("test tubes", "training shoes")),
        (("testa/0", "trainer/0"), ("testa", "trainer")),
    ],
)
def test_deeper_directories_and_names_like_those_of_parts_do_no_harm(
    tmp_path: Path, names: tuple[str, ...], classes: tuple[str, ...]
) -> None:
    path = write(tmp_path / "t.zip", {f"{name}.png": picture(1) for name in names})
    assert make("folder", path=str(path)).classes(None) == classes


def test_pictures_are_cropped_to_the_centre_square(tmp_path: Path) -> None:
    wide = Image.new("RGB", (40, 20), (255, 0, 0))
    wide.paste((0, 0, 255), (10, 0, 30, 20))
    buffer = io.BytesIO()
    wide.save(buffer, "PNG")
    files = {"a/1.png": buffer.getvalue(), "b/1.png": picture(9, mode="L"), "b/2.jpg": picture(90, kind="JPEG")}
    images = make("folder", path=str(write(tmp_path / "t.zip", files)), size=8).decode(None).images
    assert (images[0] == torch.tensor([0, 0, 255])[:, None, None]).all()
    assert (images[1] == 9).all()


@pytest.mark.parametrize("form", ["t", "t.zip", "t.tar", "t.tar.xz"])
@pytest.mark.parametrize(
    "content",
    [b"", b"no image", picture(1, (64, 64), kind="JPEG")[:400], picture(1)[:50], picture(1, mode="I;16")],
    ids=["empty", "rubbish", "cut jpeg", "cut png", "16 bit"],
)
def test_an_image_that_does_not_decode_is_named(tmp_path: Path, form: str, content: bytes) -> None:
    write(tmp_path / form, tree() | {"b/1.png": content})
    data = make("folder", path=form, size=8)
    assert data.classes(tmp_path) == ("a", "b", "c")
    with pytest.raises(DataCorruptError, match=rf"{form}': member 'b/1\.png' ") as caught:
        data.decode(tmp_path)
    assert "\n" not in str(caught.value)


GIF, AVIF = b"GIF89a" + bytes(20), b"\0\0\0\x1cftypavif" + bytes(20)
DAMAGED = {
    "a/0.png": (GIF, "is a GIF"),
    "a/1.png": (AVIF, "is an AVIF"),
    "b/0.png": (picture(1, (99, 99), kind="JPEG")[:-99], "does not decode: image file is truncated"),
    "b/2.png": (picture(1, kind="JPEG")[:20], "does not decode: its first part is damaged"),
    "b/1.png": (b"", "is empty"),
    "c/0.png": (b" <!DOCTYPE html>", "is a web page"),
    "c/1.png": (b"nothing", "is no picture of a known kind"),
}


@pytest.mark.parametrize("form", ["t", "t.zip", "t.tar.gz"])
def test_all_pictures_that_cannot_be_used_are_named_at_once(tmp_path: Path, form: str) -> None:
    """With reasons that are the same in every run."""
    write(tmp_path / form, tree() | {name: content for name, (content, _) in DAMAGED.items()})
    with pytest.raises(DataCorruptError, match="7 pictures cannot be used") as caught:
        make("folder", path=form, size=8).decode(tmp_path)
    for name, (_, reason) in DAMAGED.items():
        assert f"member '{name}' {reason}" in str(caught.value)
    assert "0x" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_list_of_damaged_pictures_ends_somewhere(tmp_path: Path) -> None:
    write(tmp_path / "t.zip", {f"{kind}/{i}.png": GIF for kind in "ab" for i in range(600)})
    with pytest.raises(DataCorruptError, match=r"1000 pictures cannot be used.*and 980 more") as caught:
        make("folder", path="t.zip", size=8).decode(tmp_path)
    assert len(str(caught.value)) < 2000


def test_a_picture_of_too_many_pixels_is_refused(tmp_path: Path) -> None:
    side = isqrt(PIXEL_LIMIT)
    assert side**2 == PIXEL_LIMIT
    for size in ((side, side + 1), (side, side)):
        large = picture(7, size, mode="L")
        path = write(tmp_path / f"{size[1]}.zip", tree(classes="ab", per_class=1) | {"c/0.png": large})
        data = make("folder", path=str(path), size=8)
        if size[1] > side:
            with pytest.raises(DataCorruptError, match=rf"{side} x {side + 1} .*{PIXEL_LIMIT}"):
                data.decode(None)
        else:
            assert (data.decode(None).images[2] == 7).all()


def test_pillow_s_own_guard_is_reported(tmp_path: Path) -> None:
    huge = picture(1).replace(b"\x00\x00\x00\x0c\x00\x00\x00\x0a", b"\x00\x00\xff\xff\x00\x00\xff\xff")
    at = huge.index(b"IHDR")
    import zlib

    huge = huge[: at + 17] + zlib.crc32(huge[at : at + 17]).to_bytes(4, "big") + huge[at + 21 :]
    path = write(tmp_path / "t.zip", tree() | {"a/0.png": huge})
    with pytest.raises(DataCorruptError, match=r"'a/0\.png' .*(4294836225|65535)"):
        make("folder", path=str(path)).decode(None)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"readme.txt": b""}, "class/image.jpg"),
        (tree() | {"stray.png": b""}, r"'stray\.png'"),
        (tree(classes="a"), "class.*'a'"),
        (tree(parts=("train/", "test/", "extra/")), "'extra'"),
    ],
)
def test_trees_that_are_no_image_folder(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    write(tmp_path / "t.tar", files)
    write(tmp_path / "t", files)
    for form in ("t", "t.tar"):
        with pytest.raises(UserError, match=message):
            make("folder", path=form).classes(tmp_path)


@pytest.mark.parametrize("part", ["", "train/"])
def test_a_class_without_images_is_an_error(tmp_path: Path, part: str) -> None:
    path = write(tmp_path / "t", tree(parts=(part, "test/") if part else ("",)))
    (path / part / "empty").mkdir()
    with pytest.raises(UserError, match="'empty'"):
        make("folder", path="t").classes(tmp_path)
    with zipfile.ZipFile(write(tmp_path / "t.zip", tree(parts=(part, "test/") if part else ("",))), "a") as archive:
        archive.writestr(f"{part}empty/", b"")
    with pytest.raises(UserError, match="'empty'"):
        make("folder", path="t.zip").decode(tmp_path)


def test_a_class_of_cifar_100_may_be_called_train(tmp_path: Path) -> None:
    files = {f"{kind}/{i}.png": picture(1) for kind in ("train", "trout") for i in range(2)}
    assert make("folder", path=str(write(tmp_path / "t", files))).classes(None) == ("train", "trout")


def test_a_folder_that_is_not_there_says_how_to_lay_it_out(tmp_path: Path) -> None:
    for root, where in ((None, "'pets'"), (tmp_path, f"'{tmp_path}/pets'")):
        with pytest.raises(DataMissingError, match=rf"{where} does not exist.*class/image\.jpg"):
            make("folder", path="pets").files(root)
    with pytest.raises(UserError, match="path"):
        make("folder")
    with pytest.raises(UserError, match="size"):
        make("folder", path="pets", size=0)


def test_labels_are_known_before_images_are_decoded(tmp_path: Path) -> None:
    write(tmp_path / "t", tree(parts=("train/", "test/")))
    data = make("folder", path="t", size=8)
    labels, origin = data.labelled(tmp_path)
    decoded = data.decode(tmp_path)
    assert torch.equal(labels, decoded.labels)
    assert torch.equal(origin, decoded.origin)


def test_reading_does_not_decode(tmp_path: Path) -> None:
    write(tmp_path / "t.tar", dict.fromkeys(tree(), b"no image"))
    data = make("folder", path="t.tar")
    assert data.classes(tmp_path) == ("a", "b", "c")
    assert data.files(tmp_path) == (tmp_path / "t.tar",)
