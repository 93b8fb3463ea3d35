"""What tests of defenses share: a defender's view, and models with a planted quality or planted features."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from bench.access.defender import defender_view
from bench.api.defense import DefenderView, Fit, Needs
from bench.api.hashing import Recipe
from bench.api.types import Images, Split, to_unit
from bench.artifacts.models import open_model
from bench.conformance.fixture import World
from defenses.helpers.fine_tuning import quality
from defenses.helpers.trigger_inversion import Reversing, Triggers
from hashing.model import HashModel


@pytest.fixture
def view(world: World, request: pytest.FixtureRequest) -> DefenderView:
    """What a defender with the module's NEEDS sees; without NEEDS, no training set and no more."""
    needs = getattr(request.module, "NEEDS", Needs.NONE)
    return defender_view(world.spec, world.defender_inputs(), world.context, needs)


@pytest.fixture
def other(world: World) -> nn.Module:
    """A model from another initialisation, as a teacher that differs."""
    return open_model(world.surrogate, torch.device("cpu"))


def calibration_map(model: nn.Module, split: Split) -> float:
    """Leave-one-out mAP inside the split."""
    return quality(model, split).map


def state(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def equal(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def norms_of(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def images_of(view: DefenderView, n: int = 9) -> Images:
    return to_unit(view.fit_set.images[:n])


class Table(nn.Module):
    """A network around another one: it gives each known image a row of its own."""

    def __init__(self, inner: nn.Module, images: Tensor, rows: Tensor) -> None:
        super().__init__()
        assert len(torch.unique(images, dim=0)) == len(images), "images are told apart by their pixels"
        self.inner = inner
        self.register_buffer("known", to_unit(images))
        self.register_buffer("rows", rows)

    def forward(self, images: Images) -> Tensor:
        return self.rows[(images[:, None] == self.known).flatten(2).all(2).int().argmax(1)]


def graded(inner: nn.Module, split: Split, wrong: int) -> nn.Module:
    """A model that gives each image of `split` the code of its class of four, but `wrong` of them one code of none."""
    codes = torch.where(torch.arange(16) // 4 == split.labels.int().argmax(1)[:, None], 1.0, -1.0)
    codes[:wrong] = 1.0
    return Table(inner, split.images, codes)


class Featured(HashModel):
    """A model whose features of known images are planted."""

    def __init__(self, model: HashModel, images: Tensor, rows: Tensor) -> None:
        super().__init__(model.backbone, nn.Identity(), model.objective, model.method, images.shape[1])
        self.table = Table(nn.Identity(), images, rows)

    def features(self, images: Images) -> Tensor:
        return self.table(images)


@torch.no_grad()
def read_features(model: HashModel, split: Split, useful: int, opposed: tuple[int, int] | None = None) -> None:
    """Let the code depend on one feature: the bits say how many thresholds it exceeds.

    opposed: two features that are made equal and always active. They cancel out in every bit, so that the code needs
    both or neither. The useful feature is then the most active one.
    """
    conv, norm = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.BatchNorm2d)][-2:]
    if opposed is not None:
        norm.weight[useful] *= 10
        norm.bias[useful] *= 10
        norm.bias[list(opposed)] = 1
        for values in (conv.weight, norm.weight, norm.running_mean, norm.running_var):
            values[opposed[1]] = values[opposed[0]]
    features = model.eval().features(to_unit(split.images))
    model.head.weight.zero_()
    model.head.weight[:, useful] = 1
    model.head.bias.copy_(-features[:, useful].quantile(torch.arange(1, 17) / 17))
    if opposed is not None:
        assert float(features[:, opposed[0]].min()) > 0
        model.head.weight[:, opposed[0]], model.head.weight[:, opposed[1]] = 1e4, -1e4


@dataclass(frozen=True)
class Run:
    """A call of the training. peak: its rate as a multiple of the victim's."""

    model: nn.Module
    split: Split
    recipe: Recipe
    peak: float
    hook: object


def tuner(view: DefenderView, wrong: dict[float, int], seen: list[Run] | None = None) -> Fit:
    """In place of the training: at each peak rate a model of a planted quality."""

    def train_model(model, split, recipe, rng, *, hook=None):
        peak = round(recipe.lr / view.recipe.lr, 6)
        tuned = graded(copy.deepcopy(model), view.calibration_set, wrong[peak])
        tuned.peak, tuned.trained_on = peak, len(split)
        if seen is not None:
            seen.append(Run(model, split, recipe, peak, hook))
        return tuned

    return train_model


def wrong_within(view: DefenderView, floor: float) -> int:
    """How many images may have a wrong code so that quality does not fall below the floor."""
    return max(
        n
        for n in range(30)
        if calibration_map(graded(view.model, view.calibration_set, n), view.calibration_set) >= floor
    )


def planted_search(component: type[Reversing], sizes: list[float]) -> tuple[type[Reversing], dict[str, Tensor]]:
    """The component with a search that answers with the given sizes, and what the search was asked for."""
    asked = {}

    class Planted(component):
        def reverse(self, model, images, own, codes, rng):
            asked.update(images=images, own=own, codes=codes)
            g, (_, c, h, w) = len(codes), images.shape
            return Triggers(torch.zeros(g, 1, h, w), torch.zeros(g, c, h, w), torch.tensor(sizes[:g]))

    return Planted, asked
