"""Which test executes what a document shows. What no rule here knows makes `test_blocks` or `test_words` red."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any, get_args

import typer

from bench.api import registry
from bench.cli.app import app
from bench.config import overrides, schema, suite
from tests.docs._markdown import ROOT, Shown, all_blocks, all_spans
from tests.docs._small import commands

SHELL = ("pip ", "nox", "export ", "ray ", "python -m bench")  # how the line of a block of commands begins
RULER = re.compile(r"^-{3,}(  -{3,})+$", re.MULTILINE)  # below the head of a printed board
# Words that a command prints.
PRINTED = {
    "zero@R": "show KEY", "drop@R": "show KEY", "cifar-10-batches-py/": "doctor",
    "cifar10/cifar10-jpeg.tar.xz": "doctor",
    "voc2012-animals/voc2012-animals.zip": "doctor", "~/.cache/torch/hub/checkpoints": "doctor",
    "report.html": "report",
}  # fmt: skip
# Words that stand in a file, which says what is meant.
SAID = {
    "runs/": ("bench/cli/options.py", 'DEFAULT_STORE = Path("runs")'),
    "damaged/": ("bench/engine/store.py", 'self.root / "damaged"'),
    "backdoored": ("bench/stages/implant.py", "backdoor_output(backdoored=True)"),
    "guess:": ("bench/templates/attacks.txt", "guess:"),
    "origin/main": ("tests/benchmarks/gate.py", '"origin/main"'),
    ".npz": ("bench/cli/boards.py", 'metavar="QUERY.npz"'),
    ".pth": ("hashing/pretrained.py", ".pth"),
    "badnets gain>0.5": ("tests/reports/test_browser.py", 'fill("badnets gain>0.5")'),  # typed into a browser
    "renamed": ("bench/api/registry.py", '"renamed"'),
    "__all__": ("attacks/__init__.py", "__all__"),
    "bench.api.*": ("tests/packages/api.py", '"bench.api.attack", "bench.api.defense"'),
    "reports": ("tests/packages/api.py", '"reports"'),
    "python -m tests.packages.api > tests/packages/api.txt": ("tests/packages/api.py", "tests/packages/api.txt"),
    "kill": ("tests/cli/test_bad_input.py", "signal.SIGTERM"),
}
# Modules whose names the documents use as they are, without the module.
MODULES = (
    "bench.api.attack", "bench.api.defense", "bench.api.hashing", "bench.api.card", "attacks", "bench.api.errors",
    "reports", "hashing.codes", "hashing.ranking",
)  # fmt: skip
# Names of other people's.
FOREIGN = {"IndexBinaryFlat": "faiss", "bitwise_count": "numpy", "weights_only": "torch.load"}
LINE = re.compile(r"\S+\.jpg( \d+)+")  # of a list of images
GROUPS = tuple(f"hashdoor.{kind}" for kind in registry.KINDS)


@cache
def parsers() -> dict[str, Any]:
    """The command line's own parser of each command."""
    return dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


@cache
def options() -> frozenset[str]:
    boards = parsers()["report"]
    every = [*parsers().values(), *(boards.get_command(None, name) for name in boards.list_commands(None))]
    words = {option for parser in every for param in parser.params for option in param.opts}
    return frozenset({word for word in words if word.startswith("--")} | {"--help"})


def of_block(block: Shown) -> str | None:
    """The rule of a fenced block: suite, python, commands, cluster, boards, or None."""
    if block.language in {"toml", "python"}:
        return {"toml": "suite", "python": "python"}[block.language]
    if block.language not in {"", "sh", "bash", "console"}:
        return None
    shown = commands(block)
    if shown and all(line.startswith(SHELL) for line in shown):
        return "cluster" if any(line.startswith("ray ") for line in shown) else "commands"
    return "boards" if RULER.search(block.text) else None


def blocks_of(rule: str) -> list[Shown]:
    return [block for block in all_blocks() if of_block(block) == rule]


def words_of_rule(*rules: str) -> list[str]:
    return [span.text for span in all_spans() if of_words(span.text) in rules]


def of_words(text: str) -> str | None:
    """The rule of words in backticks, or None."""
    return next((rule for rule, fits in RULES.items() if fits(text)), None)


def command_of(text: str) -> list[str] | None:
    """`bench check FILE`, `list attacks ciba` and the like as the words after `python -m bench`."""
    words = text.split()
    for start in (["python", "-m", "bench"], ["bench"], []):
        rest = words[len(start) :]
        if words[: len(start)] == start and (rest[0] in parsers() if rest else len(start) == 3):
            return rest
    return None


def is_toml(text: str) -> bool:
    try:
        tomllib.loads(toml(text))
    except tomllib.TOMLDecodeError:
        return False
    return bool(re.match(r"[\[{]|\w+ = ", text))


def toml(text: str) -> str:
    """A fragment as a document: `{ ... }` is a value, `[table] key = value` two lines."""
    if text.startswith("{"):
        return f"value = {text}"
    return re.sub(r"^(\[[\w.]+\]) ", r"\1\n", text)


def labelled(text: str) -> tuple[str, dict[str, Any]] | None:
    """`name(parameter=value)`, as boards write a component."""
    found = re.fullmatch(r"(\w+)\((\w+)=([^,()]+)\)", text)
    return (found.group(1), {found.group(2): overrides.scalar(found.group(3))}) if found else None


def keyword(text: str) -> tuple[str, str] | None:
    """`name="value"`, an argument of a function."""
    found = re.fullmatch(r'(\w+)="(\w+)"', text)
    return (found.group(1), found.group(2)) if found else None


def is_python(text: str) -> bool:
    try:
        (node,) = ast.parse(text).body
    except (SyntaxError, ValueError):
        return False
    call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    return call or isinstance(node, ast.Import | ast.ImportFrom)


def resolved(text: str) -> object | None:
    """What a dotted name stands for, or None."""
    parts = text.split(".")
    if not all(part.isidentifier() for part in parts) or len(parts) < 2:
        return None
    for cut in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            found = getattr(found, part, None)
        return found
    return None


def file_of(text: str) -> bool:
    """Whether a path is one of the repository; `views/` is one of bench's."""
    if not re.search(r"[/.]", text) or text.startswith(("/", ".", "~")):
        return False
    places = [folder / text for folder in (ROOT, ROOT / "bench")]
    return any(place.is_dir() if text.endswith("/") else place.exists() for place in places)


@cache
def names() -> frozenset[str]:
    """Every name that the documents may use alone: of components, suites, parameters, settings, classes, functions."""
    found = {name for kind in registry.KINDS for name in registry.catalogue(kind)} | {*suite.names()}
    found |= {*parsers(), *schema.AXES, *schema.AXES.values(), "CARD"}
    classes = [registry.lookup(kind, name) for kind in registry.KINDS for name in registry.catalogue(kind)]
    found |= {name for cls in classes for name in cls.__dataclass_fields__}
    modules = [importlib.import_module(name) for name in MODULES]
    for module in modules:
        found |= {name for name in dir(module) if not name.startswith("_")}
    for cls in {cls for module in modules[:5] for cls in _classes(module)}:
        found |= {name for name in dir(cls) if not name.startswith("_")} | {*getattr(cls, "__dataclass_fields__", ())}
    return frozenset(found)


def _classes(module: ModuleType) -> Iterator[type]:
    return (value for value in vars(module).values() if isinstance(value, type))


def takers(name: str, value: str) -> list[str]:
    """Functions of the kernels that take this value for an argument of this name."""
    found = []
    for module in (importlib.import_module("hashing.codes"), importlib.import_module("hashing.ranking")):
        for label, function in inspect.getmembers(module, inspect.isfunction):
            parameter = inspect.signature(function, eval_str=True).parameters.get(name)
            if parameter is not None and value in get_args(parameter.annotation):
                found.append(label)
    return found


def made() -> list[tuple[str, str]]:
    """Kind and name of what the documents write with `bench new`: the small folder is made with it."""
    words = [command_of(span.text) or [] for span in all_spans()]
    return [(kind, name) for new, kind, name in (w for w in words if len(w) == 3) if new == "new" and name.islower()]


def created_by_a_command(text: str) -> bool:
    return text in {f"{name}.py" for _, name in made()}


def shown() -> list[str]:
    """The lines of blocks and the words in backticks that run something, in the documents' order."""
    lines = [line for block in all_blocks() if of_block(block) == "commands" for line in commands(block)]
    words = [span.text for span in all_spans() if of_words(span.text) in {"command", "program"}]
    return [*dict.fromkeys([*lines, *words])]


RULES = {
    "printed": PRINTED.__contains__,
    "said": SAID.__contains__,
    "foreign": FOREIGN.__contains__,
    "name": lambda text: text.isidentifier() and text in names(),
    "label": lambda text: labelled(text) is not None and labelled(text)[0] in names(),
    "overview": lambda text: text == "python -m bench",
    "command": lambda text: bool(command_of(text)),
    "option": lambda text: text.startswith("--") and text.split()[0] in options(),
    "program": lambda text: text.split()[0] in {"pip", "nox"},
    "after nox": lambda text: text.startswith("-- "),
    "cluster": lambda text: text.startswith("ray "),
    "toml": is_toml,
    "line of a list": lambda text: bool(LINE.fullmatch(text)),
    "keyword": lambda text: keyword(text) is not None,
    "path": file_of,
    "made": created_by_a_command,
    "group": GROUPS.__contains__,
    "variable": lambda text: text.startswith("$"),
    "python": is_python,
    "dotted": lambda text: resolved(text) is not None,
}
