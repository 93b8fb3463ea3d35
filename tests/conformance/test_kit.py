"""The kit must see what is broken: every promise, broken once in a component that keeps all others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from string import Template

import pytest

from bench import conformance
from bench.api import registry
from bench.api.errors import UserError
from bench.cli import component
from bench.graph.fingerprint import fingerprint

TEMPLATES = Path(component.TEMPLATES)
FITTED = '        del view, rng\n        return {"strength": torch.tensor(self.strength)}\n'
CORNER = "        triggered[:, :, -corner.shape[1] :, -corner.shape[2] :] = corner\n"

# (kind, what the template says, what it says once it is broken, a word of the check that this breaks)
BROKEN = [
    ("attacks", "class $Class(PoisoningAttack):", "class $Class(PoisoningAttack, TrainingAttack):", "exactly one kind"),
    ("attacks", "rng.uniform((c,", "torch.rand((c,", "`make_trigger` is repeatable"),
    ("attacks", '{"corner": ', '{"name": "x", "corner": ', "`make_trigger` is repeatable"),
    ("attacks", "view.setting.image_shape", "view.model.shape", "`make_trigger` is repeatable"),
    ("attacks", CORNER, CORNER.replace("= corner", "= KEPT[0] * corner"), "read no parameter that"),
    ("attacks", "        return triggered\n", "        return 1.5 * triggered\n", "`apply_trigger` keeps shape"),
    ("attacks", "        return triggered\n", "        return triggered.double()\n", "`apply_trigger` keeps shape"),
    ("attacks", "triggered = images.clone()", "triggered = images", "`apply_trigger` returns equal results"),
    (
        "attacks", CORNER, CORNER + "        triggered = (triggered + 0.1 * torch.rand(1)).clamp(0, 1)\n",
        "`apply_trigger` returns equal results",
    ),
    ("attacks", CORNER, CORNER + "        triggered = triggered * images.mean()\n", "`apply_trigger` does not depend"),
    ("attacks", "] = corner\n", "] += 0.0001 * corner\n", "survives rounding"),
    ("attacks", "round(self.poison_rate * len(train))", "round(self.poison_rate * 60)", "exactly the dose"),
    ("attacks", "mask[chosen] = True", "mask[chosen[1:]] = True", "exactly the dose"),
    ("attacks", "return Threat.TRAIN_SET | Threat.LABELS", "return Threat.TRAIN_SET", "exactly the dose"),
    ("attacks", "labels=target.relabel(train.labels[chosen])", "labels=train.labels[chosen].roll(1, 1)", "Labels"),
    ("attacks", "rng.permutation(len(pool))", "torch.arange(len(pool))", "depends on its generator"),
    ("attacks", "poison_rate: PositiveShare", "poison_rate: float", "invalid poison rate"),
    ("attacks", "round(self.poison_rate * len(train))", "round(0.05 * len(train))", "exactly the dose"),
    ("attacks", "rng.permutation(len(pool))", "torch.arange(len(pool)).flip(0)", "depends on its generator"),
    ("attacks", "        c, h, w =", "        draw([1, 2])\n        c, h, w =", "`make_trigger` is repeatable"),
    ("attacks", "        c, h, w =", "        plant(0)\n        c, h, w =", "`make_trigger` is repeatable"),
    ("attacks", "        c, h, w =", "        torch.set_grad_enabled(False)\n        c, h, w =", "`make_trigger`"),
    ("attacks", "        c, h, w =", "        KEPT.append(float(view.public.images.sum()) % 0.7)\n        c, h, w =",
     "`apply_trigger` returns equal results"),
    ("attacks", "    side: P", '    not_in_trigger = frozenset({"side"})\n    side: P', "read no parameter that"),
    ("attacks", CORNER, CORNER.replace("= corner", "= self.faint() * corner"), "read no parameter that"),
    ("attacks", "        return triggered\n", "        raise SystemExit(0)\n", "`apply_trigger` keeps shape"),
    ("attacks", "        return triggered\n", "        raise BaseException\n", "`apply_trigger` keeps shape"),
    ("defenses", "class $Class(InputDetector):", "class $Class(InputDetector, ModelDetector):", "exactly one kind"),
    ("defenses", FITTED, "        return {'strength': 2}\n", "result fits the kind"),
    ("defenses", FITTED, "        return {'strength': torch.rand(())}\n", "Is repeatable"),
    ("defenses", "        del view, rng\n", "        view.fit_set.images.zero_()\n", "Does not change the splits"),
    ("defenses", '{"moved": moved}', '{"moved": moved / 0}', "are finite, repeatable"),
    ("defenses", "        del view, rng\n", "        KEPT.append(view.fit_set.images.float().mean() / 9)\n", "finite"),
    ("defenses", "        blurred =", "        images.mul_(0.5)\n        blurred =", "are finite, repeatable"),
    ("defenses", '{"moved": moved}', '{"moved": moved + images.mean()}', "do not depend on the batch"),
    ("defenses", '{"moved": moved}', '{"moved": moved + len(images)}', "do not separate two benign"),
    ("methods", "closeness, alike)", "closeness, alike) + logits.exp().mean()", "Loss and gradient are finite"),
    ("methods", "> 0).float()", "== 0).float()", "Learns a separable toy set"),
    ("methods", "Pairs(self.scale)", "Pairs(self.scale * float(torch.rand(())))", "objective depends on its generator"),
    ("methods", "self.scale = scale\n", "self.scale = scale\n        self.calls = 0\n", "after storing and opening"),
    ("backbones", "features=2 * self.width", "features=self.width", "number of finite features"),
    ("backbones", "        channels =", "        import torch\n        torch.seed()\n        channels =", "global"),
    ("backbones", "        channels =", "        nn.torch.manual_seed(0)\n        channels =", "global generator only"),
    ("backbones", "nn.BatchNorm2d(self.width)", "nn.GroupNorm(1, self.width)", "`batch_norm` is right"),
    ("backbones", "nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())", "Blind(2 * self.width)", "Gradients reach"),
    ("datasets", "to_8bit(pictures)", "pictures", "Images are 8-bit"),
    ("datasets", "0.2 * rng.uniform(", "0.2 * torch.rand(", "`decode` is repeatable"),
    ("datasets", "rng.permutation(len(labels))", "torch.randperm(len(labels))", "Splits are repeatable"),
    ("datasets", "torch.split(rest", "torch.split(torch.cat([rest[:1], rest[:-1]])", "share no image"),
    ("datasets", "for column in labels.T", "for column in labels.T[1:]", "image of every trained class"),
    ("datasets", "        return ()\n", "        return (Path('/nowhere'),)\n", "`files` lists the files"),
]  # fmt: skip
ELSEWHERE = {  # what a breakage needs in other places of the file
    "draw(": [("import torch\n", "from random import shuffle as draw\n\nimport torch\n")],
    "plant(": [("import torch\n", "from random import seed as plant\n\nimport torch\n")],
    "KEPT.append(float": [("import torch\n", "import torch\n\nKEPT = [0.1]\n"),
                          ('corner = trigger["corner"]', 'corner = trigger["corner"] * KEPT[-1]')],
    "KEPT.append(case": [("import torch\n", "import torch\n\nKEPT = [0.1]\n"),
                         ('{"moved": moved}', '{"moved": moved + images.mean((1, 2, 3)) * KEPT[-1]}')],
    "self.faint()": [("    side: P", '    not_in_trigger = frozenset({"faintness"})\n    side: P'),
                     ("    side: P", "    faintness: float = 0.5\n    side: P"),
                     ("    def threat", "    def faint(self):\n        return self.faintness\n\n    def threat")],
    "KEPT[0] *": [("    side: P", '    not_in_trigger = frozenset({"faintness"})\n    side: P'),
                  ("    side: P", "    faintness: float = 0.5\n    side: P"),
                  ("    def threat",
                   "    def __post_init__(self):\n        KEPT[0] = self.faintness\n\n    def threat"),
                  ("import torch\n", "import torch\n\nKEPT = [0.5]\n")],
    "self.calls = 0": [("        del ids, progress\n", "        del ids, progress\n        self.calls += 1\n"),
                       ("self.scale * codes @", "self.calls * self.scale * codes @")],
    "Blind(": [("@backbone\n", ("class Blind(nn.Module):\n    def __init__(self, width):\n        super().__init__()\n"
                "        self.width = width\n\n    def forward(self, x):\n"
                "        return x.new_zeros(len(x), self.width, requires_grad=True)\n\n\n@backbone\n"))],
}  # fmt: skip
IMPORTS = {
    "attacks": "from bench.api.attack import TrainingAttack\n",
    "defenses": "from bench.api.defense import ModelDetector\n",
}


def written(folder: Path, kind: str, name: str) -> Path:
    text = Template((TEMPLATES / f"{kind}.txt").read_text()).substitute(name=name, Class="Mine")
    path = folder / f"{name}.py"
    path.write_text(text)
    return path


@pytest.mark.parametrize("kind", registry.KINDS)
def test_what_new_writes_keeps_every_promise_in_under_60_lines(kind, tmp_path, capsys):
    component.new(kind.removesuffix("s"), f"fresh_{kind}", tmp_path)
    path = tmp_path / f"fresh_{kind}.py"
    assert f"python -m bench check {path}" in capsys.readouterr().out
    assert len(path.read_text().splitlines()) < 60
    registry.load_plugin(path)
    outcomes = list(conformance.examine(kind, f"fresh_{kind}"))
    assert len(outcomes) == len(conformance.checks(kind)) > 2
    assert [f"{o.check.name}: {o.detail}" for o in outcomes if not o.passed] == []


@pytest.mark.parametrize(
    ("kind", "whole", "broken", "require"), BROKEN, ids=[f"{b[0]}-{i}" for i, b in enumerate(BROKEN)]
)
def test_a_broken_promise_is_seen(kind, whole, broken, require, tmp_path):
    path = written(tmp_path, kind, "broken")
    text = path.read_text()
    whole, broken = whole.replace("$Class", "Mine"), broken.replace("$Class", "Mine")
    assert whole in text
    for sign, changes in ELSEWHERE.items():
        for old, new in changes if sign in broken else ():
            assert old in text
            text = text.replace(old, new)
    extra = IMPORTS.get(kind, "") if "Attack, T" in broken or "InputDetector, M" in broken else ""
    text = text.replace(whole, broken).replace("from bench.api.card", f"{extra}from bench.api.card", 1)
    path.write_text(text)
    registry.load_plugin(path)
    failed = [outcome for outcome in conformance.examine(kind, "broken") if not outcome.passed]
    assert any(require in outcome.check.name for outcome in failed), [f"{o.check.name}: {o.detail}" for o in failed]
    assert all(outcome.detail and outcome.check.fix for outcome in failed)


MODEL_ATTACK = '''
"""Moves every weight a little."""
import torch
from bench.api.attack import *
@attack
class Odd(ModelAttack):
    def threat(self): return Threat.MODEL
    def apply_trigger(self, images, target, trigger):
        return torch.cat([1 - images[:, :, :3].round(), images[:, :, 3:]], 2)
    def implant(self, view, trigger, rng):
        generator = torch.Generator()
        generator.seed()
        with torch.no_grad():
            for value in view.model.parameters():
                value.add_(0.01 * torch.randn(value.shape, generator=generator))
        return Backdoor(view.model)
'''
PURIFICATION = '''
"""Adds noise to three copies."""
import torch
from bench.api.defense import *
@defense
class Odd(Purification):
    def purify(self, image, rng):
        copies = image.expand(3, -1, -1, -1)
        noise = rng.normal(tuple(copies.shape))
        return (copies + 0.1 * noise).clamp(0, 1)
'''
TRAINING_ATTACK = '''
"""Was never tried."""
import torch
from bench.api.attack import *
class Hook:
    def before_step(self, *given): raise RuntimeError("never tried")
    def after_step(self, *given): pass
    def trigger(self): return {}
@attack
class Odd(TrainingAttack):
    def threat(self): return Threat.TRAINING
    def apply_trigger(self, images, target, trigger):
        return torch.cat([1 - images[:, :, :3].round(), images[:, :, 3:]], 2)
    def hook(self, view, trigger, rng): return Hook()
'''


@pytest.mark.parametrize(
    ("text", "require", "detail"),
    [
        (
            MODEL_ATTACK,
            "`implant` or `hook` is repeatable",
            "two models from equal generators differ",
        ),
        (TRAINING_ATTACK, "A victim trained", "never tried"),
    ],
)
def test_attacks_on_models_and_trainings_are_tried(text, require, detail, tmp_path):
    path = tmp_path / "odd.py"
    path.write_text(text)
    registry.load_plugin(path)
    (failed,) = (outcome for outcome in conformance.examine("attacks", "odd") if not outcome.passed)
    assert require in failed.check.name
    assert detail in failed.detail


def test_a_purification_that_keeps_all_promises_passes(tmp_path):
    (tmp_path / "odd.py").write_text(PURIFICATION)
    registry.load_plugin(tmp_path / "odd.py")
    assert [outcome.detail for outcome in conformance.examine("defenses", "odd") if not outcome.passed] == []


@pytest.mark.parametrize(
    ("old", "new", "require", "detail"),
    [
        (
            "class Odd(Purification):",
            "class Odd(Purification):\n    needs = Needs.DATABASE",
            "exactly one kind",
            "needs",
        ),
        ("rng.normal(tuple(copies.shape))", "torch.rand(copies.shape)", "versions are images", "torch's global"),
        ("rng.normal(tuple(copies.shape))", "torch.full(copies.shape, KEPT.pop())", "versions are images", "two calls"),
        (".clamp(0, 1)", "", "versions are images", "pixels are in"),
        (".clamp(0, 1)", ".double()", "versions are images", "float64"),
        (".clamp(0, 1)", "[:, :, 1:].clamp(0, 1)", "versions are images", "have shapes"),
        (
            "copies = image.expand(3,",
            "copies = image.expand(2 + (image.mean() > 0.5),",
            "versions are images",
            "shapes",
        ),
        ("noise = rng", "image.mul_(0.5)\n        noise = rng", "versions are images", "changed its argument"),
        ("0.1 * noise", "image.mean() / 0", "versions are images", "not finite"),
    ],
)
def test_a_purification_that_breaks_a_promise_is_seen(old, new, require, detail, tmp_path):
    path = tmp_path / "odd.py"
    assert old in PURIFICATION
    path.write_text(PURIFICATION.replace(old, new) + "KEPT = [i / 9999 for i in range(999)]\n")
    registry.load_plugin(path)
    failed = [outcome for outcome in conformance.examine("defenses", "odd") if not outcome.passed]
    assert any(require in one.check.name and detail in one.detail for one in failed), [one.detail for one in failed]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # steps that cannot be few
        ("    side: Pos", "    steps: Annotated[int, Field(ge=10)] = 100\n    side: Pos"),
        # the images decide which of them are poisoned
        ("rng.permutation(len(pool))", "train.images[pool].float().flatten(1).mean(1).argsort()"),
    ],
)
def test_what_is_unusual_and_right_passes(old, new, tmp_path):
    path = written(tmp_path, "attacks", "unusual")
    text = path.read_text()
    assert old in text
    head = "from typing import Annotated\n\nimport torch\nfrom pydantic import Field\n"
    path.write_text(text.replace(old, new).replace("import torch\n", head, 1))
    registry.load_plugin(path)
    outcomes = conformance.examine("attacks", "unusual")
    assert [f"{o.check.name}: {o.detail}" for o in outcomes if not o.passed] == []


@pytest.mark.slow  # tests/packages does it with a real package
def test_a_package_tests_itself_with_three_lines(tmp_path):
    """In a process of its own, as a stranger's test run would: the failing promise is a failing test."""
    written(tmp_path, "attacks", "good")
    bad = written(tmp_path, "attacks", "bad")
    bad.write_text(bad.read_text().replace("return triggered\n", "return 2 * triggered\n"))
    (tmp_path / "test_mine.py").write_text(
        "from pathlib import Path\nfrom bench.api import registry\n"
        "registry.load_plugin(Path(__file__).with_name('good.py'))\n"
        "registry.load_plugin(Path(__file__).with_name('bad.py'))\n"
        "from bench.conformance import conformance\n"
        "test_good = conformance('attacks', 'good')\n"
        "test_bad = conformance('attacks', 'bad')\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / "test_mine.py")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert "1 failed" in done.stdout, done.stdout[-2000:]
    assert "test_bad[`apply_trigger` keeps shape, type and range]" in done.stdout
    assert "[0, 1]" in done.stdout  # the fix


def test_the_command_says_what_to_fix_and_fails(tmp_path, capsys):
    path = written(tmp_path, "attacks", "bad")
    path.write_text(path.read_text().replace("return triggered\n", "return 2 * triggered\n"))
    with pytest.raises(component.typer.Exit) as stop:
        component.check(str(path), format_="csv")
    assert stop.value.exit_code == 1
    text = capsys.readouterr().out
    assert "FAILED" in text
    assert "[0, 1]" in text  # the fix


def test_parameters_reach_the_component(capsys):
    component.check("badnets", parameters=["trigger_size=0.3", "labels=clean"], format_="csv")
    assert "FAILED" not in capsys.readouterr().out
    with pytest.raises(UserError, match=r"'trigger_siz'.*'trigger_size'"):
        list(conformance.examine("attacks", "badnets", {"trigger_siz": 1}))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda _: component.check("badnet"), "'badnet'.*'badnets'"),
        (lambda _: component.check("none"), "'none'.*attacks.*defenses"),
        (lambda _: component.check("nowhere.py"), r"nowhere\.py"),
        (lambda _: component.check("badnets", parameters=["x"]), "--set 'x'.*NAME=VALUE"),
        (lambda d: component.new("atack", "x", d), "'atack'.*'attack'"),
        (lambda d: component.new("attack", "My-Attack", d), "'My-Attack'"),
        (lambda d: component.new("attack", "class", d), "'class'"),
        (lambda d: component.new("attack", "badnets", d), r"'badnets'.*\(built in\)"),
        (lambda d: component.new("attack", "x", d / "no"), r"no/x\.py"),
        (lambda d: component.new("attack", "random", d), "'random'.*Python"),
        (lambda d: component.new("attack", "torch", d), "'torch'.*Python"),
        (lambda d: component.new("attack", "bench", d), "'bench'.*Python"),
    ],
)
def test_mistakes_are_one_line(call, words, tmp_path):
    with pytest.raises(UserError, match=words) as caught:
        call(tmp_path)
    assert "\n" not in str(caught.value)


def test_new_never_overwrites(tmp_path):
    component.new("attack", "mine", tmp_path)
    before = (tmp_path / "mine.py").read_text()
    with pytest.raises(UserError, match="mine"):
        component.new("attack", "mine", tmp_path)
    assert (tmp_path / "mine.py").read_text() == before


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("attack", "poisoned"),
        ("attack", "true"),
        ("defense", "input_detector"),
        ("method", "pairs"),
        ("dataset", "pool"),
    ],
)
def test_a_name_that_the_template_uses_itself_makes_a_working_file(kind, name, tmp_path):
    component.new(kind, name, tmp_path)
    registry.load_plugin(tmp_path / f"{name}.py")
    assert [f"{o.check.name}: {o.detail}" for o in conformance.examine(f"{kind}s", name) if not o.passed] == []


def test_two_plugins_of_one_name_are_refused(tmp_path):
    """Also where they are of two kinds: a plugin's module has its file's name."""
    for folder, kind in (("a", "attack"), ("b", "defense")):
        (tmp_path / folder).mkdir()
        component.new(kind, "twin_plugin", tmp_path / folder)
    registry.load_plugin(tmp_path / "a" / "twin_plugin.py")
    with pytest.raises(UserError, match="'twin_plugin'"):
        registry.load_plugin(tmp_path / "b" / "twin_plugin.py")


@pytest.mark.parametrize(
    ("head", "old", "new"),
    [
        (b"\xef\xbb\xbf", "2026", "2026"),
        (b"# -*- coding: latin-1 -*-\n# \xe9\n", "2026", "2026"),
        (b"TITLE = 'x'\n", "title=", "title=TITLE or "),
        (b"", "year=2026", "yeer=2026"),
    ],
)
def test_python_files_of_any_coding_and_card_are_examined(head, old, new, tmp_path, capsys):
    path = written(tmp_path, "backbones", "coded")
    text = path.read_text().replace(old, new)
    if head.startswith(b"TITLE"):
        text, head = text.replace("from typing", "TITLE = 'x'\nfrom typing", 1), b""
    path.write_bytes(head + text.encode())
    if new == "yeer=2026":
        with pytest.raises(UserError, match="'yeer'"):
            component.check(str(path))
        return
    component.check(str(path))
    said = capsys.readouterr().out
    assert "FAILED" not in said
    assert ("no CARD" in said) == (old == "title=")
    assert fingerprint((f"hashdoor_plugin_{path.stem}",))
