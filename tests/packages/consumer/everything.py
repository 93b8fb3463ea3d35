"""Components, results and checks, used as people use them. `E:` marks what mypy must report."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, assert_type

import pandas as pd
import torch
from torch import Tensor, nn

import reports
from attacks import TriggerPoisoning, exchange
from bench.api.attack import AttackerView, Images, Poisoned, Split, Target, Threat, Trigger, attack
from bench.api.card import Card
from bench.api.defense import Database, DefenderView, Filtered, Repair, Verdict, defense
from bench.api.errors import EXIT_USER, DataMissingError, RenamedWarning, UserError
from bench.api.hashing import DecodedDataset, FeatureExtractor, Objective, Recipe
from bench.api.random import Rng
from bench.api.types import Labels, to_8bit, to_unit
from bench.conformance import Check, ComponentUnderTest, Outcome, checks, conformance, examine
from hashing.codes import PackedCodes, pack
from hashing.inference import encode
from hashing.model import HashModel


@attack
class Fade(TriggerPoisoning):
    renamed: ClassVar[Mapping[str, tuple[str, str]]] = {"alpha": ("opacity", "0.3")}
    opacity: float = 0.5

    def apply_trigger(self, images: Images, target: Target, trigger: Trigger) -> Images:
        assert_type(target.name, str)
        assert_type(target.shares(target.vector[None]), Tensor)
        assert_type(trigger, Mapping[str, Tensor])
        return images * (1 - self.opacity)

    def poison(self, view: AttackerView, trigger: Trigger, rng: Rng) -> Poisoned:
        assert_type(view.train, Split)
        assert_type(view.model, nn.Module)
        assert_type(view.setting.bits, int)
        assert_type(view.setting.image_shape, tuple[int, int, int])
        assert_type(self.count(view.train, view.target, self.labels), int)
        chosen = self.choose(view.train, view.target, self.labels, rng.child("mine"))
        triggered = self.apply_trigger(to_unit(view.train.images[chosen]), view.target, trigger)
        assert_type(exchange(view.train, chosen, triggered), Poisoned)
        assert_type(super().poison(view, trigger, rng), Poisoned)
        return super().poison(view, trigger, rng)


@defense
class Tuned(Repair):
    epochs: int = 1

    def repair(self, view: DefenderView, rng: Rng) -> nn.Module:
        assert_type(view.database, Database)
        assert_type(view.database.signs, Tensor)
        assert_type(view.recipe, Recipe)
        assert_type(view.objective, Objective)
        assert_type(view.notes, dict[str, float])
        assert_type(view.untrained(per_image=True), nn.Module)
        return view.train_model(view.model, view.fit_set, view.recipe, rng)


fade = Fade(opacity=0.2, poisons=10)
assert_type(fade, Fade)
assert_type(fade.poisons, int | None)
assert_type(fade.threat(), Threat)
assert_type(fade.threat() | Threat.LABELS, Threat)
assert_type(Rng("mine", 0).permutation(4), Tensor)
assert_type(Rng("mine", 0).seed, int)
split = Split(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.ones(2, 3, dtype=torch.bool), torch.arange(2))
assert_type(split.select(torch.arange(1)), Split)
assert_type(to_8bit(to_unit(split.images)), Tensor)
assert_type(Filtered(torch.zeros(2), torch.ones(2, dtype=torch.bool)).model, nn.Module | None)
assert_type(Verdict(0.5).suspect, int | None)
assert_type(DecodedDataset(split.images, split.labels, split.labels).origin, Tensor)
assert_type(FeatureExtractor([nn.Flatten()], features=16).prefix(split.images), Tensor)
assert_type(Card(title="A", year=2026, url="https://example.org", follows="all").deviates, str)
assert_type(EXIT_USER, int)


def encoded(model: HashModel, images: Tensor) -> PackedCodes:
    assert_type(model.features(images), Tensor)
    assert_type(model.device, torch.device)
    logits = encode(model, images, device=torch.device("cpu"))
    assert_type(logits, Tensor)
    return pack(logits)


def missing(root: Path | None) -> Labels:
    if root is None:
        raise DataMissingError("give --data") from UserError("none")
    return split.labels


assert_type(reports.load("runs", suite="quick"), pd.DataFrame)
assert_type(reports.columns(), pd.DataFrame)
board = reports.tables("runs", "leaderboard", by="bits")[0]
assert_type(board.title, str)
assert_type(board.table, pd.DataFrame)
assert_type(board.caption, str)
chart = reports.charts(Path("runs"), run="all")[0]
assert_type(chart.svg, str)
assert_type(reports.draw_attacks("runs", "attacks.png"), str)
assert_type(reports.draw_sweeps("runs", "sweeps.pdf"), str)
assert_type(reports.write_html("runs", Path("report.html")), str)

test_fade = conformance("attacks", "fade")
assert_type(test_fade, Callable[[Check], None])
assert_type(checks("attacks"), Sequence[Check])
assert_type(examine("attacks", "fade", {"opacity": 0.1}), Iterator[Outcome])
assert_type(next(examine("attacks", "fade")).passed, bool)
assert_type(ComponentUnderTest.of("attacks", "fade", {}), ComponentUnderTest)
assert_type(issubclass(RenamedWarning, FutureWarning), bool)

Fade(opacity="half")  # E: arg-type
Fade(strength=0.5)  # E: call-arg
Fade(0.5)  # E: call-arg
Target(vector=split.labels[0])  # E: call-arg
Recipe(optimizer="lbfgs", lr=0.1, weight_decay=0, batch=8, epochs=1)  # E: arg-type
reports.load("runs", run="first")  # E: arg-type
reports.tables(1)  # E: arg-type
conformance("attacks")  # E: call-arg
split.replace(torch.arange(1), images="black")  # E: arg-type
Rng(0.5)  # E: arg-type


class Unstamped(TriggerPoisoning):
    def apply_trigger(self, images: Images) -> Images:  # E: override
        return images
