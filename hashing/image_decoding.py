"""Decoding of pictures from untrusted sources, with a limit on their size and errors that name the file."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from bench.api.errors import DataCorruptError
from bench.api.untrusted import without_addresses

OTHER_FORMATS = {  # what files are that Pillow does not know, by their first bytes
    b"GIF8": "is a GIF: convert it", b"%PDF": "is a PDF: convert it", b"<": "is a web page or SVG, not a picture",
    b"\xff\x0a": "is a JPEG XL: convert it", b"8BPS": "is a Photoshop file: convert it",
    b"\xff\xd8": "does not decode: its first part is damaged", b"\x89PNG": "does not decode: its first part is damaged",
}  # fmt: skip
BRANDS = {b"avif": "an AVIF", b"avis": "an AVIF", b"heic": "a HEIC", b"heix": "a HEIC", b"mif1": "a HEIF"}
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")
PIXEL_LIMIT = 2**26


class PictureError(DataCorruptError):
    """A picture cannot be used. reason: why, as words after its name, equal in every run."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where} {reason}; get it again or remove it")
        self.reason = reason


def decode_image(data: bytes, size: int, where: str, *, whole: bool = False) -> UInt8[np.ndarray, "3 h w"]:
    """The picture as a square of `size` pixels: its centre square, or with `whole` all of it, squeezed.

    where: file and member, for the error. PictureError: the picture does not decode, or has too many pixels. Pillow's
    warnings pass through.
    """
    try:
        picture = _pixels(data, "RGB")
    except Exception as error:  # decoders fail in any way on damaged input
        raise _undecoded(data, where, error) from error
    if whole:
        picture = picture.resize((size, size), Image.Resampling.BILINEAR)  # averages several pixels when it shrinks
    elif picture.size != (size, size):
        side = min(picture.size)
        left, top = ((length - side) // 2 for length in picture.size)
        square = picture.crop((left, top, left + side, top + side))
        picture = square.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(picture).transpose(2, 0, 1)


def decode_rgba(data: bytes, where: str, *, channels: int) -> tuple[UInt8[Tensor, "1 c h w"], UInt8[Tensor, "1 1 h w"]]:
    """The picture and its opacity (255 if it has none), at its own size; grey if `channels` is 1.

    PictureError: the picture does not decode, or has too many pixels.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            picture = _pixels(data, "RGBA")
    except Exception as error:
        raise _undecoded(data, where, error) from error
    opacity = picture.getchannel("A")
    colours = picture.convert("L" if channels == 1 else "RGB")
    pixels = np.asarray(colours).reshape(colours.height, colours.width, -1).transpose(2, 0, 1)
    return torch.from_numpy(pixels[None].copy()), torch.from_numpy(np.asarray(opacity)[None, None].copy())


def picture_size(path: Path, where: str) -> tuple[int, int]:
    """Width and height of a picture. Only the start of the file is read, so that damage further on is not seen.

    PictureError: the file is no picture of a known kind.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=FORMATS) as image:
            return image.size
    except Exception as error:  # decoders fail in any way on damaged input
        with path.open("rb") as file:
            raise _undecoded(file.read(64), where, error) from error


def _undecoded(data: bytes, where: str, error: Exception) -> PictureError:
    if not data:
        reason = "is empty"
    elif isinstance(error, UnidentifiedImageError):  # its text holds an address of memory
        brand = BRANDS.get(data[8:12], "") if data[4:8] == b"ftyp" else ""
        words = (words for start, words in OTHER_FORMATS.items() if data[:64].lstrip().startswith(start))
        unknown = f"is no picture of a known kind ({', '.join(FORMATS)})"
        reason = f"is {brand}: convert it" if brand else next(words, unknown)
    else:
        reason = f"does not decode: {without_addresses(' '.join(str(error).split())) or type(error).__name__}"
    return PictureError(where, reason)


def _pixels(data: bytes, mode: str) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if image.width * image.height > PIXEL_LIMIT:  # the size is in the header, before anything is unpacked
            raise ValueError(f"{image.width} x {image.height} pixels, limit {PIXEL_LIMIT}")
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"pixels are of kind {image.mode}, not 8 bits")
        return image.convert(mode)
