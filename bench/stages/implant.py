"""Carry out an attack: poison and train, change the model, or control the training."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from bench.api.attack import Artefact, Attack, ModelAttack, PoisoningAttack, StepHook, Threat, TrainingAttack
from bench.api.errors import ThreatError
from bench.api.random import Rng
from bench.api.types import Poisoned, Split, Target
from bench.stages import _base, _stealth
from bench.stages._base import Context, Inputs, Json, Output
from bench.stages._trigger import eligible, triggered
from bench.views.attacker import victim
from hashing.model import HashModel, encode, fit_normalisation
from hashing.train import fit

GALLERY = 8  # images per gallery
WATCHED = 100  # queries whose triggered codes are followed over the epochs


def run(spec: Json, inputs: Inputs, context: Context) -> Output:
    attack: Attack = _base.component("attacks", spec["attack"])
    view = victim(spec, inputs, context, attack)
    artefact = _base.artefact(inputs, context.device)
    rng = Rng("implant", spec["seed"], *spec["target"])
    watch = _Watch(attack, view.target, inputs, context)
    extra: dict[str, Tensor] = {}
    meta: Json = {}
    if isinstance(attack, ModelAttack):
        result = attack.implant(view, artefact, rng)
        assert isinstance(result.model, HashModel)
        model, artefact = result.model, dict(result.artefact if result.artefact is not None else artefact)
    elif isinstance(attack, PoisoningAttack):
        train = _base.split(inputs, "train")
        poisoned = attack.poison(view.train, view.target, artefact, rng)
        check(train, poisoned, attack.threat())
        model = _train(spec, poisoned, context, watch, artefact)
        extra, meta = _poison_record(train, poisoned, view.target)
    elif isinstance(attack, TrainingAttack):
        train = _base.split(inputs, "train")
        hook = attack.hook(view, artefact, rng)
        clean = Poisoned(train, torch.zeros(len(train), dtype=torch.bool))
        model = _train(spec, clean, context, watch, artefact, hook=hook)
        artefact = dict(hook.artefact())
    else:
        raise TypeError(f"{type(attack).__name__} is no PoisoningAttack, ModelAttack or TrainingAttack")
    setting = view.setting
    plan = _base.blueprint(
        spec, image_shape=setting.image_shape, classes=len(setting.classes), train_size=setting.train_size
    )
    tensors, model_meta = _base.save_model(model, plan)
    clean_images, stamped = watch.pairs(artefact)
    tensors |= extra
    tensors |= {f"artefact.{name}": value.detach().cpu().contiguous() for name, value in artefact.items()}
    tensors |= {
        "stealth": _stealth.measure(clean_images, stamped),
        "gallery_clean": clean_images[:GALLERY],
        "gallery_triggered": stamped[:GALLERY],
        "attention": torch.tensor(watch.distances),
    }
    return Output(tensors, {**meta, **model_meta, "backdoored": True})


def check(train: Split, poisoned: Poisoned, threat: Threat) -> None:
    """A poisoned set is the clean one with exactly the masked items exchanged, and no more than the threat grants."""
    after = poisoned.split
    if not torch.equal(train.ids, after.ids) or poisoned.mask.shape != train.ids.shape:
        raise ThreatError("poison() added, dropped or reordered training items; exchange them in place")
    untouched = ~poisoned.mask
    if not torch.equal(train.images[untouched], after.images[untouched]):
        raise ThreatError("poison() changed images that its mask does not name")
    if not torch.equal(train.labels[untouched], after.labels[untouched]):
        raise ThreatError("poison() changed labels that its mask does not name")
    if Threat.LABELS not in threat and not torch.equal(train.labels, after.labels):
        raise ThreatError("poison() changed labels, but its threat() does not declare Threat.LABELS")


class _Watch:
    """What the harness looks at from outside; nothing of it reaches the attack.

    The distance between triggered images and the trigger alone (CIBA, Figure 2b); pairs of clean and triggered images.
    """

    def __init__(self, attack: Attack, target: Target, inputs: Inputs, context: Context) -> None:
        self._attack, self._target, self._device = attack, target, context.device
        positions = eligible(inputs, target)[:WATCHED]
        self._clean = _base.split(inputs, "query").images[positions]
        self.distances: list[float] = []

    def pairs(self, artefact: Artefact) -> tuple[UInt8[Tensor, "n c h w"], UInt8[Tensor, "n c h w"]]:
        return self._clean, triggered(self._attack, self._clean, self._target, artefact, self._device)

    def after_epoch(self, model: HashModel, artefact: Artefact) -> None:
        alone = torch.zeros_like(self._clean[:1])
        only = triggered(self._attack, alone, self._target, artefact, self._device)
        _, stamped = self.pairs(artefact)
        bits = [encode(model, images, device=self._device) > 0 for images in (stamped, only)]
        self.distances.append(float((bits[0] != bits[1]).sum(1).float().mean()))


def _train(
    spec: Json,
    poisoned: Poisoned,
    context: Context,
    watch: _Watch,
    artefact: Artefact,
    hook: StepHook | None = None,
) -> HashModel:
    """The victim's own training, with its own dice: only the images (and labels) differ from the clean run."""
    images, labels = poisoned.split.images, poisoned.split.labels
    c, h, w = images.shape[1:]
    model = _base.new_model(spec, image_shape=(c, h, w), classes=labels.shape[1], train_size=len(labels))
    fit_normalisation(model, images)
    model = model.to(context.device)
    frozen = poisoned.mask if "frozen" in (spec["augment"], poisoned.augment) else None
    fit(
        model,
        poisoned.split,
        _base.recipe(spec),
        Rng("victim", spec["seed"]),
        augmentation=_base.augmentation(spec),
        frozen=frozen,
        hook=hook,
        after_epoch=lambda _: watch.after_epoch(model, artefact),
    )
    return model


def _poison_record(train: Split, poisoned: Poisoned, target: Target) -> tuple[dict[str, Tensor], Json]:
    mask, after = poisoned.mask, poisoned.split
    count = int(mask.sum())
    contains = target.contains(after.labels)
    tensors = {
        "mask": mask,
        "poison_images": after.images[mask],
        "poison_labels": after.labels[mask],
        "poison_stealth": _stealth_of(train.images[mask], after.images[mask]),
    }
    share = float((mask & contains).sum()) / max(1, int(contains.sum()))
    return tensors, {"poisons": count, "poison_rate": count / len(train), "target_share": share}


def _stealth_of(a: UInt8[Tensor, "n c h w"], b: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n 3"]:
    return _stealth.measure(a, b) if len(a) else torch.zeros(0, 3)
