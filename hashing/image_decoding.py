"""Decoding of pictures from untrusted sources, with a limit on their size and errors that name the file."""

from __future__ import annotations

import io
import warnings

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from bench.api.errors import DataCorruptError

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")
PIXEL_LIMIT = 2**26


def decode_image(data: bytes, size: int, where: str, *, whole: bool = False) -> UInt8[np.ndarray, "3 h w"]:
    """The picture as a square of `size` pixels: its centre square, or with `whole` all of it, squeezed.

    where: file and member, for the error. DataCorruptError: the picture does not decode, or has too many pixels.
    """
    try:
        picture = _pixels(data, "RGB")
    except Exception as error:  # decoders fail in any way on damaged input
        raise _undecoded(where, error) from error
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

    DataCorruptError: the picture does not decode, or has too many pixels.
    """
    try:
        picture = _pixels(data, "RGBA")
    except Exception as error:
        raise _undecoded(where, error) from error
    opacity = picture.getchannel("A")
    colours = picture.convert("L" if channels == 1 else "RGB")
    pixels = np.asarray(colours).reshape(colours.height, colours.width, -1).transpose(2, 0, 1)
    return torch.from_numpy(pixels[None].copy()), torch.from_numpy(np.asarray(opacity)[None, None].copy())


def _undecoded(where: str, error: Exception) -> DataCorruptError:
    cause = " ".join(str(error).split()) or type(error).__name__
    return DataCorruptError(f"{where} does not decode: {cause}; get it again or remove it")


def _pixels(data: bytes, mode: str) -> Image.Image:
    with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if image.width * image.height > PIXEL_LIMIT:  # the size is in the header, before anything is unpacked
            raise ValueError(f"{image.width} x {image.height} pixels, limit {PIXEL_LIMIT}")
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"pixels are of kind {image.mode}, not 8 bits")
        return image.convert(mode)
