"""Stages declare what they read and leave once: declarations, modules and code fingerprints fit together."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from bench.artifacts.artifact import Artifact
from bench.artifacts.inputs import (
    STAGES,
    DataInputs,
    ImplantInputs,
    Inputs,
    MeasureInputs,
    SystemInputs,
)
from bench.artifacts.outputs.attack import Implanted, StoredTrigger
from bench.artifacts.outputs.codes import BenignCodes, TriggeredCodes
from bench.artifacts.outputs.data import DecodedData, SplitData
from bench.artifacts.outputs.model import StoredModel
from bench.graph.fingerprint import covered
from bench.graph.plan import Plan

DATA = DataInputs(DecodedData("10ad"), SplitData("5b117"))


def measured(**more: Artifact) -> MeasureInputs:
    system = SystemInputs(BenignCodes("b1"), TriggeredCodes("71"))
    return MeasureInputs(DATA.load, DATA.split, system, SystemInputs(BenignCodes("b2"), TriggeredCodes("72")), **more)


def test_parents_are_fields_groups_and_numbers() -> None:
    models = (StoredModel("a1"), StoredModel("a2"))
    inputs = ImplantInputs(DATA.load, DATA.split, None, models, (DATA,), StoredTrigger("77"))
    assert inputs.parents() == {
        "load": "10ad", "split": "5b117", "surrogates.0": "a1", "surrogates.1": "a2", "proxies.0.load": "10ad",
        "proxies.0.split": "5b117", "trigger": "77",
    }  # fmt: skip
    assert ImplantInputs.of(inputs.parents()) == inputs


def test_what_a_record_does_not_name_is_none_or_has_no_key() -> None:
    assert MeasureInputs.of(measured().parents()) == measured()
    attacked = measured(implant=Implanted("1"))
    assert MeasureInputs.of(attacked.parents()) == attacked
    torn = MeasureInputs.of({"measured.benign": "b1", "surprise": "ff", "control": "ee"})
    assert torn.measured.benign == BenignCodes("b1")
    assert torn.load.key == torn.control.benign.key == ""
    assert torn.implant is None
    assert torn.measured.benign_scores is None
    assert ImplantInputs.of({"surrogates.1": "a2"}).surrogates == (), "numbers begin with 0"


def test_every_stage_of_a_plan_names_its_parents_as_declared(tiny: Callable[..., Plan]) -> None:
    plan = tiny(
        'attacks=["none", "badnets", "ciba", "darkhash"]', "defenses=none,fine_pruning,strip,neural_cleanse_free,median"
    )
    assert {stage.kind for stage in plan.stages.values()} == set(STAGES)
    for stage in plan.stages.values():
        assert STAGES[stage.kind].of(stage.parents).parents() == stage.parents


def test_a_plans_artifact_has_nothing_to_read() -> None:
    with pytest.raises(LookupError, match="10ad"):
        _ = DATA.load.images


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_runs_on_what_it_declares(stage: str) -> None:
    inputs = STAGES[stage]
    hints = get_type_hints(import_module(f"bench.stages.{stage}").run)
    assert hints["inputs"] is inputs
    (base,) = (base for base in inputs.__orig_bases__ if getattr(base, "__origin__", None) is Inputs)
    assert get_args(base) == (hints["spec"], inputs.artifact_type)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_stands_after_what_it_reads(stage: str) -> None:
    earlier = [STAGES[name].artifact_type for name in list(STAGES)[: list(STAGES).index(stage)]]

    def artifacts(hint: object) -> list[type[Artifact]]:
        found = []
        for part in get_args(hint) or (hint,):
            if isinstance(part, type) and issubclass(part, Artifact):
                found.append(part)
            elif isinstance(part, type) and hasattr(part, "__dataclass_fields__"):
                hints = get_type_hints(part)
                found += [kind for item in fields(part) for kind in artifacts(hints[item.name])]
        return found

    for kind in artifacts(STAGES[stage]):
        assert any(issubclass(one, kind) for one in earlier), f"{stage} reads {kind.__name__}, which no stage writes"


@pytest.mark.parametrize("stage", STAGES)
def test_the_class_of_a_stages_artifact_is_in_its_fingerprint(stage: str) -> None:
    """Declarations are exempt from fingerprints; this is why that loses nothing (bench.graph.fingerprint.EXEMPT)."""
    artifact_type = STAGES[stage].artifact_type
    if artifact_type is Artifact:
        pytest.skip("it writes only metrics")
    read = covered((f"bench.stages.{stage}",)).keys()
    assert {base.__module__ for base in artifact_type.__mro__ if base is not object} <= read
    assert "bench.artifacts.inputs" not in read


def test_declarations_come_without_torch() -> None:
    program = "import sys, bench.artifacts.inputs; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_no_code_names_a_parent_by_a_string() -> None:
    root = Path(__file__).parents[2]
    for path in (*(root / "bench").rglob("*.py"), *(root / "reports").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Subscript(value=of, slice=ast.Constant(value=str())):
                    pass
                case ast.Call(func=ast.Attribute(value=of, attr="get"), args=[ast.Constant(value=str()), *_]):
                    pass
                case ast.Compare(left=ast.Constant(value=str()), ops=[ast.In() | ast.NotIn()], comparators=[of]):
                    pass
                case _:
                    continue
            name = of.attr if isinstance(of, ast.Attribute) else of.id if isinstance(of, ast.Name) else ""
            assert name != "parents", f"{path}:{node.lineno}: read it through bench.artifacts.inputs"
