"""The corners of label-consistent poisons against the authors' code.

Repository MadryLab/label-consistent-backdoor-code, commit b18d8ab: poison_attack.py (trigger "all-corners" in
poison_from_indices), for the full and for reduced amplitudes. It cuts pixels off to 8 bits, we round them. The
adversarial steps have another loss, as the card says.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from attacks.label_consistent import LabelConsistent
from bench.api.random import Rng
from bench.api.types import to_unit
from tests.attacks.conftest import victim
from tests.fidelity.inputs import numbers, smooth


@pytest.mark.parametrize(("amplitude", "name"), [(1.0, "full"), (0.25, "reduced_0.25"), (0.125, "reduced_0.125")])
def test_the_trigger(amplitude, name):
    attack, view = LabelConsistent(amplitude=amplitude), victim(8, (3, 32, 32))
    images = to_unit(torch.from_numpy(smooth(3, 32, 32, seed=940)[None]))
    ours = 255 * attack.apply_trigger(images, view.target, attack.make_trigger(view, Rng("prepare")))[0].numpy()
    np.testing.assert_array_equal(np.floor(ours + 1e-3), numbers("label_consistent")[name])
