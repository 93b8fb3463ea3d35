"""Score queries by how far their code moves when the image is blurred a little."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from bench.api.card import Card
from bench.api.defense import DefenderView, Images, InputDetector, PositiveShare, Rng, defense

CARD = Card(
    title="An example of a package outside HashDoor",
    year=2026,
    url="https://example.org/blur",
    follows="nothing published: it shows how a defense in a package of its own looks",
)


@defense
class Blur(InputDetector):
    strength: PositiveShare = 0.5

    def fit(self, view: DefenderView, rng: Rng) -> Mapping[str, Tensor]:
        """What scoring needs, from view.model and view.fit_set, as tensors by name; randomness comes from `rng`."""
        del view, rng
        return {"strength": torch.tensor(self.strength)}

    def score(self, images: Images, model: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Scores of images in [0, 1], each by itself; higher is more suspicious, the first is the main one."""
        blurred = avg_pool2d(images, 3, 1, 1, count_include_pad=False)
        mixed = images + state["strength"].to(images.device) * (blurred - images)
        moved = ((model(images) > 0) != (model(mixed) > 0)).float().mean(1)
        return {"moved": moved}
