"""Fine-tuning of the deep part: the images of an epoch, and a loss that is not finite."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import binom

from attacks.helpers.head_tuning import divided, draw_epoch, learning, tune
from bench.api.errors import DivergedError
from bench.api.random import Rng
from tests.attacks.conftest import small


def test_each_image_is_drawn_once_an_epoch_and_poisoned_at_the_given_chance():
    n, epochs, rng = 200, 50, Rng("draw")
    hits = np.zeros(n)
    for _ in range(epochs):
        batches = list(draw_epoch(n, 64, 0.1, rng))
        assert len(batches) == 4
        rows = torch.cat([rows for rows, _ in batches])
        assert torch.equal((rows % n).sort().values, torch.arange(n))
        for batch, count in batches:
            assert 50 <= len(batch) <= 64
            assert (batch[:count] >= n).all()
            assert (batch[count:] < n).all()
        hits[(rows[rows >= n] - n).numpy()] += 1
    low, high = binom.ppf([1e-4, 1 - 1e-4], n * epochs, 0.1)
    assert low <= hits.sum() <= high
    assert (hits > 0).all()  # other images in other epochs; P(never) = .9 ** 50
    assert hits.max() < 25


def test_a_loss_that_is_not_finite_is_a_failed_run():
    model = small("convnet", width=4)
    with divided(model, 4):
        optimizer = torch.optim.SGD(learning(model), lr=0.1)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
        epoch = draw_epoch(2, 2, 0.5, Rng("x"))
        with pytest.raises(DivergedError, match="rate"):
            tune(model, torch.full((4, 16, 1, 1), torch.nan), [epoch], lambda out, *_: out.sum(), optimizer, schedule)
