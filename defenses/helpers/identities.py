"""Features as the sum of an identity, which is that of the class, and a variation: their covariances, by EM (SCAn)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

STEPS, CHANGE = 100, 1e-5  # backdoor-toolbox (cleansers_tool_box/scan.py)


def covariances(
    clean: Float64[Tensor, "m d"], labels: Bool[Tensor, "m k"]
) -> tuple[Float64[Tensor, "d d"], Float64[Tensor, "d d"]]:
    """Covariance of identities and covariance of variations, by EM."""
    _, identity, counts = torch.unique(labels, dim=0, return_inverse=True, return_counts=True)
    if (counts > 1).any():
        clean = clean[counts[identity] > 1]
        _, identity, counts = torch.unique(identity[counts[identity] > 1], return_inverse=True, return_counts=True)
    else:  # nothing varies within an identity: all images have the same one
        identity, counts = torch.zeros_like(identity), torch.tensor([len(clean)], device=clean.device)
    centred = clean - clean.mean(0)
    sums = torch.zeros(len(counts), clean.shape[1], dtype=clean.dtype, device=clean.device)
    sums.index_add_(0, identity, centred)
    means = sums / counts[:, None]
    between, within = covariance(means[identity]), covariance(centred - means[identity])
    sizes = counts.tolist()
    for _ in range(STEPS):
        precision = torch.linalg.pinv(within, hermitian=True)
        expected = {n: expectation(n, between, within, precision) for n in set(sizes)}
        means = torch.stack([expected[n] @ total for total, n in zip(sums, sizes, strict=True)])
        last = between, within
        between, within = covariance(means[identity]), covariance(centred - means[identity])
        if float((between - last[0]).norm() + (within - last[1]).norm()) <= CHANGE:
            break
    return between, within


def covariance(rows: Float64[Tensor, "n d"]) -> Float64[Tensor, "d d"]:
    return torch.cov(rows.T).reshape(rows.shape[1], rows.shape[1])


def expectation(
    n: int, between: Float64[Tensor, "d d"], within: Float64[Tensor, "d d"], precision: Float64[Tensor, "d d"]
) -> Float64[Tensor, "d d"]:
    """The matrix that makes of the sum of n rows of a class its expected identity. precision: the inverse of within."""
    matrix: Tensor = within @ torch.linalg.pinv(n * between + within, hermitian=True) @ between @ precision
    return matrix


def distances(
    rows: Float64[Tensor, "n d"], centre: Float64[Tensor, " d"], precision: Float64[Tensor, "d d"]
) -> Float64[Tensor, " n"]:
    """Squared Mahalanobis distances."""
    return ((rows - centre) @ precision * (rows - centre)).sum(1)
