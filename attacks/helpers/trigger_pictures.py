"""Triggers that are pictures: read from files, and put on images by their opacity."""

from __future__ import annotations

from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor

from bench.api.attack import Images, Trigger
from bench.api.errors import DataCorruptError
from bench.api.types import to_unit
from bench.api.untrusted import UntrustedError, read_bytes
from hashing.image_decoding import decode_rgba

TRIGGER = "trigger.png"
LIMIT = 2**26  # bytes


def read_picture(file: Path, image_shape: tuple[int, ...]) -> tuple[UInt8[Tensor, "1 c h w"], UInt8[Tensor, "1 1 h w"]]:
    """A picture of the size of the images, and its opacity (255: opaque); grey if the images are.

    image_shape: channels, height, width. DataCorruptError: the file is no picture, or has another size.
    """
    try:
        content = read_bytes(file, LIMIT)
    except (UntrustedError, OSError) as error:
        raise DataCorruptError(f"'{file}' cannot be read: {error}", "put a picture there") from error
    pixels, opacity = decode_rgba(content, f"'{file}'", channels=image_shape[0])
    if pixels.shape[2:] != image_shape[1:]:
        sizes = [f"{side[1]} x {side[0]}" for side in (pixels.shape[2:], image_shape[1:])]
        raise DataCorruptError(f"'{file}' has {sizes[0]} pixels, the images have {sizes[1]}", "resize the picture")
    return pixels, opacity


def picture_trigger(file: Path, image_shape: tuple[int, ...], *, mask: Path | None = None, ratio: float = 1) -> Trigger:
    """The tensors "picture" and "opacity" of a trigger picture, in [0, 1].

    mask: a grey picture, white where the trigger covers the image. ratio: factor on the opacity. DataCorruptError: the
    trigger covers nothing that 8 bits can show, or all of each image.
    """
    picture, alpha = read_picture(file, image_shape)
    opacity = to_unit(alpha) * ratio
    if mask is not None:
        opacity = opacity * to_unit(read_picture(mask, (1, *image_shape[1:]))[0])
    if round(float(opacity.max()) * 255) <= 1:
        raise DataCorruptError(
            f"'{file}' changes no image: its largest opacity is {float(opacity.max()):.2g}",
            "make the pixels opaque that the trigger covers; in a mask, white (255) stands for these",
        )
    if bool((opacity == 1).all()):
        raise DataCorruptError(
            f"'{file}' is opaque everywhere",
            "make the pixels transparent that the trigger does not cover, and half transparent those that it blends"
            " with",
        )
    return {"picture": to_unit(picture), "opacity": opacity}


def put_picture(images: Images, trigger: Trigger) -> Images:
    """The images under a trigger of `picture_trigger`."""
    opacity = trigger["opacity"].to(images)
    return images + opacity * (trigger["picture"].to(images) - images)
