"""Equal work is one stage; a change recomputes exactly what it affects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.api.errors import UserError
from bench.engine.scheduler import Frontier
from bench.engine.store import Store
from bench.graph import cache_key, fingerprint
from bench.graph import planner as planning
from bench.graph.planner import Plan
from tests.bench.conftest import finish, kinds

Tiny = Callable[..., Plan]


def count(plan: Plan) -> dict[str, int]:
    found: dict[str, int] = {}
    for stage in plan.stages.values():
        found[stage.kind] = found.get(stage.kind, 0) + 1
    return found


def test_trials_share_every_stage_they_can(tiny: Tiny) -> None:
    plan = tiny("targets=0,1", "defenses=none,fine_pruning,strip")
    assert len(plan.trials) == 12
    stages = count(plan)
    assert stages["load"] == stages["split"] == stages["train"] == 1
    assert stages["implant"] == stages["make_trigger"] == 2  # badnets at two targets; `none` adds no stage
    # the clean model's defenses serve both targets: 2 of the clean model, 2 of each backdoored one
    assert stages["defend"] == 6
    # an input detector changes no codes: clean, its repair, and two backdoored models with theirs
    assert stages["encode"] == 6


def test_several_suites_are_one_graph(tmp_path: Path) -> None:
    from bench.config import suite as suites

    for name, attacks in (("one", '"none", "badnets"'), ("two", '"badnets", "blend"')):
        (tmp_path / f"{name}.toml").write_text(f"[axes]\nattacks = [{attacks}]\n")
    loaded = [suites.load(str(tmp_path / f"{name}.toml")) for name in ("one", "two")]
    both = planning.plan(loaded, data=None, device="cpu")
    assert [trial.trial.attack.label for trial in both.trials] == ["none", "badnets", "blend"]
    assert count(both)["train"] == 1
    assert count(both)["implant"] == 2


LENDER = '''
"""Makes a trigger."""
from bench.api.attack import *

@attack
class Lender(PoisoningAttack):
    not_in_trigger = frozenset({"poisons"})
    size: int = 2
    poisons: int = 5
    def threat(self): return Threat.TRAIN_SET
    def requires(self, setting): return (ModelSpec(),)
    def apply_trigger(self, images, target, trigger): return images
    def poison(self, victim, trigger, rng): raise NotImplementedError
'''
BORROWER = LENDER.replace("Lender", "Borrower").replace(
    "    size:", '    shares_trigger_with = "lender"\n    strength: float = 0.5\n    size:'
)


@pytest.fixture
def trial_plan(tmp_path: Path) -> Callable[..., Plan]:
    """A plan of planted attacks on digits."""
    from bench.api import registry
    from bench.config import suite as suites

    for name, text in (("lender", LENDER), ("borrower", BORROWER)):
        (tmp_path / f"{name}.py").write_text(text.lstrip())
        registry.load_plugin(tmp_path / f"{name}.py")

    def make(attacks: str, surrogate: str = '"other_seed"') -> Plan:
        path = tmp_path / "s.toml"
        path.write_text(f"[axes]\nattacks = [{attacks}]\nsurrogate = [{surrogate}]\n")
        return planning.plan([suites.load(str(path))], data=None, device="cpu")

    return make


def test_a_borrowed_trigger_is_made_once_and_its_control_measured_once(trial_plan) -> None:
    sweep = '{ name = "borrower", strength = [0.1, 0.2], poisons = [1, 2] }'
    stages = count(trial_plan(f'{{ name = "lender", poisons = [5, 6] }}, {sweep}'))
    assert stages["make_trigger"] == 1
    assert stages["implant"] == 6
    assert stages["encode_triggered"] == 7  # six backdoored models and the clean one
    assert count(trial_plan('"lender", { name = "borrower", size = 3 }'))["make_trigger"] == 2


SECRETIVE = '''
"""Brightens images."""
import torch
from bench.api.attack import *
from bench.api.types import to_unit

@attack
class Secretive(PoisoningAttack):
    not_in_trigger = frozenset({"alpha"})
    alpha: float = 0.1
    size: int = 2

    def threat(self): return Threat.TRAIN_SET | Threat.LABELS
    def strength(self): return 0.5
    def apply_trigger(self, images, target, trigger): return (images + self.strength()).clamp(0, 1)
    def poison(self, view, trigger, rng):
        mask = torch.arange(len(view.train)) < 5
        images = self.apply_trigger(to_unit(view.train.images[mask]), view.target, trigger)
        return Poisoned(view.train.replace(torch.nonzero(mask).flatten(), images=images), mask)
'''


@pytest.fixture
def planned_secretive(tmp_path: Path) -> Callable[..., Plan]:
    """A plan of the attack above with alpha = 0.9, after some of its text is exchanged."""
    from bench.api import registry
    from bench.config import suite as suites
    from tests.bench.conftest import TINY

    def make(*exchanged: str) -> Plan:
        plugin, suite = tmp_path / "secretive.py", tmp_path / "secretive.toml"
        plugin.write_text(SECRETIVE.lstrip().replace(*exchanged))
        registry.load_plugin(plugin)
        suite.write_text(TINY.replace('"badnets"', '{ name = "secretive", alpha = [0.9, 0.8] }'))
        return planning.plan([suites.load(str(suite))], data=None, device="cpu")

    return make


@pytest.mark.parametrize(
    ("kind", "text", "broken"),
    [
        ("implant", "def strength(self): return 0.5", "def strength(self): return self.alpha"),
        ("implant", "(images + self.strength())", "(images + self.alpha)"),
        (
            "make_trigger",
            "def strength",
            "def make_trigger(self, view, rng): return {'a': torch.tensor(self.alpha)}\n    def strength",
        ),
    ],
)
def test_a_trigger_that_reads_what_it_says_it_does_not_is_a_failure(
    planned_secretive, tmp_path: Path, kind: str, text: str, broken: str
) -> None:
    """The report of issue 16: such a stage ran with the default 0.1 where the suite says 0.9."""
    made = planned_secretive(text, broken)
    failures = finish(made, Store(tmp_path / "store", create=True)).failures
    own = [record for record in failures if record.cause is None]
    assert {made.stages[record.key].kind for record in own} >= {kind}
    reason = "reads 'alpha' for its trigger, but lists it in not_in_trigger: remove 'alpha' from not_in_trigger"
    assert {record.reason for record in own} == {f"attack 'secretive' {reason}"}


def test_a_value_computed_from_such_a_parameter_is_refused(planned_secretive) -> None:
    kept = "def __post_init__(self): object.__setattr__(self, 'kept', 2 * self.alpha)"
    with pytest.raises(UserError, match=r"'secretive' computes 'kept' from a parameter .*remove .* \(alpha\)"):
        planned_secretive("def strength(self): return 0.5", f"{kept}\n    def strength(self): return self.kept")


def test_an_honest_sweep_shares_its_trigger(planned_secretive, tmp_path: Path) -> None:
    made = planned_secretive("strength(self): return 0.5", "strength(self): return self.size / 4")
    assert count(made)["make_trigger"] == 1
    assert count(made)["implant"] == 2
    assert not finish(made, Store(tmp_path / "store", create=True)).failures


@pytest.mark.parametrize(
    ("axis", "part", "value"), [("backbone=resnet18", "backbone", "resnet18"), ("method=dpsh", "method", "dpsh")]
)
def test_the_surrogate_axis_may_name_another_backbone_or_method(trial_plan, axis, part, value) -> None:
    plan = trial_plan('"lender"', f'"other_seed", "{axis}", "bits=16"')
    makers = [stage for stage in plan.stages.values() if stage.kind == "make_trigger"]
    surrogates = [plan.stages[stage.parents["surrogates.0"]].spec for stage in makers]
    assert len(surrogates) == 3
    assert [spec[part]["name"] == value for spec in surrogates] == [False, True, False]
    assert [spec["bits"] for spec in surrogates] == [32, 32, 16]
    assert [trial.trial.surrogate for trial in plan.trials] == ["other_seed", axis, "bits=16"]
    assert {spec["seed"] for spec in surrogates} == {1}


def test_a_surrogate_that_nobody_offers_is_refused(trial_plan) -> None:
    with pytest.raises(UserError, match="surrogate"):
        trial_plan('"lender"', '"someone"')
    with pytest.raises(UserError, match="resnet18"):
        trial_plan('"lender"', '"backbone=resnet8"')


def test_weights_are_known_by_their_content_and_cells_without_them_are_left_out(tmp_path: Path, monkeypatch) -> None:
    from bench.config import suite as suites
    from hashing.backbones.mobilenet_v2 import FILE

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("hashing.backbones.mobilenet_v2.PACKAGE", "no_such_package")
    suite = tmp_path / "s.toml"
    suite.write_text('[axes]\nbackbones = ["mobilenet_v2", { name = "mobilenet_v2", weights = "none" }]\n')

    def trials() -> list[str | None]:
        made = planning.plan([suites.load(str(suite))], data=None, device="cpu")
        assert all("pip install" in trial.skipped for trial in made.trials if trial.key is None)
        return [trial.key for trial in made.trials]

    without = trials()
    assert without[0] is None
    assert without[1] is not None
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    keys = []
    for content in (b"one", b"other"):
        (folder / FILE).write_bytes(content)
        keys.append(trials())
    assert keys[0][0] is not None
    assert keys[0][0] != keys[1][0]
    assert keys[0][1] == keys[1][1] == without[1]


def test_files_that_an_attack_reads_are_part_of_its_triggers_key(trial_plan, tmp_path: Path, monkeypatch) -> None:
    def prepared() -> set[str]:
        plan = trial_plan('"badhash", "badnets"')
        return {key for key, stage in plan.stages.items() if stage.kind == "make_trigger"}

    file = tmp_path / "weights"
    file.write_bytes(b"one")
    without = prepared()
    monkeypatch.setattr("attacks._perceptual.lpips_files", lambda: (file, file))
    assert len(prepared() & without) == 1, "badnets reads nothing"
    first = prepared()
    file.write_bytes(b"others")
    assert len(prepared() & first) == 1


def test_stages_come_after_their_parents(tiny: Tiny) -> None:
    plan = tiny("defenses=none,fine_pruning,strip")
    seen: set[str] = set()
    for key, stage in plan.stages.items():
        assert set(stage.parents.values()) <= seen
        seen.add(key)


def test_adding_a_defense_trains_no_model_and_implants_nothing(tiny: Tiny, tmp_path: Path) -> None:
    store = Store(tmp_path / "store", create=True)
    finish(tiny(), store)
    wider = tiny("defenses=none,fine_pruning,strip")
    needed = Frontier(wider, store, ()).needed
    assert kinds(needed, wider) == {
        "defend",
        "encode",
        "encode_triggered",
        "score_benign",
        "score_triggered",
        "measure",
    }
    assert not Frontier(tiny(), store, ()).needed


def changed(before: Plan, after: Plan) -> set[str]:
    """Kinds of the stages of `after` that `before` has not."""
    return {stage.kind for key, stage in after.stages.items() if key not in before.stages}


EVERYTHING = {
    "load",
    "split",
    "train",
    "make_trigger",
    "implant",
    "encode",
    "encode_triggered",
    "defend",
    "score_benign",
    "score_triggered",
    "measure",
}


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("bench.stages.measure", {"measure"}),
        ("bench.metrics", {"measure"}),
        ("hashing.ranking", {"defend", "encode", "encode_triggered", "measure"}),  # fine-pruning measures mAP
        (
            "attacks.badnets",
            {
                "make_trigger",
                "implant",
                "encode",
                "encode_triggered",
                "defend",
                "score_benign",
                "score_triggered",
                "measure",
            },
        ),
        ("defenses.strip", {"defend", "score_benign", "score_triggered", "measure"}),
        ("hashing.train", EVERYTHING - {"load", "split", "make_trigger"}),
        ("hashing.backbones.convnet", EVERYTHING - {"load", "split"}),
        ("hashing.datasets.digits", EVERYTHING),
        ("bench.engine.scheduler", set()),
        ("bench.engine.executors", set()),
        ("bench.engine.ray_executor", set()),
        ("bench.engine.store", set()),
        ("bench.config.suite", set()),
        ("bench.cli.run", set()),
        ("hashing.methods.dpsh", set()),
        ("attacks.blend", set()),
    ],
)
def test_a_change_of_code_recomputes_exactly_what_it_affects(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, module: str, expected: set[str]
) -> None:
    before = tiny("defenses=none,fine_pruning,strip")
    real = fingerprint._module
    monkeypatch.setattr(fingerprint, "_module", lambda m: ("changed", real(m)[1]) if m == module else real(m))
    cache_key.code_of.cache_clear()
    after = tiny("defenses=none,fine_pruning,strip")
    cache_key.code_of.cache_clear()
    assert changed(before, after) == expected


def test_a_kernel_change_retrains_nothing(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tiny()
    real = fingerprint._module
    monkeypatch.setattr(fingerprint, "_module", lambda m: ("changed", real(m)[1]) if m == "hashing.codes" else real(m))
    cache_key.code_of.cache_clear()
    after = tiny()
    cache_key.code_of.cache_clear()
    assert changed(before, after) == {"encode", "encode_triggered", "measure"}


def test_parameters_recompute_exactly_what_they_affect(tiny: Tiny) -> None:
    base = tiny()
    models = EVERYTHING - {"defend", "score_benign", "score_triggered"}
    assert changed(base, tiny("training.epochs=2")) == models - {"load", "split"}
    assert changed(base, tiny("resources.threads=2")) == models - {"load", "split"}
    assert changed(base, tiny("resources.timeout=5")) == set()
    poisoned = {"implant", "encode", "encode_triggered", "measure"}
    assert changed(base, tiny('attacks=["none", { name = "badnets", poison_rate = 0.1 }]')) == poisoned
    larger = tiny('attacks=["none", { name = "badnets", trigger_size = 0.2 }]')
    assert changed(base, larger) == {"make_trigger", *poisoned}
    assert changed(base, tiny('attacks=["none", { name = "badnets", poison_rate = 0.05 }]')) == set()
    assert changed(base, tiny("seeds=1")) == models - {"load", "split"}


def test_a_changed_data_file_recomputes_its_data(
    tmp_path: Path, trouble: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.api import registry
    from bench.config import suite as suites

    data = tmp_path / "data.bin"
    data.write_bytes(b"one")
    monkeypatch.setattr(registry.lookup("datasets", "trouble"), "files", lambda self, root: (data,))
    suite = tmp_path / "s.toml"
    suite.write_text('[axes]\ndatasets = ["trouble"]\n')

    def cache_key() -> dict[str, str]:
        plan = planning.plan([suites.load(str(suite))], data=None, device="cpu")
        return {stage.kind: key for key, stage in plan.stages.items()}

    before = cache_key()
    assert cache_key() == before
    data.write_bytes(b"two")
    after = cache_key()
    assert all(after[kind] != before[kind] for kind in before)


def test_surrogates_come_from_another_repetition(tmp_path: Path) -> None:
    from bench.api import registry
    from bench.config import suite as suites

    plugin = tmp_path / "wishful.py"
    plugin.write_text(
        '"""Wants a surrogate and foreign data."""\n'
        "from bench.api.attack import *\n"
        "@attack\n"
        "class Wishful(PoisoningAttack):\n"
        "    def threat(self): return Threat.TRAIN_SET\n"
        "    def requires(self, setting):\n"
        '        return (ModelSpec(), ModelSpec(bits=8), DataSpec("shapes"))\n'
        "    def apply_trigger(self, images, target, trigger): return images\n"
        "    def poison(self, victim, trigger, rng): raise NotImplementedError\n"
    )
    registry.load_plugin(plugin)
    text = '[axes]\ndatasets = ["digits"]\nattacks = ["wishful"]\nseeds = SEEDS\nsurrogate = ["WHICH"]\n'

    def plan(seeds: str, which: str) -> Plan:
        path = tmp_path / "s.toml"
        path.write_text(text.replace("SEEDS", seeds).replace("WHICH", which))
        return planning.plan([suites.load(str(path))], data=None, device="cpu")

    for seeds, which, expected in (("[0]", "other_seed", {0: 1}), ("[0, 1, 2]", "other_seed", {0: 1, 1: 2, 2: 0}),
                                   ("[4]", "same", {4: 4})):  # fmt: skip
        made = plan(seeds, which)
        for stage in made.stages.values():
            if stage.kind == "make_trigger":
                first, second = (made.stages[stage.parents[f"surrogates.{i}"]] for i in (0, 1))
                assert first.spec["seed"] == second.spec["seed"] == expected[stage.spec["seed"]]
                assert second.spec["bits"] == 8
                assert made.stages[stage.parents["proxies.0.load"]].kind == "load"
                assert "clean" not in stage.parents, "no Threat.MODEL, no clean model"
    # three repetitions lend each other their clean models: no further training
    assert (
        sum(
            stage.kind == "train" and stage.spec["bits"] == 32
            for stage in plan("[0, 1, 2]", "other_seed").stages.values()
        )
        == 3
    )
