"""The network EfficientNet-Lite0, with the tensor names of the package efficientnet-lite-pytorch."""

from __future__ import annotations

from collections import OrderedDict

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

STEM, FEATURES, CLASSES = 32, 1280, 1000
STAGES = (  # repeats, side of the kernel, stride of the first, factor of the expansion, channels
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)  # fmt: skip
EPS = 1e-3  # of batch norm, as in TensorFlow


def lite0(channels: int) -> nn.Sequential:
    """The network with its classifier: [n c h w] -> [n d s t] up to `_fc`, which follows a pooling."""
    blocks: list[nn.Module] = []
    width = STEM
    for repeats, side, stride, factor, out in STAGES:
        for repeat in range(repeats):
            blocks.append(_InvertedResidual(width, out, side, 1 if repeat else stride, factor))
            width = out
    parts = _rectified("_conv_stem", "_bn0", channels, STEM, 3, 2) | {"_blocks": nn.Sequential(*blocks)}
    parts |= _rectified("_conv_head", "_bn1", width, FEATURES, 1) | {"_fc": nn.Linear(FEATURES, CLASSES)}
    return nn.Sequential(OrderedDict(parts))


class _InvertedResidual(nn.Sequential):
    """Expansion, one filter per channel, projection; the input is added if it has the shape of the output."""

    def __init__(self, channels: int, out: int, side: int, stride: int, factor: int) -> None:
        width = channels * factor
        parts = _rectified("_expand_conv", "_bn0", channels, width, 1) if factor > 1 else {}
        parts |= _rectified("_depthwise_conv", "_bn1", width, width, side, stride, groups=width)
        parts |= {"_project_conv": nn.Conv2d(width, out, 1, bias=False), "_bn2": nn.BatchNorm2d(out, eps=EPS)}
        super().__init__(OrderedDict(parts))
        self._adds = stride == 1 and channels == out

    def forward(self, hidden: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d s t"]:
        out = hidden
        for layer in self:
            out = layer(out)
        return hidden + out if self._adds else out


def _rectified(
    convolution: str, norm: str, channels: int, out: int, side: int, stride: int = 1, groups: int = 1
) -> dict[str, nn.Module]:
    """Padding, convolution, batch norm and ReLU6, by name."""
    edge = side // 2
    padded: dict[str, nn.Module] = {f"{convolution}_padding": _Padding(edge)} if stride > 1 else {}
    return padded | {
        convolution: nn.Conv2d(channels, out, side, stride, padding=0 if padded else edge, groups=groups, bias=False),
        norm: nn.BatchNorm2d(out, eps=EPS),
        f"{norm}_relu": nn.ReLU6(),
    }


class _Padding(nn.Module):
    """TensorFlow's zeros for a stride of 2: `edge` on each side, one less above and on the left of even sizes."""

    def __init__(self, edge: int) -> None:
        super().__init__()
        self.edge = edge

    def forward(self, hidden: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c s t"]:
        above, left = (self.edge - (size + 1) % 2 for size in hidden.shape[-2:])
        return pad(hidden, (left, self.edge, above, self.edge))
