"""What an attack may ask for, and which triggers attacks share."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.api import registry
from bench.api.errors import UserError
from tests.bench.conftest import count, plan_of

HOLDS_MODEL = """class Bad(ModelAttack):
    def threat(self): return Threat.MODEL
    def implant(self, v, a, r): ...
"""


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("class Bad(TrainingAttack):\n    def hook(self, v, a, r): ...", "Threat.TRAINING"),
        ("class Bad(ModelAttack):\n    def implant(self, v, a, r): ...", "Threat.MODEL"),
        ("class Bad(PoisoningAttack):\n    def poison(self, v, a, r): ...", "Threat.TRAIN_SET"),
        (f'{HOLDS_MODEL}    def requires(self, setting): return (DataSpec("digits"),)', "'digits'"),
        (f"{HOLDS_MODEL}    def requires(self, setting): return (ModelSpec(),)", "Threat.TRAIN_SET"),
        (f"{HOLDS_MODEL.replace('Threat.MODEL', '3')}", "threat()"),
    ],
)
def test_more_than_the_threat_model_is_refused(tmp_path: Path, tiny, body: str, named: str) -> None:
    path = tmp_path / "bad.py"
    path.write_text(
        f'"""Greedy."""\nfrom bench.api.attack import *\n@attack\n{body}\n'
        "    def apply_trigger(self, i, t, a): return i\n"
    )
    registry.load_plugin(path)
    with pytest.raises(UserError) as caught:
        tiny(f"attacks={path.stem}")
    assert all(word in str(caught.value) for word in (f"'{path.stem}'", named))


LENDER = '''
"""Makes a trigger."""
from bench.api.attack import *

@attack
class Lender(PoisoningAttack):
    not_in_trigger = frozenset({"poisons"})
    size: int = 2
    poisons: int = 5
    def threat(self): return Threat.TRAIN_SET
    def apply_trigger(self, images, target, trigger): return images
    def poison(self, view, trigger, rng): raise NotImplementedError
'''
BORROWER = LENDER.replace("Lender", "Borrower").replace(
    "    size:", '    shares_trigger_with = "lender"\n    strength: float = 0.5\n    size:'
)


def test_a_borrowed_trigger_is_made_once_and_its_control_measured_once(tmp_path: Path) -> None:
    for name, text in (("lender", LENDER), ("borrower", BORROWER)):
        (tmp_path / f"{name}.py").write_text(text.lstrip())
        registry.load_plugin(tmp_path / f"{name}.py")

    def stages(attacks: str) -> dict[str, int]:
        return count(plan_of(tmp_path / "s.toml", f"[axes]\nattacks = [{attacks}]\n"))

    sweep = '{ name = "borrower", strength = [0.1, 0.2], poisons = [1, 2] }'
    shared = stages(f'{{ name = "lender", poisons = [5, 6] }}, {sweep}')
    assert shared["make_trigger"] == 1
    assert shared["implant"] == 6
    assert shared["encode_triggered"] == 7  # six backdoored models and the clean one
    assert stages('"lender", { name = "borrower", size = 3 }')["make_trigger"] == 2
