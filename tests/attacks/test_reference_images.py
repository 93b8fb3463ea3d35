"""Which public images stand for a target."""

from __future__ import annotations

import pytest
import torch

from attacks.helpers.reference_images import references
from bench.api.errors import UserError
from bench.api.types import Target

ROWS = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0]], dtype=torch.bool)


@pytest.mark.parametrize(
    ("labels", "chosen"),
    [
        ([0], [0]),  # exactly the label
        ([1], [1]),  # all contain more: the fewest others, the first of equals
        ([0, 1], [1]),  # exactly the set
        ([0, 2], [2]),  # the set among others
    ],
)
def test_references_are_the_public_images_nearest_to_the_target(labels, chosen):
    vector = torch.zeros(4, dtype=torch.bool).index_fill(0, torch.tensor(labels), True)
    assert references(ROWS, Target(vector, "t")).tolist() == chosen


def test_a_set_that_no_public_image_shows_is_made_up_of_one_for_each_label():
    target = Target(torch.tensor([True, False, True, False]), "a+c")
    assert references(ROWS[[0, 1, 3]], target).tolist() == [0, 2]
    with pytest.raises(UserError, match=r"\ba\+c\b"):
        references(ROWS[:2], target)
