"""Pictures of attacks, read back pixel by pixel, and what is said where there are none."""

import numpy as np
import pytest
import torch

from bench.api.errors import UserError
from bench.config.trial import digest
from bench.engine.record import RunManifest
from bench.engine.store import Store
from reports import gallery, image_grid
from tests.reports.picture_data import LEFT, STEP, picture, pixels, queries, strips, triggered
from tests.stores import planned, record


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store", create=True)


def write(store, key, stage, *, tensors=None, parents=None, status="ok", reason=""):
    artifact = store.write_artifact(key, tensors, {}) if tensors else None
    read = {role: store.record(parent) for role, parent in (parents or {}).items()}
    inputs = {role: found.checksum for role, found in read.items() if found is not None}
    fields = {"label": f"{stage} toy", "status": status, "reason": reason, "parents": parents or {}, "inputs": inputs}
    store.write_record(record(key, stage, artifact=artifact, **fields))


def pool(store, images):
    write(store, "10ad", "load", tensors={"images": images})
    write(store, "5b117", "split", tensors={"train": torch.tensor([3, 1, 0, 2])}, parents={"load": "10ad"})


def attacked(store, attack, *, clean=None, after=None, poisons=None, status="ok", reason="", **axes):
    """A trial and its attack; returns the cell of a plan."""
    name = digest([attack, axes])
    clean = queries() if clean is None else clean
    tensors = {
        "gallery_clean": clean,
        "gallery_triggered": triggered(clean) if after is None else after,
        "stealth": torch.tensor([[0.5, 20.0, 0.9], [0.7, float("inf"), 0.7]]),
    }
    if poisons is not None:
        tensors |= {"mask": poisons[0], "poison_images": poisons[1], "poison_stealth": torch.zeros(len(poisons[1]), 3)}
    parents = {"load": "10ad", "split": "5b117"}
    write(store, f"1{name}", "implant", tensors=tensors if status == "ok" else None, parents=parents,
          status=status, reason=reason)  # fmt: skip
    write(store, f"e{name}", "measure", parents={"implant": f"1{name}"}, status=status, reason=reason)
    return trial(f"e{name}", attack, **axes)


def trial(key, attack, **axes):
    return planned(key, {"attack": attack, **axes})


def clean_cell(store):
    write(store, "c1ea", "measure")
    return trial("c1ea", "none")


def plan(store, *trials, suite="toy"):
    store.write_run(RunManifest(suites=[suite], trials=list(trials)))


def test_every_pixel_of_a_picture_is_in_the_file(store, tmp_path):
    clean = queries()
    plan(store, attacked(store, "loud", clean=clean))
    drawn = gallery.draw(store, tmp_path / "x.png")
    assert [block.title for block in drawn.blocks] == ["loud"]
    sheet = pixels(tmp_path / "x.png")
    tops = strips(sheet)
    assert len(tops) == 3
    change = 0.5 + (255 - clean.numpy().astype(float)) / 255 * np.floor(10 * 255 / (255 - 60)) / 10 / 2
    for column in range(8):
        rows = [picture(sheet, top, LEFT + column * STEP) for top in tops]
        for row, images in zip(rows, (clean, triggered(clean)), strict=False):
            large = images[column, 0].numpy().repeat(12, 0).repeat(12, 1)
            assert (row == large[..., None]).all()
        assert (rows[2][:72, :72] == 128).all()
        assert abs(int(rows[2][95, 95, 0]) - 255 * change[column, 0, 7, 7]) <= 6
    assert rows[2].max() <= 255


@pytest.mark.parametrize(("channels", "size", "side"), [(1, 8, 96), (3, 16, 96), (3, 32, 96), (3, 64, 128),
                                                        (3, 224, 224), (2, 16, 96)])  # fmt: skip
def test_sizes_and_colours(store, tmp_path, channels, size, side):
    clean = queries(channels, size)
    plan(store, attacked(store, "loud", clean=clean))
    gallery.draw(store, tmp_path / "x.png")
    sheet = pixels(tmp_path / "x.png")
    found = picture(sheet, strips(sheet)[1], LEFT, side)
    factor = side // size
    first = triggered(clean)[0].numpy()
    expected = first.transpose(1, 2, 0) if channels == 3 else np.rint(first.mean(0))[..., None]
    assert (found[::factor, ::factor] == expected).all()
    assert (found[-2 * factor :, -2 * factor :] == 255).all(), "the white square that the attack stamps"
    last = picture(sheet, strips(sheet)[0], LEFT + 7 * (side + image_grid.GAP), side)
    assert (
        last[0, 0] == np.rint(clean[7, :, 0, 0].numpy().mean() if channels < 3 else clean[7, :, 0, 0].numpy())
    ).all()


def test_poisons_beside_the_training_images_that_they_were(store, tmp_path):
    images = queries(count=4, seed=5)
    pool(store, images)
    mask = torch.tensor([True, False, False, True])  # items 3 and 2 of the pool
    poisons = triggered(images[[3, 2]])
    poisons[0, 0, 0, 0] += 4  # a perturbation that nobody sees beside the square
    plan(store, attacked(store, "loud", poisons=(mask, poisons)))
    drawn = gallery.draw(store, tmp_path / "x.png")
    assert [len(block.pairs) for block in drawn.blocks] == [2]
    assert drawn.blocks[0].about[-1].startswith("2 poisoned")
    sheet = pixels(tmp_path / "x.png")
    tops = strips(sheet)
    assert len(tops) == 6
    before, after = (picture(sheet, top, LEFT)[::12, ::12, 0] for top in tops[3:5])
    assert (before == images[3, 0].numpy()).all()
    assert (after == poisons[0, 0].numpy()).all()
    assert (picture(sheet, tops[3], LEFT + STEP)[::12, ::12, 0] == images[2, 0].numpy()).all()
    assert (picture(sheet, tops[3], LEFT + 2 * STEP) == 255).all(), "there are only two"


def test_poisons_without_their_originals_are_left_out(store, tmp_path):
    plan(store, attacked(store, "loud", poisons=(torch.ones(1, dtype=torch.bool), queries(count=1))))
    gallery.draw(store, tmp_path / "x.png")
    assert len(strips(pixels(tmp_path / "x.png"))) == 3


def test_one_block_per_attack_and_setting_and_equal_pictures_once(store, tmp_path):
    trials = [
        attacked(store, "loud"),
        attacked(store, "loud", seed=1, clean=queries(seed=9)),  # the first seed is enough
        attacked(store, "loud", bits=16),  # the same pictures
        attacked(store, "loud", dataset="other", clean=queries(seed=2)),
        attacked(store, "quiet", after=queries(seed=3)),
        clean_cell(store),
    ]
    plan(store, *trials)
    drawn = gallery.draw(store, tmp_path / "x.png")
    assert [block.title for block in drawn.blocks] == ["loud", "loud", "quiet"]
    assert "16 bits" in drawn.blocks[0].about[-1]
    assert drawn.without == ()
    assert len(strips(pixels(tmp_path / "x.png"))) == 9
    assert str(drawn).startswith("3 attacks")


def test_the_first_seed_that_has_pictures(store, tmp_path):
    lost = attacked(store, "loud", status="failed", reason="boom")
    plan(store, lost, attacked(store, "loud", seed=1), attacked(store, "quiet", status="failed", reason="no luck"))
    drawn = gallery.draw(store, tmp_path / "x.png")
    assert "seed 1" in drawn.blocks[0].about[0]
    assert drawn.without == ("quiet: no luck",)


def test_one_trial_and_its_stage(store, tmp_path):
    one, other = attacked(store, "loud"), attacked(store, "quiet", after=queries(seed=3))
    plan(store, one, other)
    drawn = gallery.draw(store, tmp_path / "x.png", key=other.key[:10])
    assert [block.title for block in drawn.blocks] == ["quiet"]
    drawn = gallery.draw(store, tmp_path / "x.png", key=f"1{other.key[1:10]}")
    assert [block.title for block in drawn.blocks] == ["implant toy"]


def test_a_suite(store, tmp_path):
    plan(store, attacked(store, "loud"), suite="first")
    plan(store, attacked(store, "quiet"), suite="second")
    drawn = gallery.draw(store, tmp_path / "x.png", suite="first")
    assert [block.title for block in drawn.blocks] == ["loud"]
    with pytest.raises(UserError, match="did you mean 'first'"):
        gallery.draw(store, tmp_path / "x.png", suite="firs")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("x.jpg", "jpg.*[Kk]nown: pdf, png, svg"),
        ("x", "[Kk]nown: pdf, png, svg"),
        ("no/such/x.png", "No such file or directory"),
        ("folder.png", "Is a directory"),
    ],
)
def test_a_file_that_cannot_be_written(store, tmp_path, name, words):
    (tmp_path / "folder.png").mkdir()
    plan(store, attacked(store, "loud"))
    with pytest.raises(UserError, match=words) as caught:
        gallery.draw(store, tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "start"), [("x.png", b"\x89PNG"), ("x.PNG", b"\x89PNG"), ("x.pdf", b"%PDF"),
                                             ("x.svg", b"<?xml")])  # fmt: skip
def test_the_suffix_decides_and_two_drawings_are_equal(store, tmp_path, name, start):
    plan(store, attacked(store, "loud"))
    gallery.draw(store, tmp_path / name)
    content = (tmp_path / name).read_bytes()
    assert content.startswith(start)
    gallery.draw(store, tmp_path / name)
    assert (tmp_path / name).read_bytes() == content


def test_nothing_to_draw_is_one_line(store, tmp_path):
    plan(store, clean_cell(store))
    with pytest.raises(UserError, match="clean models"):
        gallery.draw(store, tmp_path / "x.png")
    with pytest.raises(UserError, match=r"trial c1ea \(none/none target 0 seed 0\)"):
        gallery.draw(store, tmp_path / "x.png", key="c1ea")
    plan(store, clean_cell(store), attacked(store, "loud", status="failed", reason="boom"), trial("404", "quiet"))
    with pytest.raises(UserError, match="loud: boom; quiet: not run yet") as caught:
        gallery.draw(store, tmp_path / "x.png")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="trial 404"):
        gallery.draw(store, tmp_path / "x.png", key="404")
    assert not (tmp_path / "x.png").exists()


def test_a_file_of_the_store_that_is_gone_or_damaged(store, tmp_path):
    one = attacked(store, "loud")
    plan(store, one)
    path = store.artifact_path(f"1{one.key[1:]}")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="damaged"):
        gallery.draw(store, tmp_path / "x.png")
    path.unlink()
    with pytest.raises(UserError, match="missing"):
        gallery.draw(store, tmp_path / "x.png", key=one.key)


def test_no_query_to_draw(store, tmp_path):
    plan(store, attacked(store, "loud", clean=queries(count=0)))
    with pytest.raises(UserError, match="no query"):
        gallery.draw(store, tmp_path / "x.png")
