"""Your own backdoored model and its trigger, read from files."""

from __future__ import annotations

from pathlib import Path

from attacks.helpers.external_model import ExternalModel
from attacks.helpers.trigger_pictures import TRIGGER, picture_trigger, put_picture
from bench.api.attack import AttackerView, Images, Rng, Target, Trigger, attack
from bench.api.card import Card

CARD = Card(
    title="A model of your own",
    year=2026,
    url="https://docs.pytorch.org/docs/stable/notes/serialization.html",
    follows="the model is used as it is, without training; the trigger is a picture of the images' size whose opacity"
    " tells how much of each pixel it covers",
    deviates="the control is a clean model that HashDoor trains; HashDoor does not know the training images of the"
    " file, so make sure that none of the suite's queries was among them",
)


@attack
class Checkpoint(ExternalModel):
    def files(self) -> tuple[Path, ...]:
        return (*super().files(), self.find(TRIGGER))

    def make_trigger(self, view: AttackerView, rng: Rng) -> Trigger:
        del rng
        return picture_trigger(self.find(TRIGGER), view.setting.image_shape)

    def apply_trigger(self, images: Images, target: Target, trigger: Trigger) -> Images:
        del target
        return put_picture(images, trigger)
