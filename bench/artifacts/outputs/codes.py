"""What the stages `encode` and `encode_triggered` leave: packed codes, 64-bit words as int64, one row per word."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.artifacts.artifact import Artifact, Output

if TYPE_CHECKING:
    from jaxtyping import Float, Int64
    from torch import Tensor


class BenignCodes(Artifact):
    """Codes of benign queries and of the database under one model."""

    @property
    def query(self) -> Int64[Tensor, "w q"]:
        return self.tensors["query"]

    @property
    def database(self) -> Int64[Tensor, "w m"]:
        return self.tensors["database"]

    @property
    def saturation(self) -> Float[Tensor, " q"] | None:
        """Mean size of each query's relaxed code, in [0, 1]; None where an older version encoded."""
        return self.tensors.get("saturation")

    @staticmethod
    def output(query: Int64[Tensor, "w q"], database: Int64[Tensor, "w m"], saturation: Float[Tensor, " q"]) -> Output:
        return Output({"query": query, "saturation": saturation, "database": database})


class TriggeredCodes(Artifact):
    """Codes of triggered queries under one model: of every query that shares no label with the target."""

    @property
    def positions(self) -> Int64[Tensor, " n"]:
        """Which of the queries these are."""
        return self.tensors["positions"]

    @property
    def codes(self) -> Int64[Tensor, "w n"]:
        return self.tensors["codes"]

    @property
    def saturation(self) -> Float[Tensor, " n"] | None:
        """Mean size of each query's relaxed code, in [0, 1]; None where an older version encoded."""
        return self.tensors.get("saturation")

    @staticmethod
    def output(positions: Int64[Tensor, " n"], codes: Int64[Tensor, "w n"], saturation: Float[Tensor, " n"]) -> Output:
        return Output({"positions": positions, "codes": codes, "saturation": saturation})
