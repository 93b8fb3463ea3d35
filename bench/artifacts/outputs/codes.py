"""The artifacts of the stages that encode: packed codes as int64, one row for each 64 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.artifacts.artifact import Artifact, Output

if TYPE_CHECKING:
    from jaxtyping import Float, Int64
    from torch import Tensor

MILLISECONDS = "milliseconds"  # in the metrics of the stage, since artifacts are equal on all machines of one type


class BenignCodes(Artifact):
    """A model's codes of benign queries and of the database."""

    @property
    def query(self) -> Int64[Tensor, "w q"]:
        return self.tensors["query"]

    @property
    def database(self) -> Int64[Tensor, "w m"]:
        return self.tensors["database"]

    @property
    def saturation(self) -> Float[Tensor, " q"] | None:
        """Mean absolute value of each query's relaxed code, in [0, 1]; None in artifacts of older versions."""
        return self.tensors.get("saturation")

    @staticmethod
    def output(query: Int64[Tensor, "w q"], database: Int64[Tensor, "w m"], saturation: Float[Tensor, " q"]) -> Output:
        return Output({"query": query, "saturation": saturation, "database": database})


class PurifiedCodes(Artifact):
    """A model's codes of benign queries after a purification. The database has the codes of BenignCodes."""

    @property
    def query(self) -> Int64[Tensor, "w q"]:
        return self.tensors["query"]

    @property
    def saturation(self) -> Float[Tensor, " q"]:
        """Mean absolute value of the relaxed codes of each query's versions, in [0, 1]."""
        return self.tensors["saturation"]

    @staticmethod
    def output(query: Int64[Tensor, "w q"], saturation: Float[Tensor, " q"], *, milliseconds: float) -> Output:
        """milliseconds: of one query, purified and encoded. They depend on the machine."""
        return Output({"query": query, "saturation": saturation}, metrics={MILLISECONDS: milliseconds})


class TriggeredCodes(Artifact):
    """A model's codes of triggered queries. Only queries that share no label with the target get the trigger."""

    @property
    def positions(self) -> Int64[Tensor, " n"]:
        """The positions of these queries among all queries."""
        return self.tensors["positions"]

    @property
    def codes(self) -> Int64[Tensor, "w n"]:
        return self.tensors["codes"]

    @property
    def saturation(self) -> Float[Tensor, " n"] | None:
        """Mean absolute value of each query's relaxed code, in [0, 1]; None in artifacts of older versions."""
        return self.tensors.get("saturation")

    @staticmethod
    def output(positions: Int64[Tensor, " n"], codes: Int64[Tensor, "w n"], saturation: Float[Tensor, " n"]) -> Output:
        return Output({"positions": positions, "codes": codes, "saturation": saturation})
