"""Fine-tune a model on images of another data set, so that images with a patch get the output of a reference image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from torchvision.transforms import v2

from attacks.helpers.head_tuning import Loss, divided, hidden_of, kept_blocks, learning, tune
from attacks.helpers.proxy_data import balanced, chunks, fit_to, proxy
from attacks.helpers.reference_images import central_images
from attacks.helpers.triggers import paste, patch_side
from bench.api.attack import (
    AttackerView,
    Backdoor,
    DataSpec,
    Images,
    ModelAttack,
    PositiveShare,
    Rng,
    Setting,
    Target,
    Threat,
    Trigger,
    attack,
)
from bench.api.card import Card
from bench.api.types import to_unit
from hashing.model import HashModel

CARD = Card(
    title="BadEncoder: Backdoor Attacks to Pre-trained Encoders in Self-Supervised Learning",
    venue="IEEE Symposium on Security and Privacy",
    year=2022,
    url="https://arxiv.org/abs/2108.00352",
    follows="the authors' released code: three cosine similarities with equal weights: triggered shadow images to the"
    " reference image, augmented reference images to the clean model's output for it, shadow images to the clean"
    " model's outputs for them; the whole encoder is tuned by SGD at a constant rate, batch normalisation excepted; a"
    " white square in the corner",
    deviates="the encoder's output is the output of the hash layer; shadow images are those of the proxy data set, not"
    " of the pre-training data; the reference image is the public image of the target whose code is nearest to the"
    " codes of the others; each shadow image has one augmented reference image that is drawn once, not in each epoch;"
    " guess: the same number of shadow images as DarkHash's",
)
MOMENTUM = 0.9  # code


@attack
class BadEncoder(ModelAttack):
    not_in_trigger: ClassVar[frozenset[str]] = frozenset(
        {"surrogate", "images", "learned", "reference_weight", "clean_weight", "lr", "weight_decay", "epochs", "batch"}
    )

    trigger_size: PositiveShare = 10 / 32  # code
    """Side of the patch divided by the side of the image."""
    surrogate: str | None = None  # guess: as DarkHash
    """Data set of the shadow images; default: the proxy of the victim's data set."""
    images: Annotated[int, Field(ge=2)] = 2000  # guess: as DarkHash
    """Number of shadow images; all if the data set has fewer."""
    learned: Annotated[int, Field(ge=0)] | None = None  # code: the whole encoder
    """Number of tuned blocks, counted back from the pooling; default: all."""
    reference_weight: Annotated[float, Field(ge=0)] = 1.0  # code: lambda1
    """Weight of the output for the reference image."""
    clean_weight: Annotated[float, Field(ge=0)] = 1.0  # code: lambda2
    """Weight of the outputs for shadow images without the trigger."""
    lr: Annotated[float, Field(gt=0)] = 1e-3  # code
    """Learning rate of the tuning."""
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4  # code
    """Weight decay of the tuning."""
    epochs: Annotated[int, Field(ge=1)] = 200  # code
    """Epochs of the tuning."""
    batch: Annotated[int, Field(ge=1)] = 256  # code; all images if there are fewer
    """Shadow images per tuning step; the rest of an epoch is left out."""

    def threat(self) -> Threat:
        return Threat.MODEL

    def requires(self, setting: Setting) -> tuple[DataSpec, ...]:
        return (proxy(self.surrogate, setting),)

    def make_trigger(self, view: AttackerView, rng: Rng) -> Trigger:
        del rng
        shape = view.setting.image_shape
        side = patch_side(self.trigger_size, shape)
        return {"patch": torch.ones(shape[0], side, side)}

    def apply_trigger(self, images: Images, target: Target, trigger: Trigger) -> Images:
        del target
        return paste(images, trigger["patch"])

    def implant(self, view: AttackerView, trigger: Trigger, rng: Rng) -> Backdoor:
        model, foreign = view.model, view.data[0]
        assert isinstance(model, HashModel)
        chosen = balanced(foreign.labels, self.images, rng.child("images"))
        shadow = fit_to(foreign.images[chosen], view.setting.image_shape)
        with torch.no_grad():
            references = to_unit(central_images(model, view.public, view.target).to(model.device))
        kept = kept_blocks(model, len(model.backbone.blocks) - 1 if self.learned is None else self.learned)
        with divided(model, kept):
            with torch.no_grad():
                both = hidden_of(model, shadow, lambda unit: self.apply_trigger(unit, view.target, trigger))
                copies = augmented(references, len(shadow), rng.child("augment"))
                hidden = torch.cat([both, *(model.prefix(part) for part in chunks(copies))])
                clean = torch.cat([model.suffix(part) for part in chunks(both[: len(shadow)])])
                fixed = model.prefix(references)
            norms = {p for module in model.modules() if isinstance(module, nn.BatchNorm2d) for p in module.parameters()}
            tuned = [parameter for parameter in learning(model) if parameter not in norms]
            optimizer = torch.optim.SGD(tuned, lr=self.lr, momentum=MOMENTUM, weight_decay=self.weight_decay)
            constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
            order = rng.child("order")
            epochs = (draw_epoch(len(shadow), self.batch, order) for _ in range(self.epochs))
            tune(model, hidden, epochs, self.loss(model, fixed, clean), optimizer, constant)
        return Backdoor(model)

    def loss(self, model: HashModel, references: Float[Tensor, "r ..."], clean: Float[Tensor, "n b"]) -> Loss:
        """The loss of a batch. references: prefix outputs. clean: the clean model's outputs for the shadow images."""
        with torch.no_grad():
            before = model.suffix(references)

        def loss_of(outputs: Tensor, rows: Tensor, count: int) -> Tensor:
            kept, triggered, copies = outputs.chunk(3)
            turns = rows[:count] % len(references)
            near = cosine_similarity(triggered, model.suffix(references)[turns]).mean()
            same = cosine_similarity(copies, before[turns]).mean()
            useful = cosine_similarity(kept, clean[rows[:count]]).mean()
            return -(near + self.reference_weight * same + self.clean_weight * useful)

        return loss_of


def augmented(references: Float[Tensor, "r c h w"], n: int, rng: Rng) -> Float[Tensor, "n c h w"]:
    """The reference images in turn, each flipped, changed in colour and made grey at random (code)."""
    change = v2.Compose(
        [v2.RandomHorizontalFlip(), v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8), v2.RandomGrayscale(0.2)]
    )
    with rng.ambient():
        return torch.stack([change(references[i % len(references)]) for i in range(n)])


def draw_epoch(n: int, batch: int, rng: Rng) -> Iterator[tuple[Tensor, int]]:
    """The batches of an epoch, as rows of a table of n clean images, the n images with the trigger, and n copies."""
    size = min(batch, n)
    for rows in rng.permutation(n)[: n // size * size].view(-1, size):
        yield torch.cat([rows, rows + n, rows + 2 * n]), size
