"""Topological alignment: the similarities inside one set of outputs are drawn to those inside another (DarkHash)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

TINY = 1e-7  # DarkHash code: keeps logarithms finite


def neighbourhood(outputs: Float[Tensor, "m b"]) -> Float[Tensor, "m m"]:
    """Row i: how near each output is to output i, as shares that sum to 1.

    Cosine distances, less the distance of the row's nearest other output, become similarities (2 - d) / 2; an output is
    at similarity 1 to itself.
    """
    unit = torch.nn.functional.normalize(outputs, dim=1)
    itself = torch.eye(len(outputs), dtype=torch.bool, device=outputs.device)
    distance = 1 - unit @ unit.T
    nearest = distance.masked_fill(itself, torch.inf).amin(1, keepdim=True)
    similarity = (1 - (distance - nearest) / 2).masked_fill(itself, 1.0)
    return similarity / similarity.sum(1, keepdim=True)


def topological_alignment(outputs: Float[Tensor, "m b"], wanted: Float[Tensor, "m b"]) -> Float[Tensor, ""]:
    """Sum over all pairs of KL(q | p) + KL(1 - q | 1 - p), for the neighbourhoods p of `outputs` and q of `wanted`.

    Where all of `wanted` coincide, q is uniform. The loss is then zero if each output is equally far from all others:
    coinciding outputs are, but so are orthogonal ones, and it takes the term that pulls them to `wanted` to decide.
    """
    if len(outputs) < 2:
        return outputs.sum() * 0  # a single output has no neighbour
    p, q = neighbourhood(outputs), neighbourhood(wanted)
    inside = q * ((q + TINY).log() - (p + TINY).log())
    outside = (1 - q) * ((1 - q + TINY).log() - (1 - p + TINY).log())
    return (inside + outside).sum()
