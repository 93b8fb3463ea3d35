"""Files of the user that a suite names: parameters that are paths, and sizes that depend on the number of images.

A relative path is looked for beside the suite file, in the current folder, then below --data. This holds for text
parameters marked with OWN_FILE, and for those that their class makes absolute (`bench.api.untrusted.own_path`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from bench.api.untrusted import own_path

if TYPE_CHECKING:
    from jaxtyping import Bool, UInt8
    from torch import Tensor


class _OwnFile:
    """The type of the mark."""


OWN_FILE = _OwnFile()
"""Mark of a parameter that is a path: `path: Annotated[str, OWN_FILE]`."""


SIZES = ("train", "query", "trusted", "database")  # parameters that may be left open


@runtime_checkable
class OwnImages(Protocol):
    """A data set of the user's own files, whose images are counted when planning."""

    def labelled(self, root: Path | None) -> tuple[Bool[Tensor, "n k"], UInt8[Tensor, " n"]]:
        """Labels and origins as `decode` returns them, without decoding an image."""

    def sizes(self, labels: Bool[Tensor, "n k"], origin: UInt8[Tensor, " n"]) -> Mapping[str, int]:
        """The sizes of splits that the parameters leave open, by parameter."""


@dataclass(frozen=True)
class Places:
    """Where relative paths are looked for.

    suite: the folder of the suite file; None for a shipped suite. data: the folder of --data.
    """

    suite: Path | None
    data: Path | None

    def find(self, path: str) -> Path | None:
        """The first place that has the path; None if there is none."""
        folders = [folder for folder in (self.suite, Path.cwd(), self.data) if folder is not None]
        return next((folder / path for folder in folders if (folder / path).exists()), None)

    def __str__(self) -> str:
        beside = [f"beside the suite file ({self.suite.absolute()})"] if self.suite else []
        below = f"below --data ({self.data.absolute()})" if self.data else "below --data (not given)"
        return ", ".join([*beside, f"in the current folder ({Path.cwd()})"]) + f" or {below}"


def located(component: Any, given: Mapping[str, Any], places: Places) -> tuple[dict[str, Any], str]:
    """The given parameters with the paths that were found, and what was not found ("": nothing).

    component: made of these parameters. A marked path that is found below --data stays relative: keys then do not
    depend on where a machine has that folder.
    """
    found, lost = dict(given), []
    for name, value in given.items():
        if not isinstance(value, str) or not value or Path(value).expanduser().is_absolute():
            continue
        if not _is_path(component, name, value):
            continue
        marked = _marked(component, name)
        path = places.find(value)
        if path is None:
            lost.append(f"there is no '{value}' {places}")
        elif not (marked and places.data is not None and path == places.data / value):
            found[name] = str(path.absolute())
    return found, "; ".join(lost)


def names_a_file(component: Any, given: Mapping[str, Any]) -> bool:
    """Whether a parameter is a path, so that its text decides which file of this machine is read.

    component: made of these parameters.
    """
    texts = {name: value for name, value in given.items() if isinstance(value, str) and value}
    return any(Path(text).is_absolute() or _is_path(component, name, text) for name, text in texts.items())


def _is_path(component: Any, name: str, value: str) -> bool:
    """Whether the text of a parameter is a path: the parameter is marked, or its class made the path absolute."""
    if _marked(component, name):
        return True
    try:
        return bool(getattr(component, name) == own_path(value))
    except ValueError:  # the home folder of a user who does not exist
        return False


def _marked(component: Any, name: str) -> bool:
    return OWN_FILE in type(component).__pydantic_fields__[name].metadata
