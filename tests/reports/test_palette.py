"""Colours of charts: one per thing, and different for people with each kind of colour blindness."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from reports import palette
from reports.frame import read
from reports.palette import COLOURS, GREY, INK, METRICS, OWN, TARGET, Palette
from tests.reports.board_data import trial

# Machado, Oliveira and Fernandes 2009, table of severity 1.0; for linear sRGB
BLINDNESS = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    "none": np.eye(3).tolist(),
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def linear(colour: str) -> np.ndarray:
    given = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(given <= 0.04045, given / 12.92, ((given + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    x, y, z = np.cbrt(XYZ @ rgb.clip(0.001, 1) / XYZ.sum(1))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("kind", BLINDNESS)
def test_no_two_colours_look_alike(kind: str) -> None:
    """A CIE76 difference of 2.3 is just noticeable."""
    seen = {one: lab(np.array(BLINDNESS[kind]) @ linear(one)) for one in (*COLOURS, TARGET, OWN, INK)}
    nearest = min(np.linalg.norm(seen[a] - seen[b]) for a, b in itertools.combinations(seen, 2))
    assert nearest > 12


@pytest.mark.parametrize("colour", [*COLOURS, TARGET, OWN, GREY])
def test_a_colour_shows_on_white_and_on_a_dark_page(colour: str) -> None:
    light = float(XYZ[1] @ linear(colour))
    assert 1.05 / (light + 0.05) > 2.5
    assert (light + 0.05) / 0.0556 > 2.5  # on #111111


def test_attacks_of_a_run_have_styles_of_their_own_whatever_the_order(stock) -> None:
    given = [trial(f"loud(poisons={n})", defense) for n in range(20) for defense in ("none", "repair")]
    trials = read(stock([trial(), *given])).trials
    made = Palette.of(trials)
    assert Palette.of(trials[::-1]) == made
    assert len(set(made.attacks.values())) == 21
    assert made.attacks["none"].colour == INK
    used = {style.colour for style in made.attacks.values()}
    assert not used & {TARGET, OWN, *(style.colour for style in METRICS.values())} - {INK}
    assert made.defenses["repair"].hollow
    assert made.defenses["repair"].mark not in palette.MARKS
