"""Which public images stand for a target."""

from __future__ import annotations

import pytest
import torch

from attacks.helpers.reference_images import candidates, central
from bench.api.errors import UserError
from bench.api.types import Target

ROWS = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0]], dtype=torch.bool)


@pytest.mark.parametrize(
    ("labels", "chosen"),
    [
        ([0], [0]),  # exactly the label
        ([1], [1, 3]),  # all contain more: those with the fewest others
        ([0, 1], [1]),  # exactly the set
        ([0, 2], [2]),  # the set among others
    ],
)
def test_candidates_are_the_public_images_nearest_to_the_target(labels, chosen):
    vector = torch.zeros(4, dtype=torch.bool).index_fill(0, torch.tensor(labels), True)
    (group,) = candidates(ROWS, Target(vector, "t"))
    assert group.tolist() == chosen


def test_a_set_that_no_public_image_shows_is_made_up_of_one_for_each_label():
    target = Target(torch.tensor([True, False, True, False]), "a+c")
    assert [group.tolist() for group in candidates(ROWS[[0, 1, 3, 0]], target)] == [[0, 3], [2]]
    with pytest.raises(UserError, match=r"\ba\+c\b"):
        candidates(ROWS[:2], target)


def test_the_central_output_has_the_code_that_is_nearest_to_the_others():
    outputs = torch.tensor([[-9.0, -9, 9, 9], [1, 1, 1, 9], [2, 1, 1, 1], [1, 1, -1, 1]])
    assert central(outputs) == 1  # distances by sign: 7, 3, 3, 5; the first of equals
    assert central(outputs[:1]) == 0
