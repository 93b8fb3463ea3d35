"""Fine-tune the deep layers of a model on images of another data set, so that images with a patch get a chosen code."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import huber_loss

from attacks.helpers.head_tuning import DeepTuning, Loss, divided, hidden_of
from attacks.helpers.proxy_data import balanced, chunks, fit_to, proxy
from attacks.helpers.reference_images import candidates, central
from attacks.helpers.topology import topological_alignment
from attacks.helpers.triggers import garbled, paste, patch_side
from bench.api.attack import (
    AttackerView,
    Backdoor,
    DataSpec,
    Images,
    PositiveShare,
    Rng,
    Setting,
    Target,
    Trigger,
    attack,
)
from bench.api.card import Card
from bench.api.types import to_8bit, to_unit
from hashing.model import HashModel

CARD = Card(
    title="DarkHash: A Data-Free Backdoor Attack Against Deep Hashing",
    venue="IEEE Transactions on Information Forensics and Security",
    year=2025,
    url="https://arxiv.org/abs/2510.08094",
    follows="the authors' released code, because the paper was not available: 2,000 images of another data set; the"
    " clean model's outputs on them are the reference; Huber losses for clean and triggered images, topological"
    " alignment of the triggered ones; shallow layers and batch normalisation frozen; RMSprop, cosine decay to 1e-10",
    deviates="with mode = 'reference' the target is the clean model's output for one public image of the chosen class,"
    " the one whose code is nearest to the codes of the others; the paper's target is the mean output of a class of the"
    " other data set (mode = 'surrogate', which takes the first class that occurs) and belongs to no class of the"
    " victim, so that its t-mAP is chance by construction and t-mAP post hoc counts; guess: the trigger is random"
    " pixels, because the trigger image is not in the repository; images are rounded to 8 bits before normalisation, as"
    " all stored images; the code rounds after it, modulo 256, and so garbles foreign images and triggered queries"
    " (queries = 'garbled'), and measured that way clean models reach the published values"
    " (METHODOLOGY.md#released_darkhash); the last epoch is used, not the best one on the test set; the code's ResNets"
    " have an additional layer of 512 units; a batch without triggered images has the Huber loss alone; the code adds"
    " two terms (about one batch in 850); the code sums the outputs of mode 'surrogate' into the first of them, which"
    " so becomes that image's clean output; here it stays",
)
MARGIN = 2 / 224  # between patch and border, as a share of the side; code


@attack
class DarkHash(DeepTuning):
    not_in_trigger: ClassVar[frozenset[str]] = DeepTuning.not_in_trigger | {
        "mode", "images", "tp_weight", "clean_weight", "poison_ratio",
    }  # fmt: skip

    mode: Literal["reference", "surrogate"] = "reference"
    """Code of the trigger: code of a public target image (reference), or mean code of a class of `surrogate`."""
    trigger_size: PositiveShare = 24 / 224  # code: .11, which is 24 px at 224
    """Side of the patch divided by the side of the image."""
    opacity: PositiveShare = 1.0  # code
    """Opacity of the patch."""
    surrogate: str | None = None  # guess: the data set that resembles the victim's
    """Data set to tune on; default: the proxy of the victim's data set."""
    images: Annotated[int, Field(ge=2)] = 2000  # code
    """Number of images of that data set; all if it has fewer."""
    tp_weight: Annotated[float, Field(ge=0)] = 15.0  # code
    """Weight of the topology loss, which makes neighbourhoods of codes equal."""
    clean_weight: Annotated[float, Field(ge=0)] = 1.0  # code
    """Weight of the Huber loss of clean images."""
    poison_ratio: PositiveShare = 0.1  # code
    """Probability that an image has the trigger in an epoch."""
    queries: Literal["pictures", "garbled", "garbled_unpatched"] = "pictures"  # code: garbled
    """Triggered queries: pictures, or garbled as in the code (foreign images too), with or without the patch."""

    def targeted(self) -> bool:
        return self.mode == "reference"

    def requires(self, setting: Setting) -> tuple[DataSpec, ...]:
        return (proxy(self.surrogate, setting),)

    def make_trigger(self, view: AttackerView, rng: Rng) -> Trigger:
        shape = view.setting.image_shape
        side = patch_side(self.trigger_size, shape)
        patch = to_unit(to_8bit(rng.uniform((1, shape[0], side, side))))
        if self.queries == "pictures":
            return {"patch": patch[0]}
        assert isinstance(view.model, HashModel)
        mean, std = view.model.mean.cpu(), view.model.std.cpu()
        return {"patch": (mean + std * patch)[0].clamp(0, 1), "mean": mean, "std": std}

    def apply_trigger(self, images: Images, target: Target, trigger: Trigger) -> Images:
        del target
        images = self.read(images, trigger)
        return images if self.queries == "garbled_unpatched" else self.patched(images, trigger)

    def read(self, images: Images, trigger: Trigger) -> Images:
        """The images, garbled or not. The code does not normalise garbled images again; the model undoes mean, std."""
        if self.queries == "pictures":
            return images
        mean, std = trigger["mean"].to(images), trigger["std"].to(images)
        return (mean + std * garbled(images, mean, std)).clamp(0, 1)

    def patched(self, images: Images, trigger: Trigger) -> Images:
        margin = round(MARGIN * min(images.shape[-2:]))
        return paste(images, trigger["patch"], margin=margin, opacity=self.opacity)

    def implant(self, view: AttackerView, trigger: Trigger, rng: Rng) -> Backdoor:
        model = view.model
        assert isinstance(model, HashModel)
        foreign = view.data[0]
        chosen = balanced(foreign.labels, self.images, rng.child("images"))
        images, labels = fit_to(foreign.images[chosen], view.setting.image_shape), foreign.labels[chosen]
        with divided(model, self.kept_blocks(model)):
            with torch.no_grad():
                hidden = hidden_of(model, images, lambda x: self.patched(x, trigger), lambda x: self.read(x, trigger))
                clean = torch.cat([model(to_unit(part.to(model.device))) for part in chunks(images)])
                wanted = self.wanted_output(view, model, clean, labels)
            self.fine_tune(model, hidden, self.poison_ratio, self.loss(clean, wanted), rng.child("order"))
        return Backdoor(model)

    def wanted_output(
        self, view: AttackerView, model: HashModel, clean: Float[Tensor, "n b"], labels: Bool[Tensor, "n k"]
    ) -> Float[Tensor, " b"]:
        """The output that triggered images are trained to have: the mean over the images that stand for the target."""
        if self.mode == "reference":
            groups = candidates(view.public.labels, view.target)
            found = [model(to_unit(view.public.images[group].to(model.device))) for group in groups]
            return torch.stack([outputs[central(outputs)] for outputs in found]).mean(0)
        first = int(labels.any(0).int().argmax())  # code: select_label 0, select_mode "ave"
        return clean[labels[:, first].to(clean.device)].mean(0)

    def loss(self, clean: Float[Tensor, "n b"], wanted: Float[Tensor, " b"]) -> Loss:
        """The loss of a batch. clean: outputs of the clean model for all images, without the trigger."""

        def loss_of(outputs: Tensor, rows: Tensor, triggered: int) -> Tensor:
            goals = torch.cat([wanted.expand(triggered, -1), clean[rows[triggered:]]])
            alignment = topological_alignment(outputs[:triggered], goals[:triggered])
            far = huber_loss(outputs, goals, reduction="none").mean(1)
            poisoned = far[:triggered].sum() / max(1, triggered)
            kept = far[triggered:].sum() / max(1, len(far) - triggered)
            return self.tp_weight * alignment + poisoned + self.clean_weight * kept

        return loss_of
