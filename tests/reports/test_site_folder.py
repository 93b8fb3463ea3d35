"""A site is written into its own folder only, and nothing is lost there that no site has written."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from bench.api.errors import UserError
from reports.site.folder import MARK, write_site

OLD = {"index.html": b"old", "attacks/gone.html": b"gone", "attacks/kept.html": b"kept"}
NEW = {"index.html": b"new", "attacks/kept.html": b"kept"}


def content(folder: Path) -> dict[str, bytes]:
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    found.pop(MARK, None)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a site."""
    write_site(tmp_path / "site", OLD)
    return tmp_path / "site"


def test_another_site_replaces_the_files_of_the_first(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    assert write_site(folder, NEW) == []
    assert content(folder) == {**NEW, "notes.txt": b"mine"}
    write_site(folder, {"index.html": b"new"})
    assert not (folder / "attacks").exists()


def test_a_file_that_somebody_changed_is_not_removed(folder: Path) -> None:
    (folder / "attacks/gone.html").write_text("mine")
    assert write_site(folder, NEW) == ["attacks/gone.html"]
    assert content(folder)["attacks/gone.html"] == b"mine"


def test_a_folder_with_other_files_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="holds other files"):
        write_site(tmp_path, NEW)
    assert content(tmp_path) == {"thesis.txt": b"precious"}
    with pytest.raises(UserError, match="holds other files"):
        write_site(tmp_path / "thesis.txt", NEW)


@pytest.mark.parametrize("mark", ["{}", '{"hashdoor_site": 2, "files": {}}', '{"hashdoor_site": 1, "files": []}', "x"])
def test_a_folder_with_another_mark_is_no_site(tmp_path: Path, mark: str) -> None:
    (tmp_path / MARK).write_text(mark)
    with pytest.raises(UserError, match="holds other files"):
        write_site(tmp_path, NEW)


def test_a_file_of_the_user_is_not_overwritten(folder: Path) -> None:
    (folder / "data.csv").write_text("mine")
    before = content(folder)
    with pytest.raises(UserError, match="is not a file of the site"):
        write_site(folder, {**NEW, "data.csv": b"ours"})
    assert content(folder) == before


@pytest.mark.parametrize("link", ["attacks", "attacks/kept.html"])
def test_nothing_is_written_through_a_link(folder: Path, tmp_path: Path, link: str) -> None:
    elsewhere = (folder / link).rename(tmp_path / "elsewhere")
    (folder / link).symlink_to(elsewhere)
    with pytest.raises(UserError, match="is not a file of the site"):
        write_site(folder, {**NEW, "attacks/kept.html": b"other"})
    held = elsewhere / "kept.html" if elsewhere.is_dir() else elsewhere
    assert held.read_bytes() == b"kept"


@pytest.mark.parametrize("path", ["../outside", "/outside", "attacks/../../outside", ".hidden", ""])
def test_a_mark_of_a_stranger_removes_nothing_elsewhere(folder: Path, tmp_path: Path, path: str) -> None:
    (tmp_path / "outside").write_text("precious")
    held = json.loads((folder / MARK).read_text())
    held["files"][path.replace("/outside", f"{tmp_path}/outside") if path.startswith("/") else path] = hashlib.sha256(
        b"precious"
    ).hexdigest()
    (folder / MARK).write_text(json.dumps(held))
    write_site(folder, NEW)
    assert (tmp_path / "outside").read_text() == "precious"


def test_a_site_that_was_interrupted_can_be_written_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reports.site import folder as module

    real, count = module.write, 0

    def full(path: Path, data: bytes) -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise UserError("cannot write: no space", "free some space")
        real(path, data)

    monkeypatch.setattr(module, "write", full)
    with pytest.raises(UserError):
        write_site(folder, {"new.html": b"1", "other.html": b"2"})
    monkeypatch.undo()
    assert write_site(folder, NEW) == []
    assert content(folder) == NEW


def test_a_page_that_somebody_has_edited_is_kept(folder: Path) -> None:
    (folder / "index.html").write_bytes(b"edited")
    with pytest.raises(UserError, match=r"index\.html"):
        write_site(folder, NEW)
    assert content(folder) == {**OLD, "index.html": b"edited"}
