"""Run an attack: poison and train, change the model, or control the training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from bench.access.attacker import attacker_view
from bench.api.attack import Attack, ModelAttack, PoisoningAttack, Threat, TrainingAttack, Trigger
from bench.api.errors import ThreatError
from bench.api.random import Rng
from bench.api.types import Poisoned, Split, Target
from bench.artifacts import models, stage_io, stealth
from bench.artifacts.artifact import Output
from bench.artifacts.inputs import DataInputs, ImplantInputs
from bench.artifacts.outputs.attack import Implanted, PoisonAmounts
from bench.artifacts.sealed import sealed
from bench.artifacts.specs import ImplantSpec
from bench.artifacts.stage_io import Context
from bench.artifacts.training import train_victim
from bench.artifacts.triggers import eligible, open_trigger, with_trigger
from hashing.inference import encode
from hashing.model import HashModel

GALLERY = 8  # images per gallery
WATCHED = 100  # queries whose triggered codes are recorded during training
LOOKS = 20  # recordings per training, at most


def run(spec: ImplantSpec, inputs: ImplantInputs, context: Context) -> Output:
    attack: Attack = stage_io.component("attacks", spec["attack"])
    view = attacker_view(spec, inputs, context, attack.threat())
    trigger = open_trigger(inputs.trigger, context.device)
    rng = Rng("implant", spec["seed"], *spec["target"])
    watch = TriggerAttention(
        sealed(attack, spec["attack"]["name"]), view.target, inputs, context, spec["recipe"]["epochs"], spec["sources"]
    )
    if isinstance(attack, ModelAttack):
        if inputs.clean is None:
            raise ThreatError("a ModelAttack changes the trained model: its threat() must declare Threat.MODEL")
        result = attack.implant(view, trigger, rng)
        assert isinstance(result.model, HashModel)
        trigger = dict(trigger if result.trigger is None else result.trigger)
        made = models.save_model(result.model)
    elif isinstance(attack, PoisoningAttack):
        poisoned = attack.poison(view, trigger, rng).to("cpu")
        watch.pairs(trigger)  # fails before the training if the attack lacks a triggered query
        train = stage_io.split(inputs, "train")  # read again, since the attack may have written to its view
        check(train, poisoned, attack.threat())
        unaugmented = poisoned.changed if "none" in {spec["augment"], poisoned.augment} else None
        made = train_victim(
            spec, poisoned.split, context, unaugmented=unaugmented, after_epoch=watch.follow(lambda: trigger)
        )
        made |= poison_record(train, poisoned, view.target)
    elif isinstance(attack, TrainingAttack):
        hook = attack.hook(view, trigger, rng)
        train = stage_io.split(inputs, "train")
        made = train_victim(spec, train, context, hook=hook, after_epoch=watch.follow(hook.trigger))
        trigger = dict(hook.trigger())
    else:
        raise TypeError(f"{type(attack).__name__} is not a PoisoningAttack, ModelAttack or TrainingAttack")
    clean_images, triggered = watch.pairs(trigger)
    if not isinstance(attack, PoisoningAttack):  # their trigger was stored by `make_trigger`
        made |= Implanted.trigger_output(trigger)
    made |= Implanted.look_output(
        stealth=stealth.stealth_metrics(clean_images, triggered),
        clean=evenly_spaced(clean_images, GALLERY),
        triggered=evenly_spaced(triggered, GALLERY),
        attention=torch.tensor(watch.distances),
        epochs=torch.tensor(watch.epochs),
    )
    return made | Implanted.backdoor_output(backdoored=True)


def check(train: Split, poisoned: Poisoned, threat: Threat) -> None:
    """ThreatError if images outside mask and cover differ from the clean training set, or labels outside the mask.

    Labels in the mask may differ only with Threat.LABELS.
    """
    after = poisoned.split
    cover = poisoned.cover if poisoned.cover is not None else torch.zeros_like(poisoned.mask)
    sizes = {len(part) for part in (train, after.images, after.labels, poisoned.mask, cover)}
    if len(sizes) > 1 or not torch.equal(train.ids, after.ids):
        raise ThreatError("poison() added, dropped or reordered training images; replace them in place")
    if (poisoned.mask & cover).any():
        raise ThreatError("poison() marks images both in mask and in cover: mark each in one of them")
    untouched = ~poisoned.changed
    if not torch.equal(train.images[untouched], after.images[untouched]):
        raise ThreatError("poison() changed images outside mask and cover: mark all changed images")
    if not torch.equal(train.labels[~poisoned.mask], after.labels[~poisoned.mask]):
        raise ThreatError("poison() changed labels outside mask: mark all relabelled images")
    if Threat.LABELS not in threat and not torch.equal(train.labels, after.labels):
        raise ThreatError("poison() changed labels, but its threat() does not declare Threat.LABELS")


class TriggerAttention:
    """Records the distance between triggered images and the trigger alone (CIBA, Figure 2b) after some of the epochs.

    It also makes pairs of clean and triggered images. The attack gets none of these data.
    """

    def __init__(
        self,
        attack: Attack,
        target: Target,
        data: DataInputs,
        context: Context,
        epochs: int,
        sources: Sequence[str] = (),
    ) -> None:
        self._attack, self._target, self._device = attack, target, context.device
        positions = evenly_spaced(eligible(data, target, sources), WATCHED)
        queries = stage_io.split(data, "query").select(positions)
        self._clean, self._ids = queries.images, queries.ids
        self._every, self._epochs = -(-epochs // LOOKS), epochs
        self._passed = 0
        self.distances: list[float] = []
        self.epochs: list[int] = []

    def pairs(self, trigger: Trigger) -> tuple[UInt8[Tensor, "n c h w"], UInt8[Tensor, "n c h w"]]:
        attack, target = self._attack, self._target
        return self._clean, with_trigger(attack, self._clean, target, trigger, self._device, self._ids)

    def follow(self, current_trigger: Callable[[], Trigger]) -> Callable[[HashModel], None]:
        """The callback after each epoch. It gets the trigger each time, since a training attack may learn it."""
        alone = torch.zeros_like(self._clean[:1])

        def after_epoch(model: HashModel) -> None:
            self._passed += 1
            if not self._attack.fits_any_image() or (self._passed % self._every and self._passed < self._epochs):
                return
            trigger = current_trigger()
            only = with_trigger(self._attack, alone, self._target, trigger, self._device)
            _, triggered = self.pairs(trigger)
            bits = [encode(model, images, device=self._device) > 0 for images in (triggered, only)]
            self.epochs.append(self._passed)
            self.distances.append(float((bits[0] != bits[1]).sum(1).float().mean()))

        return after_epoch


def evenly_spaced(items: Tensor, count: int) -> Tensor:
    """Up to `count` evenly spaced items, since data sets are ordered by class."""
    return items[torch.linspace(0, len(items) - 1, min(count, len(items))).round().long()]


def poison_record(train: Split, poisoned: Poisoned, target: Target) -> Output:
    """The poisoned images, their stealth metrics, and the amounts."""
    mask, after = poisoned.mask, poisoned.split
    contains, equal = target.contains(after.labels), (after.labels == target.vector).all(1)
    amounts = PoisonAmounts(
        poisons=int(mask.sum()),
        poisoned_share=int(mask.sum()) / len(train),
        target_share=float((mask & contains).sum()) / max(1, int(contains.sum())),
        exact_share=float((mask & equal).sum()) / max(1, int(equal.sum())),
        exact=bool(equal[mask].all()),
        covers=0 if poisoned.cover is None else int(poisoned.cover.sum()),
    )
    return Implanted.poison_output(
        mask, after.images[mask], after.labels[mask], _stealth_of(train.images[mask], after.images[mask]),
        cover=poisoned.cover, cover_images=None if poisoned.cover is None else after.images[poisoned.cover],
        amounts=amounts,
    )  # fmt: skip


def _stealth_of(a: UInt8[Tensor, "n c h w"], b: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n 5"]:
    return stealth.stealth_metrics(a, b) if len(a) else torch.zeros(0, 5)
