"""Figures as files: formats, a neutral style, and equal bytes for equal figures."""

from __future__ import annotations

import errno
import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.api.errors import UserError, unknown
from bench.engine.store import write_whole

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Per format, the metadata that would make two files of one figure differ.
FORMATS: Mapping[str, Mapping[str, None]] = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
DPI, PAPER_DPI = 100, 300  # of pictures in pixels, and of figures in inches
LONGEST = 300  # characters of a drawn text: matplotlib takes minutes for one of 100,000


def logarithmic(axis: Axis) -> None:
    """Label a logarithmic axis with plain numbers instead of powers of ten."""
    from matplotlib.ticker import LogFormatter

    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(LogFormatter(labelOnlyBase=False))


@contextmanager
def default_style(changes: Any = ()) -> Iterator[None]:
    """Inside the block, matplotlib's defaults replace the user's style, and equal figures make equal files.

    changes: parameters of matplotlib that differ from its defaults, by name.
    """
    import matplotlib as mpl

    with warnings.catch_warnings(), mpl.rc_context():
        warnings.simplefilter("ignore")  # a font without a glyph draws a box
        mpl.rcdefaults()
        mpl.rcParams["svg.hashsalt"] = "hashdoor"
        mpl.rcParams["text.parse_math"] = False  # a name may contain two dollar signs
        mpl.rcParams.update(changes)
        yield


def shortened(text: str) -> str:
    """The text, without its middle if it is too long to be drawn."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 60]} ... {text[-50:]}"


def as_bytes(figure: Figure, suffix: str, *, dpi: int = DPI) -> bytes:
    """The content of a file that shows the figure, with long texts shortened."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        if len(text.get_text()) > LONGEST:
            text.set_text("\n".join(map(shortened, text.get_text().split("\n"))))
    buffer = io.BytesIO()
    figure.savefig(buffer, format=suffix, dpi=dpi, metadata=dict(FORMATS[suffix]))
    return buffer.getvalue()


def suffix_of(path: Path) -> str:
    """The format that the file name asks for; UserError if it is not one of FORMATS."""
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise unknown("picture format", suffix, FORMATS, f"the suffix of '{path}' decides")
    return suffix


def write(path: Path, content: bytes) -> None:
    """Write a file; UserError if the system refuses, and then an older file of that name stays as it was."""
    try:
        place = path.resolve()  # behind a link
        if place.exists() and not place.is_file():  # a pipe cannot be replaced
            place.write_bytes(content)
        else:
            write_whole(place, content)
    except (OSError, RuntimeError) as error:  # the latter: links in a circle
        full = isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        advice = "free some space" if full else "name a file in an existing folder"
        raise UserError(f"cannot write '{path}' ({getattr(error, 'strerror', None) or error}): {advice}") from None
