"""The folder of a site: files are written whole, and nothing is overwritten or removed that no site has written.

site.json lists the files of the site with their checksums. A folder without it is no site.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.api.errors import UserError
from bench.api.untrusted import read_json
from reports.figures import write

MARK = "site.json"
LAYOUT = 1  # version of site.json
LIMIT = 2**24  # bytes of site.json
PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")


def write_site(folder: Path, files: Mapping[str, bytes]) -> list[str]:
    """Write a site into a new or empty folder, or over another site.

    files: content by path. Returns files of the other site that are still there because somebody changed them; its
    other files are removed. UserError: the folder holds something else, or cannot be written; nothing was changed.
    """
    earlier = _earlier(folder)
    sums = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
    for path in files:
        _check(folder, path, sums[path], earlier)
    both = {path: f"{earlier.get(path, '')} {sums.get(path, '')}".strip() for path in {*earlier, *sums}}
    _mark(folder, both)  # a site that was interrupted can be written again
    for path, content in files.items():
        _write(folder, path, content)
    left = [path for path in sorted(earlier.keys() - sums.keys()) if not _removed(folder, path, earlier[path])]
    _mark(folder, sums)
    return left


def _earlier(folder: Path) -> dict[str, str]:
    """The files of the site in a folder with their checksums; none if it is empty or new."""
    try:
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return {}
        found = read_json(folder / MARK, LIMIT)
        if found["hashdoor_site"] == LAYOUT:
            return {path: str(checksum) for path, checksum in found["files"].items() if _plain(path)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    raise UserError(f"'{folder}' holds other files and no site of HashDoor", "give an empty or a new folder")


def _plain(path: Any) -> bool:
    """Whether a path is below the folder: site.json may come from somebody else."""
    return isinstance(path, str) and all(PART.fullmatch(part) for part in path.split("/"))


def _check(folder: Path, path: str, checksum: str, earlier: Mapping[str, str]) -> None:
    """UserError if something that no site has written is in the way of a file."""
    for place in _places(folder, path):
        in_the_way = place.is_symlink() or (place != folder / path and place.exists() and not place.is_dir())
        ours = {"", checksum, *earlier.get(path, "").split()}
        if in_the_way or (place == folder / path and _checksum(place) not in ours):
            raise UserError(f"'{place}' is not a file of the site", "move it away, or give another folder")


def _places(folder: Path, path: str) -> Iterator[Path]:
    """The folders on the way to a file, and the file."""
    for part in path.split("/"):
        folder = folder / part
        yield folder


def _checksum(path: Path) -> str:
    """The checksum of a file; "" if there is none, "?" for something that is no file."""
    if not path.exists():
        return ""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "?"


def _removed(folder: Path, path: str, checksum: str) -> bool:
    """Remove a file of an earlier site, and its folder if it is empty; False if somebody has changed it."""
    place = folder / path
    if not place.exists():
        return True
    if any(one.is_symlink() for one in _places(folder, path)) or _checksum(place) not in checksum.split():
        return False
    place.unlink()
    if place.parent != folder and not any(place.parent.iterdir()):
        place.parent.rmdir()
    return True


def _mark(folder: Path, files: Mapping[str, str]) -> None:
    _write(folder, MARK, json.dumps({"hashdoor_site": LAYOUT, "files": dict(sorted(files.items()))}, indent=1).encode())


def _write(folder: Path, path: str, content: bytes) -> None:
    try:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"'{folder}' cannot be written ({error.strerror})", "give another folder") from None
    write(folder / path, content)
