"""Your own backdoored model and its trigger, read from files."""

from __future__ import annotations

from pathlib import Path

from attacks.helpers.external_model import ExternalModel
from bench.api.attack import AttackerView, Images, Rng, Target, Trigger, attack
from bench.api.card import Card
from bench.api.errors import DataCorruptError
from bench.api.types import to_unit
from bench.api.untrusted import read_bytes
from hashing.image_decoding import decode_rgba

CARD = Card(
    title="A model of your own",
    year=2026,
    url="https://docs.pytorch.org/docs/stable/notes/serialization.html",
    follows="the model is used as it is, without training; the trigger is a picture of the images' size whose opacity"
    " tells how much of each pixel it covers",
    deviates="the control is a clean model that HashDoor trains; HashDoor does not know the training images of the"
    " file, so make sure that none of the suite's queries was among them",
)
TRIGGER, LIMIT = "trigger.png", 2**26  # bytes


@attack
class Checkpoint(ExternalModel):
    def files(self) -> tuple[Path, ...]:
        return (*super().files(), self.find(TRIGGER))

    def make_trigger(self, view: AttackerView, rng: Rng) -> Trigger:
        del rng
        file, shape = self.find(TRIGGER), view.setting.image_shape
        picture, opacity = decode_rgba(read_bytes(file, LIMIT), f"'{file}'", channels=shape[0])
        if picture.shape[2:] != shape[1:]:
            sizes = [f"{side[1]} x {side[0]}" for side in (picture.shape[2:], shape[1:])]
            raise DataCorruptError(f"'{file}' has {sizes[0]} pixels, the images have {sizes[1]}: resize the picture")
        if bool((opacity == 255).all() or (opacity == 0).all()):
            raise DataCorruptError(
                f"'{file}' is {'opaque' if opacity.any() else 'transparent'} everywhere",
                "make the pixels transparent"
                " that the trigger does not cover, and half transparent those that it blends with",
            )
        return {"picture": to_unit(picture), "opacity": to_unit(opacity)}

    def apply_trigger(self, images: Images, target: Target, trigger: Trigger) -> Images:
        del target
        opacity = trigger["opacity"].to(images)
        return images + opacity * (trigger["picture"].to(images) - images)
