"""The artifacts of the stages `load` and `split`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.artifacts.artifact import Artifact, Output

if TYPE_CHECKING:
    from jaxtyping import Bool, Int64, UInt8
    from torch import Tensor


class DecodedData(Artifact):
    """All images of a data set, decoded and memory-mapped, with multi-hot labels."""

    @property
    def images(self) -> UInt8[Tensor, "n c h w"]:
        return self.tensors["images"]

    @property
    def labels(self) -> Bool[Tensor, "n k"]:
        return self.tensors["labels"]

    @property
    def origin(self) -> UInt8[Tensor, " n"]:
        """The number of the published part of the data set that each image comes from."""
        return self.tensors["origin"]

    @property
    def names(self) -> list[str]:
        """The file names of the images; [] if they are not files of their own."""
        packed = self.tensors.get("names")
        found: list[str] = [] if packed is None else json.loads(bytes(packed.numpy()))
        return found

    @property
    def classes(self) -> list[str]:
        """Names of the labels."""
        return list(self.meta["classes"])

    @property
    def protocol(self) -> str:
        return str(self.meta["protocol"])

    @property
    def cutoff(self) -> int | None:
        """The number of ranks that retrieval metrics count; None: all."""
        cutoff: int | None = self.meta["cutoff"]
        return cutoff

    @staticmethod
    def output(
        images: UInt8[Tensor, "n c h w"],
        labels: Bool[Tensor, "n k"],
        origin: UInt8[Tensor, " n"],
        *,
        classes: list[str],
        protocol: str,
        cutoff: int | None,
        names: Sequence[str] = (),
    ) -> Output:
        tensors = {"images": images.contiguous(), "labels": labels, "origin": origin}
        if names:
            tensors["names"] = origin.new_tensor(list(json.dumps(list(names)).encode()))
        return Output(tensors, {"classes": classes, "protocol": protocol, "cutoff": cutoff})


class SplitData(Artifact):
    """The positions of each split's images in the decoded data. These positions are the ids of images."""

    def positions(self, part: str) -> Int64[Tensor, " n"]:
        """The positions of one split. part: one of bench.api.types.SPLITS."""
        return self.tensors[part]

    @property
    def protocol(self) -> Mapping[str, Any]:
        """name, version, cutoff, sizes and digests of the splits."""
        protocol: Mapping[str, Any] = self.meta["protocol"]
        return protocol

    @property
    def cutoff(self) -> int | None:
        """The number of ranks that retrieval metrics count; None: all."""
        cutoff: int | None = self.protocol["cutoff"]
        return cutoff

    @staticmethod
    def output(positions: Mapping[str, Tensor], protocol: Mapping[str, Any]) -> Output:
        return Output(dict(positions), {"protocol": protocol})
