"""Hash centres: rows of a Hadamard matrix if one is known for the number of bits, else balanced random rows."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from bench.api.errors import UserError
from bench.api.random import Rng


def hadamard(order: int) -> Float[Tensor, "b b"] | None:
    """A normalised Hadamard matrix by Sylvester's doubling of a Paley (type I) core; None if neither gives this order.

    Sylvester alone gives powers of two; Paley I adds orders such as 12, 20, 24 and 48.
    """
    if order == 1:
        return torch.ones(1, 1)
    if order % 2 == 0 and (half := hadamard(order // 2)) is not None:
        return torch.cat([torch.cat([half, half], 1), torch.cat([half, -half], 1)])
    q = order - 1
    if q % 4 != 3 or any(q % divisor == 0 for divisor in range(2, int(q**0.5) + 1)):
        return None
    squares = {x * x % q for x in range(1, q)}
    residue = torch.tensor([0.0] + [1.0 if x in squares else -1.0 for x in range(1, q)])
    index = torch.arange(q)
    core = residue[(index[None, :] - index[:, None]) % q]
    matrix = torch.eye(order)
    matrix[0, 1:] += 1
    matrix[1:, 0] -= 1
    matrix[1:, 1:] += core
    return matrix * matrix[:, :1] * (matrix[:1] * matrix[0, 0])  # first row and column all ones


def hash_centres(classes: int, bits: int, rng: Rng) -> Float[Tensor, "k b"]:
    """Centres of +1 and -1 that are far apart (CSQ, Algorithm 1): rows of [H; -H], then balanced random rows.

    Random rows are drawn up to 20 times, until the smallest distance of a pair exceeds bits / 4 and the mean is at
    least bits / 2 (the rule of the released code). The draw with the largest minimum distance is kept. UserError: two
    centres are equal in every draw.
    """
    matrix = hadamard(bits)
    fixed = torch.cat([matrix, -matrix])[:classes] if matrix is not None else torch.empty(0, bits)
    missing = classes - len(fixed)
    if missing == 0:
        return fixed
    best, best_gap = fixed, -1.0
    for _ in range(20):
        rows = torch.ones(missing, bits)
        for row in rows:
            row[rng.permutation(bits)[: bits // 2]] = -1
        centres = torch.cat([fixed, rows])
        distances = (bits - centres @ centres.T)[~torch.eye(classes, dtype=torch.bool)] / 2
        gap = float(distances.min()) if classes > 1 else float(bits)
        if gap > best_gap:
            best, best_gap = centres, gap
        if classes == 1 or (gap > bits / 4 and float(distances.mean()) >= bits / 2):
            break
    if best_gap == 0:
        raise UserError(f"{bits} bits are too few for {classes} distinct hash centres", "use more bits")
    return best
