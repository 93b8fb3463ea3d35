"""Files of pages and pictures: whole or not at all, wherever a path leads."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import reports
from bench.api.errors import UserError
from bench.engine.store import Store
from reports import figures


@contextmanager
def little_space() -> Iterator[None]:
    """Inside the block no file grows beyond 1,000 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.long
@pytest.mark.parametrize(
    ("draw", "name"),
    [(reports.write_html, "x.html"), (reports.draw_attacks, "x.png"), (reports.draw_sweeps, "x.svg")],
)
def test_a_full_disk_leaves_the_older_file(store: Store, tmp_path: Path, draw: Callable[..., str], name: str) -> None:
    path = tmp_path / name
    draw(store.root, path)
    before = path.read_bytes()
    assert len(before) > 1000
    with little_space(), pytest.raises(UserError, match="free some space"):
        draw(store.root, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_links_and_pipes_stay_what_they_are(tmp_path: Path) -> None:
    target, link, pipe = (tmp_path / name for name in ("target", "link", "pipe"))
    link.symlink_to(target)
    figures.write(link, b"one")
    assert link.is_symlink()
    assert target.read_bytes() == b"one"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    figures.write(pipe, b"two")
    reader.join(10)
    assert read == [b"two"]


@pytest.mark.parametrize("name", ["absent/x.png", "file/x.png", "circle.png", f"{'a' * 300}.png"])
def test_a_path_that_cannot_be_written_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "circle.png").symlink_to("circle.png")
    with pytest.raises(UserError, match="cannot write"):
        figures.write(tmp_path / name, b"")


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    figures.write(tmp_path / f"{'a' * 251}.png", b"x")
