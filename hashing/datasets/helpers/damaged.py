"""Pictures of a data set that cannot be used: one error names all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from bench.api.errors import DataCorruptError
from hashing.image_decoding import PictureError, decode_image

NAMED = 20  # pictures that an error names
MOST = 1000  # damaged pictures after which the others are not tried


@dataclass
class DamagedPictures:
    """source: the folder or archive. word: for one of its pictures, in the error. reasons: by the picture's name."""

    source: Path
    word: str
    reasons: dict[str, str] = field(default_factory=dict)

    def decode(
        self, name: str, read: Callable[[], bytes], size: int, *, whole: bool = False
    ) -> UInt8[np.ndarray, "3 h w"] | None:
        """As `decode_image`; None for a picture that cannot be used, which is noted. Other errors pass through."""
        try:
            return decode_image(read(), size, name, whole=whole)
        except PictureError as error:
            self.reasons[name] = error.reason
        if len(self.reasons) == MOST:
            self.check()
        return None

    def check(self) -> None:
        """DataCorruptError with the pictures that were noted, in the order of their names."""
        if not self.reasons:
            return
        listed = [f"{self.word} {name!r} {why}" for name, why in sorted(self.reasons.items())]
        more = f"; and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
        count = f"{len(listed)} pictures cannot be used: " if len(listed) > 1 else ""
        them = "them" if len(listed) > 1 else "it"
        raise DataCorruptError(
            f"'{self.source}': {count}{'; '.join(listed[:NAMED])}{more}; get {them} again or remove {them}"
        )
