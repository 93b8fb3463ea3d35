"""Printed letters: the alphabet in the fonts that matplotlib contains, turned, slanted and stretched at random."""

from __future__ import annotations

import string
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from pydantic import Field
from torch import Tensor
from torch.nn.functional import one_hot

from bench.api.card import Card
from bench.api.errors import DataMissingError
from bench.api.hashing import Dataset, DecodedDataset, dataset
from bench.api.random import Rng
from hashing.datasets.helpers.splits import QueryCount, Sizes, draw_splits

CARD = Card(
    title="notMNIST dataset",
    year=2011,
    url="https://yaroslavvb.blogspot.com/2011/09/notmnist-dataset.html",
    follows="only the idea: grey images of letters in many fonts, for methods that are usually tried on digits",
    deviates="all 26 letters, capital and small, in 16 fonts that matplotlib contains, so that no download is needed;"
    " turned by up to 15 degrees, slanted and stretched, because printed letters vary less than handwriting. It is the"
    " data that an attacker of a model of digits has; numbers on it are comparable with no publication",
)
FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSerif",
    "DejaVuSerif-Bold", "DejaVuSerif-Italic", "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "cmb10", "cmmi10",
    "cmr10", "cmss10", "cmtt10",
)  # fmt: skip
CANVAS, POINTS = 128, 48  # pixels of the drawing; size of the font in it
TURN, SLANT, STRETCH, SMALLEST = 15, 0.2, 0.2, 0.8  # largest angle in degrees, shear, change of the width; least height


@dataset
class Letters(Dataset):
    flip: ClassVar[bool] = False
    pad: ClassVar[int] = 1
    proxy_dataset: ClassVar[str] = "digits"

    images: Annotated[int, Field(ge=52)] = 5200
    """Number of drawn images."""
    size: Annotated[int, Field(ge=8, le=64)] = 16
    """Side of the images in pixels."""
    train: Annotated[int, Field(ge=1)] = 4000
    """Number of training images."""
    query: QueryCount = 300
    """Number of queries."""
    trusted: Annotated[int, Field(ge=1)] = 200
    """Number of trusted images, which defenses get."""
    database: Annotated[int, Field(ge=1)] | None = None  # 570 at the defaults
    """Number of database images; default: all that are left."""

    @classmethod
    def as_proxy(cls, side: int) -> Mapping[str, Any]:
        return {"size": min(max(8, side), 64)}

    def files(self, root: Path | None) -> tuple[Path, ...]:
        import matplotlib as mpl  # the import takes a while, and most runs draw no letters

        del root
        folder = Path(mpl.get_data_path(), "fonts", "ttf")
        found = tuple(folder / f"{name}.ttf" for name in FONTS)
        if missing := next((path for path in found if not path.is_file()), None):
            raise DataMissingError(f"the font '{missing}' of matplotlib is missing", "install matplotlib again")
        return found

    def classes(self, root: Path | None) -> tuple[str, ...]:
        del root
        return tuple(string.ascii_lowercase)

    def decode(self, root: Path | None) -> DecodedDataset:
        fonts, rng = self.files(root), Rng("letters", self.images)
        kinds = torch.arange(self.images) % len(string.ascii_lowercase)
        pixels = np.zeros((self.images, 1, self.size, self.size), dtype=np.uint8)
        draws = zip(
            kinds.tolist(), rng.integers(2, (self.images,)).tolist(),
            rng.integers(len(fonts), (self.images,)).tolist(), rng.uniform((self.images, 4)).tolist(), strict=True,
        )  # fmt: skip
        for place, (kind, capital, font, shape) in enumerate(draws):
            letter = (string.ascii_uppercase if capital else string.ascii_lowercase)[kind]
            pixels[place, 0] = _drawn(letter, fonts[font], shape, self.size)
        labels = one_hot(kinds, len(string.ascii_lowercase)).bool()
        return DecodedDataset(torch.from_numpy(pixels), labels, torch.zeros(self.images, dtype=torch.uint8))

    def splits(
        self, labels: Bool[Tensor, "n k"], origin: UInt8[Tensor, " n"], rng: Rng
    ) -> Mapping[str, Int64[Tensor, " m"]]:
        del origin
        sizes = Sizes(train=self.train, query=self.query, trusted=self.trusted, database=self.database)
        return draw_splits(labels, sizes, rng)


def _drawn(letter: str, font: Path, shape: list[float], size: int) -> UInt8[np.ndarray, "size size"]:
    """A letter in the middle of a black square. shape: angle, shear, height and width, each in [0, 1)."""
    from PIL import Image, ImageDraw, ImageFont

    turn, slant, height, stretch = shape
    canvas = Image.new("L", (CANVAS, CANVAS))
    middle = (CANVAS // 2, CANVAS // 2)
    ImageDraw.Draw(canvas).text(middle, letter, fill=255, font=ImageFont.truetype(font, POINTS), anchor="mm")
    canvas = canvas.rotate(TURN * (2 * turn - 1), resample=Image.Resampling.BILINEAR)
    shear = SLANT * (2 * slant - 1)
    matrix = (1, shear, -shear * CANVAS / 2, 0, 1, 0)
    canvas = canvas.transform(canvas.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    canvas = canvas.crop(canvas.getbbox())
    scale = size * (SMALLEST + (1 - SMALLEST) * height) / max(canvas.size)
    wide = round(canvas.width * scale * (1 + STRETCH * (2 * stretch - 1)))
    box = (min(size, max(1, wide)), max(1, round(canvas.height * scale)))
    whole = Image.new("L", (size, size))
    whole.paste(canvas.resize(box, Image.Resampling.BILINEAR), ((size - box[0]) // 2, (size - box[1]) // 2))
    return np.asarray(whole)
