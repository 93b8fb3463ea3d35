"""BadHash's networks and losses: a label network, a conditional generator and a discriminator."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from bench.api.errors import DivergedError
from bench.api.random import Rng
from bench.api.types import Images

BETAS = (0.5, 0.999)  # of every Adam here; BadHash code, model/badhash.py
TEMPERATURE, SMOOTHING = 0.5, 0.2  # BadHash code, model/utils.py
LABEL_BATCH = 128  # BadHash code, model/badhash.py


class LabCLN(nn.Module):
    """From a label vector: a feature, a code in [-1, 1], and the label vector as read back from the feature."""

    def __init__(self, *, classes: int, bits: int, width: int) -> None:
        super().__init__()
        hidden, features = 64 * width, 8 * width  # 4096 and 512 at the paper's width of 64
        self.feature = nn.Sequential(nn.Linear(classes, hidden), nn.ReLU(), nn.Linear(hidden, features))
        self.code, self.label = nn.Linear(features, bits), nn.Linear(features, classes)

    def forward(
        self, labels: Float[Tensor, "n k"]
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n b"], Float[Tensor, "n k"]]:
        feature = self.feature(labels)
        return feature, self.code(feature).tanh(), self.label(feature).sigmoid()


def nt_xent(features: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
    """NT-Xent loss: rows 2i and 2i + 1 are a positive pair, all other pairs are negative, even with equal labels."""
    unit = nn.functional.normalize(features, dim=1)
    similarity = unit @ unit.T / TEMPERATURE
    itself = torch.eye(len(features), dtype=torch.bool, device=features.device)
    partner = torch.arange(len(features), device=features.device) ^ 1
    return nn.functional.cross_entropy(similarity.masked_fill(itself, -torch.inf), partner)


def smoothed(labels: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """Label smoothing: 1 - SMOOTHING for each label that is set; the other labels share SMOOTHING evenly."""
    others = 1 - labels
    return (1 - SMOOTHING) * labels + SMOOTHING * others / others.sum(1, keepdim=True).clamp_min(1)


def train_labcln(
    labels: Bool[Tensor, "u k"], *, bits: int, width: int, steps: int, lr: float, rng: Rng, device: torch.device
) -> LabCLN:
    """Train the label network.

    labels: every label vector that occurs, once. The learning rate is divided by 10 after 1/2 and after 3/4 of the
    steps.
    """
    with rng.child("labcln").ambient():
        network = LabCLN(classes=labels.shape[1], bits=bits, width=width)
    network = network.to(device)
    pool, drawn = labels.to(device).float(), rng.integers(len(labels), (steps, LABEL_BATCH)).to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=lr, betas=BETAS, fused=True)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [steps // 2, steps * 3 // 4], gamma=0.1)
    total = torch.zeros((), device=device)
    for index in drawn:
        label = pool[index]
        feature, code, guess = network(torch.stack((smoothed(label), label), 1).flatten(0, 1))
        quantisation = (torch.sign(code) - code).square().sum() / (1e4 * LABEL_BATCH)
        read_back = nn.functional.mse_loss(guess, label.repeat_interleave(2, 0))
        loss = nt_xent(feature) + read_back + quantisation
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        total += loss.detach()
    if not bool(total.isfinite()):
        raise DivergedError("the loss of BadHash's label network is not finite: lower lr")
    return network.eval()


@dataclass(frozen=True)
class Depth:
    """How often each network halves or doubles the side of an image.

    label: the label branch. trunk: the generator's trunk. judge: the discriminator.
    """

    label: int
    trunk: int
    judge: int

    @classmethod
    def of(cls, image_shape: tuple[int, int, int]) -> Depth:
        """The paper's 4, 2 and 5 at 224 pixels.

        guess: smaller images get fewer, so that the smallest maps of the generator keep at least 8 pixels a side and
        those of the discriminator at least 4, if the image is that large. In the paper these maps have 14 and 7.
        """
        octaves = min(image_shape[1:]).bit_length() - 1
        return cls(*(max(1, min(most, octaves - left)) for most, left in ((4, 3), (2, 3), (5, 2))))


def _normal(channels: int) -> list[nn.Module]:
    return [nn.InstanceNorm2d(channels), nn.ReLU()]


def _up(before: int, after: int) -> list[nn.Module]:
    return [nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False), *_normal(after)]


def padded(side: int, depth: Depth) -> int:
    """The next multiple of the generator's largest stride."""
    step = 1 << max(depth.label, depth.trunk)
    return -(-side // step) * step


class LabelBranch(nn.Module):
    """Turns a label's feature into an image, which the trunk gets as additional channels."""

    def __init__(self, image_shape: tuple[int, int, int], *, features: int, width: int) -> None:
        super().__init__()
        depth = Depth.of(image_shape)
        start = tuple(padded(side, depth) // 2**depth.label for side in image_shape[1:])
        widths = [max(1, 2 * width >> level) for level in range(depth.label + 1)]  # 128 to 8 in the paper
        layers = [layer for before, after in pairwise(widths) for layer in _up(before, after)]
        self.fc = nn.Sequential(
            nn.Linear(features, widths[0] * start[0] * start[1]), nn.ReLU(), nn.Unflatten(1, (widths[0], *start))
        )
        self.draw = nn.Sequential(*layers, nn.Conv2d(widths[-1], image_shape[0], 3, padding=1, bias=False))

    def forward(self, feature: Float[Tensor, "n d"]) -> Float[Tensor, "n c y x"]:
        out: Tensor = self.draw(self.fc(feature))
        return out


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), *_normal(channels),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.InstanceNorm2d(channels),
        )  # fmt: skip

    def forward(self, hidden: Tensor) -> Tensor:
        out: Tensor = hidden + self.main(hidden)
        return out


class Trunk(nn.Module):
    """Redraws images under a condition. No layer mixes the images of a batch.

    The memory layout stays channels-first, because instance norm reads whole channels.
    """

    def __init__(self, image_shape: tuple[int, int, int], *, width: int) -> None:
        super().__init__()
        self._depth, channels = Depth.of(image_shape), image_shape[0]
        widths = [width * 2**level for level in range(self._depth.trunk + 1)]
        # Biases before an instance norm have no effect, so there are none.
        down: list[nn.Module] = [nn.Conv2d(2 * channels, width, 7, padding=3, bias=False), *_normal(width)]
        for before, after in pairwise(widths):
            down += [nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False), *_normal(after)]
        middle = [Residual(widths[-1]) for _ in range(6)]
        up = [layer for before, after in pairwise(widths[::-1]) for layer in _up(before, after)]
        self.body = nn.Sequential(*down, *middle, *up)
        self.paint = nn.Conv2d(width + channels, channels, 3, padding=1, bias=False)

    def forward(self, images: Images, condition: Float[Tensor, "c y x"]) -> Images:
        height, width = images.shape[2:]
        right, below = (padded(side, self._depth) - side for side in (width, height))
        seen = nn.functional.pad(2 * images - 1, (0, right, 0, below), mode="replicate")
        drawn = condition.expand(len(images), *condition.shape)
        body = self.body(torch.cat((drawn, seen), 1))
        painted: Tensor = self.paint(torch.cat((body, seen), 1)).tanh()
        return (painted[:, :, :height, :width] + 1) / 2


def rebuilt_trunk(image_shape: tuple[int, int, int], *, width: int, state: dict[str, Tensor]) -> Trunk:
    """A trunk with these weights, built without initialising other weights first."""
    with torch.device("meta"):
        trunk = Trunk(image_shape, width=width)
    trunk.load_state_dict(state, assign=True)
    return trunk.requires_grad_(requires_grad=False)


class Discriminator(nn.Module):
    """Gives one logit per label and one for the class `fake`."""

    def __init__(self, image_shape: tuple[int, int, int], *, classes: int, width: int) -> None:
        super().__init__()
        downsamplings = Depth.of(image_shape).judge
        widths = [image_shape[0], *(width * 2**level for level in range(downsamplings))]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [spectral_norm(nn.Conv2d(before, after, 4, stride=2, padding=1)), nn.LeakyReLU(0.01)]
        last = (image_shape[1] >> downsamplings, image_shape[2] >> downsamplings)
        self.main = nn.Sequential(*layers, nn.Conv2d(widths[-1], classes + 1, last, bias=False), nn.Flatten())

    def forward(self, images: Images) -> Float[Tensor, "n k1"]:
        out: Tensor = self.main(images.contiguous(memory_format=torch.channels_last))
        return out


def lsgan(logits: Float[Tensor, "n k1"], labels: Float[Tensor, "n k"], *, fake: bool) -> Float[Tensor, ""]:
    """Least-squares loss: the squared error to [labels, 1 if fake else 0]."""
    return nn.functional.mse_loss(logits, nn.functional.pad(labels, (0, 1), value=float(fake)))


def hash_loss(codes: Float[Tensor, "n b"], wanted: Float[Tensor, " b"]) -> Float[Tensor, ""]:
    """0 if all codes equal the wanted code, 2 if all are its opposite."""
    return 1 - (codes * wanted).mean()


def flat_then_linear(epoch: int, epochs: int) -> float:
    """Factor on the learning rate: 1 in the first half, then linear decay that would reach 0 after one more epoch."""
    flat = (epochs + 1) // 2
    return 1 - max(0, epoch + 1 - flat) / (epochs - flat + 1)
