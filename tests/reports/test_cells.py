"""Numbers and texts as a reader sees them."""

from __future__ import annotations

import pytest

from reports import cells


@pytest.mark.parametrize(
    ("value", "metric", "text"),
    [
        (0.8734, "t_map", "0.873"), (0.8734, "gain", "+0.873"), (-0.00001, "gain", "+0.000"),
        (-0.1, "map_change", "-0.100"), (20.0, "poisons", "20"), (20.5, "poisons", "20.5"),
        (1234.0, "queries", "1,234"), (31.27, "psnr", "31.3"), (-0.2, "ssim", "-0.200"), (None, "t_map", "-"),
        (float("nan"), None, "-"), (3, None, "3"), ("a\x1bb", None, "a b"),
    ],
)  # fmt: skip
def test_numbers(value, metric, text):
    assert cells.number(value, metric) == text
