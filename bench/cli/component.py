"""`bench new` writes a component to start from; `bench check` tests a component."""

from __future__ import annotations

import keyword
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.console import console, echo
from bench.cli.options import Data, Format, Plugins, load_plugins

if TYPE_CHECKING:
    from bench.conformance import Outcome

TEMPLATES = Path(__file__).parents[1] / "templates"


def new(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="attack, defense, method, backbone, dataset or suite.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the component or suite, and of its file.")],
    folder: Annotated[Path, typer.Option("--into", metavar="DIR", help="Folder of the new file.")] = Path(),
    source: Annotated[
        str, typer.Option("--from", metavar="SUITE", help="Suite to copy, for `new suite NAME`.")
    ] = "quick",
) -> None:
    """Write a working example into NAME.py. Change it into your component, then test it with `bench check NAME.py`.

    `new suite NAME` copies a suite into NAME.toml.
    """
    if kind in {"suite", "suites"}:
        _new_suite(name, folder, source)
        return
    from string import Template

    from bench.api import registry
    from bench.api.errors import UserError

    plural = _kind(kind)
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise UserError(f"'{name}' cannot be a component's name: small letters, digits and _, for example my_attack")
    if _hides(name):
        raise UserError(f"'{name}' is a Python module too, and {name}.py would hide it", "choose another name")
    if name in registry.catalogue(plural):
        taken = registry.find(plural, name).origin
        raise UserError(f"{kind.removesuffix('s')} '{name}' is there already ({taken})", "choose another name")
    path = folder / f"{name}.py"
    template = (TEMPLATES / f"{plural}.txt").read_text(encoding="utf-8")
    class_ = "".join(part.capitalize() for part in name.split("_"))
    if keyword.iskeyword(class_) or re.search(rf"\b{class_}\b", template):  # it would hide what the file uses
        class_ += plural.removesuffix("s").capitalize()
    text = Template(template).substitute({"name": name, "Class": class_})
    _write(path, text)
    axis = "none," if plural in {"attacks", "defenses"} else ""
    echo(
        f"{path}: a working {plural.removesuffix('s')}. Change it into yours, then run:\n"
        f"  python -m bench check {path}\n"
        f"  python -m bench run --plugin {path} --set {plural}={axis}{name}"
    )


def _new_suite(name: str, folder: Path, source: str) -> None:
    from bench.api.errors import UserError
    from bench.config import suite

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise UserError(f"'{name}' cannot be a suite's name: letters, digits, _ and -, for example my_suite")
    if name in suite.names():
        raise UserError(f"suite '{name}' is there already (built in)", "choose another name")
    path = folder / f"{name}.toml"
    copied = re.sub(r"^name = .*$", f'name = "{name}"', suite.text_of(source), count=1, flags=re.MULTILINE)
    _write(path, f"# a copy of the suite {Path(source).stem}\n{copied}")
    echo(
        f"{path}: a copy of the suite {source}. Change it, then run:\n"
        f"  python -m bench plan --suite {path}\n"
        f"  python -m bench run --suite {path}"
    )


def _write(path: Path, text: str) -> None:
    from bench.api.errors import UserError
    from bench.engine.store import write_whole

    if path.exists():
        raise UserError(f"'{path}' is there already", "choose another name, or --into another folder")
    try:
        write_whole(path, text.encode())
    except OSError as error:
        raise UserError(f"cannot write '{path}' ({error.strerror}): --into a folder that is there") from None


def check(
    what: Annotated[
        str, typer.Argument(metavar="FILE|NAME", help="A plugin file (it is executed) or the name of a component.")
    ],
    kind: Annotated[
        str | None,
        typer.Option(
            "--kind",
            metavar="KIND",
            help="Kind of the component (attacks, defenses, ...), if two kinds have a component of this name.",
        ),
    ] = None,
    parameters: Annotated[
        list[str], typer.Option("--set", metavar="NAME=VALUE", help="A parameter of the component. Repeatable.")
    ] = [],  # noqa: B006 -- typer needs a literal
    plugin: Plugins = [],  # noqa: B006
    data: Data = None,
    format_: Format = "rich",
) -> None:
    """Test a component on small data, in about ten seconds. Exit code 1 if a check fails."""
    from bench import conformance
    from bench.api import registry
    from bench.api.errors import EXIT_FAILED_TRIALS

    if data is not None:
        os.environ["HASHDOOR_DATA"] = str(data)  # the checks read it, also under pytest
    load_plugins(plugin)
    if what.endswith(".py"):
        registry.load_plugin(Path(what))
        found = [
            (k, s.name)
            for k in registry.KINDS
            for s in registry.catalogue(k).values()
            if s.path == Path(what).resolve()
        ]
    else:
        found = [(_named(what, kind), what)]
    given = _given(parameters)
    failed = False
    for plural, name in found:
        source = registry.find(plural, name)
        outcomes = []
        total = len(conformance.checks(plural))
        with console(stderr=True).status("") as status:
            for outcome in conformance.examine(plural, name, given):
                outcomes.append(outcome)
                status.update(f"{name}: {len(outcomes)} of {total} checks")
        _print(f"{plural.removesuffix('s')} {name} ({source.origin})", outcomes, format_)
        failed |= any(not outcome.passed for outcome in outcomes)
        if registry.card(source) is None and format_ == "rich":
            echo("It has no CARD: `bench list` and reports cannot name its paper.\n")
    if failed:
        raise typer.Exit(EXIT_FAILED_TRIALS)


def _hides(name: str) -> bool:
    """Whether a file of that name would hide a module of Python, of an installed package or of HashDoor."""
    from importlib.util import find_spec

    spec = find_spec(name)
    return spec is not None and spec.origin is not None and Path(spec.origin).parent != Path.cwd()


def _kind(word: str) -> str:
    from bench.api import registry
    from bench.api.errors import unknown

    for plural in registry.KINDS:
        if word in {plural, plural.removesuffix("s")}:
            return plural
    raise unknown("kind", word, [kind.removesuffix("s") for kind in registry.KINDS])


def _named(name: str, kind: str | None) -> str:
    """The kind of the component with this name."""
    from bench.api import registry
    from bench.api.errors import UserError, nearest

    kinds = [_kind(kind)] if kind is not None else list(registry.KINDS)
    found = [plural for plural in kinds if name in registry.catalogue(plural)]
    if not found:
        known = [one for plural in kinds for one in registry.catalogue(plural)]
        close = " ".join(filter(None, [nearest(name, known), f"To test a file, write {name}.py"]))
        raise UserError(f"no component is called '{name}'", close)
    if len(found) > 1:
        raise UserError(f"'{name}' is one of the {' and of the '.join(found)}", f"choose one with --kind {found[0]}")
    return found[0]


def _given(parameters: list[str]) -> dict[str, Any]:
    from bench.api.errors import UserError
    from bench.config.words import scalar

    found: dict[str, Any] = {}
    for item in parameters:
        name, equals, value = item.partition("=")
        if not equals:
            raise UserError(f"--set '{item}' is not of the form NAME=VALUE, for example poison_rate=0.1")
        found[name.strip()] = scalar(value)
    return found


def _print(title: str, outcomes: list[Outcome], format_: Format) -> None:
    from bench.cli.options import emit

    rows = []
    for outcome in outcomes:
        verdict = "not applicable" if outcome.skipped else "passed" if outcome.passed else "FAILED"
        detail = outcome.detail if outcome.passed else f"{outcome.detail}. {outcome.check.fix}"
        seconds, name = f"{outcome.seconds:.1f}", outcome.check.name
        if format_ == "rich":
            rows.append({"result": verdict, "s": seconds, "check": f"{name} ({detail})" if detail else name})
        else:
            rows.append({"result": verdict, "check": name, "found": detail, "s": seconds})
    emit(title, rows, format_)
    broken = sum(not outcome.passed for outcome in outcomes)
    if format_ == "rich":
        open_ = sum(outcome.skipped for outcome in outcomes)
        rest = f"; {open_} not applicable" if open_ else ""
        echo(f"{len(outcomes) - broken - open_} of {len(outcomes)} checks passed{rest}.\n")
