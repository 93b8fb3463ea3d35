"""Topological alignment (DarkHash): a loss that makes the similarities within one set of outputs equal to another's."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

TINY = 1e-7  # DarkHash code: keeps logarithms finite


def neighbourhood(outputs: Float[Tensor, "m b"]) -> Float[Tensor, "m m"]:
    """Row i: the similarities of all outputs to output i, as shares that sum to 1.

    d is the cosine distance minus the distance of the nearest other output. The similarity is (2 - d) / 2, and 1
    between an output and itself.
    """
    unit = torch.nn.functional.normalize(outputs, dim=1)
    itself = torch.eye(len(outputs), dtype=torch.bool, device=outputs.device)
    distance = 1 - unit @ unit.T
    nearest = distance.masked_fill(itself, torch.inf).amin(1, keepdim=True)
    similarity = (1 - (distance - nearest) / 2).masked_fill(itself, 1.0)
    return similarity / similarity.sum(1, keepdim=True)


def topological_alignment(outputs: Float[Tensor, "m b"], wanted: Float[Tensor, "m b"]) -> Float[Tensor, ""]:
    """Sum over all pairs of KL(q | p) + KL(1 - q | 1 - p), for the neighbourhoods p of `outputs` and q of `wanted`.

    Where all rows of `wanted` are equal, q is uniform. The loss is then zero if each output is equally far from all
    others. That holds for equal outputs, but also for orthogonal ones, so another term must pull outputs to `wanted`.
    """
    if len(outputs) < 2:
        return outputs.sum() * 0  # a single output has no neighbour
    p, q = neighbourhood(outputs), neighbourhood(wanted)
    inside = q * ((q + TINY).log() - (p + TINY).log())
    outside = (1 - q) * ((1 - q + TINY).log() - (1 - p + TINY).log())
    return (inside + outside).sum()
