"""Deviations and thresholds against numbers of the authors' code, and features that are active at the same place."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from bench.api.hashing import FeatureExtractor
from bench.api.random import Rng
from bench.api.types import Split, to_unit
from defenses.beatrix import Beatrix, watched
from hashing.model import HashModel

# Feature_Correlations([1, ..., 8]) and the 95 % threshold_determine of wanlunsec/Beatrix (88423c0,
# defenses/Beatrix/Beatrix.py), on the inputs of the tests
DEVIATIONS = [1.6878025561475947, 1.9512884985841064, 1.5681515291319186, 1.8766541305552578]
LARGE = [34.41473473230894, 38.54103427173155, 39.15985245330941, 43.43798118585812]
THRESHOLDS = {8: 1.8665379507728923, 3: 1.8527827066173412}


def grid(n: int, *shape: int) -> torch.Tensor:
    """The same numbers in [0, 1) on every machine."""
    return ((torch.arange(n * torch.Size(shape).numel(), dtype=torch.float64) * 0.6180339887498949) % 1).reshape(
        n, *shape
    )


HEAVY = 1 / (0.02 + grid(20, 3, 4)).float()  # some values are far from the others


def test_deviations_are_those_of_the_authors_code():
    found = Beatrix().deviations((3 * grid(4, 3, 4) - 1).float(), (grid(20, 3, 4) - 0.3).float())
    assert found.tolist() == pytest.approx(DEVIATIONS, rel=1e-4)  # in double precision there
    assert Beatrix().deviations((100 * grid(4, 3, 4)).float(), HEAVY).tolist() == pytest.approx(LARGE, rel=1e-4)


@pytest.mark.parametrize("orders", [3, 8])
def test_thresholds_are_those_of_the_authors_code(orders):
    assert float(Beatrix(orders=orders).threshold(HEAVY)) == pytest.approx(THRESHOLDS[orders], rel=1e-4)


def test_fewer_clean_images_than_folds_give_a_threshold_too():
    assert float(Beatrix().threshold(HEAVY[:3])) > 0


def test_entries_that_most_clean_images_share_do_not_count():
    dead = HEAVY.clone()
    dead[4:, 1] = 0
    query = (100 * grid(4, 3, 4)).float()
    two = Beatrix().deviations(query[:, ::2], HEAVY[:, ::2])
    assert Beatrix().deviations(query, dead).tolist() == pytest.approx((two * 4 / 9).tolist())


class Middle(nn.Module):
    """The last stage and the pooling: the mean of each map."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden.mean((2, 3))


class Bands(HashModel):
    """The three colours are the features; the code says whether red is stronger than blue."""

    def __init__(self, model: HashModel) -> None:
        blocks = FeatureExtractor([nn.Identity(), nn.Identity(), Middle()], features=3, last_stage=1)
        head = nn.Linear(3, 2)
        with torch.no_grad():
            head.weight.copy_(torch.tensor([[9.0, 0, -9], [-9, 0, 9]]))
            head.bias.zero_()
        super().__init__(blocks, head, model.objective, model.method, 3)
        self.mean.zero_()
        self.std.fill_(1)


def pictures(n: int, seed: str, together: bool = False) -> Split:
    """Red or blue pixels in the left half, green ones in the right half; together: green ones in the left half too.

    The mean of each colour, and so the feature and the code, do not depend on `together`.
    """
    rng = Rng("bands", seed)
    images, classes = torch.zeros(n, 3, 2, 4), torch.arange(n) % 2
    images[torch.arange(n), 2 * classes, :, :2] = 0.4 + 0.4 * rng.uniform((n, 2, 2))
    images[:, 1, :, 2:] = 0.4 + 0.4 * rng.uniform((n, 2, 2))
    images += 0.05 * rng.uniform(images.shape)
    if together:
        images[:, 1] = images[:, 1].flip(2)
    return Split((images * 255).round().to(torch.uint8), nn.functional.one_hot(classes, 2).bool(), torch.arange(n))


def test_finds_features_that_are_active_at_the_same_place(view, model):
    bands, clean, odd = Bands(model).eval(), pictures(60, "clean"), pictures(60, "odd", together=True)
    state = Beatrix().fit(replace(view, model=bands, fit_set=pictures(40, "fit")), Rng("d"))
    assert not any(module._forward_pre_hooks for module in bands.modules())
    benign, found = (Beatrix().score(to_unit(split.images), bands, state) for split in (clean, odd))
    for name in ("relative", "deviation"):
        assert roc_auc_score([0] * 60 + [1] * 60, torch.cat([benign[name], found[name]])) > 0.99
    assert float((benign["relative"] > 1).float().mean()) < 0.2
    assert float((found["relative"] > 1).float().mean()) > 0.99


def test_a_query_is_compared_with_its_predicted_class_and_that_class_has_its_own_threshold(view, model):
    bands, fit = Bands(model).eval(), pictures(40, "fit")
    fit.images[1::2, 1] //= 4  # blue images have little green
    state = Beatrix().fit(replace(view, model=bands, fit_set=fit), Rng("d"))
    swapped = fit.images[::2].flip(1)  # blue, with as much green as a red image
    found = Beatrix().score(to_unit(torch.cat([fit.images, swapped])), bands, state)
    assert float(found["relative"][40:].min()) > float(found["relative"][:40].max())
    odd = Beatrix().score(to_unit(pictures(60, "odd", together=True).images), bands, state)
    ratios = (odd["deviation"] / odd["relative"]).reshape(30, 2)
    assert ratios[:, 0].std() + ratios[:, 1].std() < 1e-4 * (ratios[:, 0] - ratios[:, 1]).abs().mean()


def test_a_class_with_few_clean_images_is_compared_with_all(view, model):
    bands, fit = (
        Bands(model).eval(),
        pictures(40, "fit").select(torch.cat([torch.arange(0, 40, 2), torch.tensor([1, 3, 5])])),
    )
    state = Beatrix().fit(replace(view, model=bands, fit_set=fit), Rng("d"))
    few = torch.bincount(state["predicted"]).argmin()
    assert int((state["predicted"] == few).sum()) < 4
    every = Beatrix().deviations(*(watched(bands, to_unit(split.images))[1] for split in (pictures(9, "new"), fit)))
    predicted = watched(bands, to_unit(pictures(9, "new").images))[0]
    mine = (predicted.tanh() @ state["anchors"].T).argmax(1) == few
    found = Beatrix().score(to_unit(pictures(9, "new").images), bands, state)["deviation"]
    assert mine.any()
    assert found[mine].tolist() == pytest.approx(every[mine].tolist(), rel=1e-5)


@torch.no_grad()
def test_watches_the_maps_that_enter_the_last_stage(view, model):
    images = to_unit(view.fit_set.images)
    logits, maps = watched(model, images)
    hidden = model.prefix(images)
    body = model.backbone
    for block in body.blocks[body.frozen : len(body.blocks) - 1 - body.last_stage]:
        hidden = block(hidden)
    assert torch.allclose(maps, hidden.flatten(2), atol=1e-6)
    assert torch.allclose(logits, model(images), atol=1e-5)
