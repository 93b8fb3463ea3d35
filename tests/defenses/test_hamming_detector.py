"""The three criteria against brute force, their ranks, and queries with a known answer."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from scipy.ndimage import median_filter
from scipy.stats import percentileofscore
from sklearn.metrics import roc_auc_score
from torch import nn

from bench.access.defender import defender_view
from bench.api.defense import Database
from bench.api.random import Rng
from bench.api.types import Split, to_unit
from defenses.hamming_detector import HammingDetector, median, nearest
from defenses.helpers.ranks import ranks

NAMES = ["combined", "worst", "distance", "quantisation", "denoising"]


@pytest.mark.parametrize("neighbours", [1, 2, 5, 12, 13, 100])
def test_distance_is_to_the_nearest_items_of_the_whole_database(neighbours):
    rng = Rng("nearest")
    database = torch.where(rng.normal((12, 3)) > 0, 1.0, -1.0)
    codes, counts = torch.unique(database, dim=0, return_counts=True)
    assert len(codes) < 12
    queries = torch.where(rng.normal((6, 3)) > 0, 1.0, -1.0)
    expected = []
    for query in queries:
        found = sorted(int((query != item).sum()) / 3 for item in database)[:neighbours]
        expected.append(sum(found) / len(found))
    assert nearest(queries, codes, counts.float(), neighbours).tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("window", [3, 5])
@pytest.mark.parametrize("shape", [(1, 7, 9), (3, 4, 4)])
def test_denoiser_is_scipys_median_filter(window, shape):
    images = Rng("median").uniform((2, *shape))
    expected = median_filter(images.numpy(), size=(1, 1, window, window), mode="nearest")
    assert torch.equal(median(images, window), torch.from_numpy(expected))


def test_ranks_are_midranks_among_the_clean_values_and_one_more_at_each_end():
    clean = torch.tensor([[0.0, 1, 1, 1, 4], [-2.0, -1, 0, 1, 2]])
    values = torch.tensor([[-1.0, 0, 1, 2, 4, 9], [2.0, 1.5, 0, -1, -2, -3]])
    expected = [
        [percentileofscore([-math.inf, *row, math.inf], v, kind="mean") / 100 for v in points]
        for row, points in zip(clean.tolist(), values.tolist(), strict=True)
    ]
    found = ranks(values, clean)
    torch.testing.assert_close(found, torch.tensor(expected), check_dtype=False)
    assert 0 < float(found.min()) < float(found.max()) < 1


@pytest.mark.parametrize("window", [2, 4, 1])
def test_windows_have_a_centre(window):
    with pytest.raises(ValidationError):
        HammingDetector(window=window)


class Bits(nn.Module):
    """One logit per pixel of a grey image."""

    def __init__(self, slope: float = 8.0) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.slope * (images - 0.5).flatten(1)


def blocks(n: int, seed: str) -> Split:
    """4 x 4 images of four blocks, each dark or light: what a median filter nearly keeps."""
    rng = Rng("blocks", seed)
    light = (rng.uniform((n, 1, 2, 2)) > 0.5).float()
    images = 0.2 + 0.5 * light.repeat_interleave(2, 2).repeat_interleave(2, 3) + 0.1 * rng.uniform((n, 1, 4, 4))
    return Split((images * 255).round().to(torch.uint8), torch.ones(n, 1, dtype=torch.bool), torch.arange(n))


@pytest.fixture
def planted(world):
    """A detector fitted around a model whose code is the image, with a database of blocks."""
    model, stored = Bits().eval(), blocks(50, "database")
    signs = torch.where(model(to_unit(stored.images)) > 0, 1.0, -1.0)
    view = replace(
        defender_view(world.spec, world.defender_inputs(), world.context, HammingDetector.needs),
        model=model, fit_set=blocks(40, "fit"), granted={"database": Database(signs, stored.labels)},
    )  # fmt: skip
    detector = HammingDetector(neighbours=2)
    return detector, model, detector.fit(view, Rng("d")), view


@torch.no_grad()
def test_fit_keeps_distinct_codes_and_the_fitting_halfs_criteria_in_order(planted):
    detector, model, state, view = planted
    assert float(state["counts"].sum()) == 50
    assert len(state["codes"]) == len(torch.unique(view.database.signs, dim=0)) < 50
    for code, count in zip(state["codes"], state["counts"], strict=True):
        assert int((view.database.signs == code).all(1).sum()) == int(count)
    raw = detector.score(to_unit(view.fit_set.images), model, state)
    for row, name in zip(state["clean"], NAMES[2:], strict=True):
        assert row.tolist() == pytest.approx(sorted(raw[name].tolist()), abs=1e-6)
    other = detector.fit(replace(view, calibration_set=blocks(9, "other")), Rng("e"))
    assert all(torch.equal(value, other[name]) for name, value in state.items())


@torch.no_grad()
def test_scores_are_what_they_are_said_to_be(planted):
    detector, model, state, view = planted
    images = Rng("queries").uniform((8, 1, 4, 4))
    scores = detector.score(images, model, state)
    assert list(scores) == NAMES
    for i, image in enumerate(images):
        u = model(image[None])[0].tanh().double()
        calm = model(torch.tensor(median_filter(image[0].numpy(), size=3, mode="nearest"))[None, None])[0].tanh()
        signs = torch.where(u > 0, 1.0, -1.0)
        distances = sorted(float((signs != item).double().mean()) for item in view.database.signs)
        criteria = [
            sum(distances[:2]) / 2,
            float((u - signs).abs().mean()),
            float((u - calm).abs().mean()) / 2,
        ]
        assert [float(scores[name][i]) for name in NAMES[2:]] == pytest.approx(criteria, abs=1e-6)
        share = ranks(torch.tensor(criteria)[:, None], state["clean"])[:, 0].tolist()
        share = [abs(2 * share[0] - 1), abs(2 * share[1] - 1), share[2]]
        assert float(scores["combined"][i]) == pytest.approx(sum(share), abs=1e-5)
        assert float(scores["worst"][i]) == pytest.approx(max(share), abs=1e-5)


@torch.no_grad()
def test_quantisation_loss_still_tells_codes_apart_where_tanh_is_one():
    rng = Rng("flat")
    state = {"codes": torch.ones(1, 4), "counts": torch.ones(1), "clean": torch.zeros(3, 5)}
    images = torch.full((2, 1, 2, 2), 1.0)
    far, further = (
        HammingDetector().score(images + 0 * rng.uniform(images.shape), Bits(slope), state)["quantisation"][0]
        for slope in (40.0, 60.0)
    )
    assert 0 < float(further) < float(far) < 1e-15


@torch.no_grad()
def test_each_criterion_finds_the_query_that_it_is_made_for(planted):
    detector, model, state, _ = planted
    clean = to_unit(blocks(60, "queries").images)
    random_code = torch.where(Rng("planted").uniform(clean.shape) > 0.5, 0.75, 0.25)
    undecided = 0.5 + 0.1 * (clean - 0.5)
    speckled = clean.clone()
    speckled[:, :, 1::2, 1::2] = 1 - speckled[:, :, 1::2, 1::2]
    benign = detector.score(clean, model, state)
    truth = [0] * 60 + [1] * 60

    def auroc(name: str, images: torch.Tensor) -> float:
        return roc_auc_score(truth, torch.cat([benign[name], detector.score(images, model, state)[name]]))

    assert auroc("distance", random_code) > 0.95
    assert auroc("quantisation", undecided) == 1
    assert auroc("denoising", speckled) > 0.95
    for images in (random_code, undecided, speckled):
        assert auroc("worst", images) > 0.75
        assert auroc("combined", images) > 0.75
    others = to_unit(blocks(60, "more").images)
    for name in NAMES:
        assert abs(auroc(name, others) - 0.5) < 3 * math.sqrt(121 / (12 * 60 * 60)), name


@torch.no_grad()
def test_too_decided_is_as_suspicious_as_too_undecided(planted):
    detector, model, state, _ = planted
    clean = to_unit(blocks(60, "queries").images)
    decided = torch.where(clean > 0.5, 1.0, 0.0)
    one, other = (detector.score(images, model, state) for images in (clean, decided))
    truth = [0] * 60 + [1] * 60
    assert roc_auc_score(truth, torch.cat([one["quantisation"], other["quantisation"]])) == 0
    assert roc_auc_score(truth, torch.cat([one["worst"], other["worst"]])) > 0.85
