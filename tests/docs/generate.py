"""Writes the generated parts of the documents, between their markers: `python -m tests.docs.generate`.

A part begins with `<!-- generated: NAME -->` and ends with `<!-- end of NAME -->`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer

from bench.api import registry
from bench.api.attack import access_of
from bench.api.defense import Defense, Needs, kind_of
from bench.api.hashing import Recipe
from bench.cli.app import app
from bench.config import suite
from bench.config.parameters import Parameter, parameters_of
from bench.config.reported import ReportedTable
from bench.config.schema import DEFAULTS, Axes, Block, Resources, SuiteFile
from bench.config.trial import AXES
from bench.engine.collection import opened
from bench.engine.store import REFERENCE
from bench.metrics import METRICS
from reports import best_board, compare, reported, tidy
from reports.board import COMMON
from reports.board_registry import all_boards
from reports.site import markdown

ROOT = Path(__file__).parents[2]
DOCUMENTS = tuple(
    f"{folder}README.md" for folder in ("", "attacks/", "defenses/", "hashing/", "suites/", "reports/", "bench/cli/")
)
METHODOLOGY = "bench/METHODOLOGY.md"
RESULTS = "reports/results/README.md"  # generated as a whole
PART = re.compile(r"(<!-- generated: (\S+) -->\n)(.*?)(<!-- end of \2 -->\n)", re.DOTALL)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; columns that are empty in every row are left out."""
    held = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows]
    kept = [n for n in range(len(head)) if n == 0 or any(row[n] for row in held)]
    lines = [[head[n] for n in kept], ["---"] * len(kept), *([row[n] for n in kept] for row in held)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def code(text: str) -> str:
    return f"`{text}`" if text else ""


def parameter_table(found: Sequence[Parameter], first: str = "parameter") -> str:
    return table(
        (first, "type", "range", "default", "meaning"),
        ((code(one.name), one.values, one.limits, code(one.default), one.description) for one in found),
    )


def paper(source: registry.Source) -> str:
    card = registry.card(source)
    if card is None:
        return ""
    return f"[{card.title}]({card.url}), {card.venue + ' ' if card.venue else ''}{card.year}"


def components(kind: str, head: str, about: Callable[[str], str]) -> str:
    """A table of a kind's components, then the parameters of each. about: the column `head`."""
    found = registry.catalogue(kind)
    rows = [[code(name), registry.sentence(one), about(name), paper(one)] for name, one in found.items()]
    parts = [table(("name", "what it does", head, "paper"), rows)]
    for name in found:
        held = parameters_of(registry.lookup(kind, name))
        if held:
            parts.append(f"### Parameters of `{name}`\n\n{parameter_table(held)}")
    return "\n".join(parts)


def access(name: str) -> str:
    if registry.required("attacks", name):
        return "set by `access`"
    return str(access_of(registry.create("attacks", name, {}).threat()))


def defense_kind(name: str) -> str:
    made: Defense = registry.create("defenses", name, {})
    kind = "none" if name == "none" else kind_of(made).replace("_", " ")
    needs = [flag.name.replace("_", " ").lower() for flag in Needs if flag in made.needs and flag.name]
    return f"{kind}; reads the {' and the '.join(needs)}" if needs else kind


def own_weights(name: str) -> str:
    fields = registry.lookup("backbones", name).__dataclass_fields__
    return "ImageNet weights" if "weights" in fields and fields["weights"].default != "none" else "random"


def data_source(name: str) -> str:
    """Where the images of a data set come from."""
    if registry.required("datasets", name):
        return "your files"
    try:
        registry.create("datasets", name, {}).files(None)
    except registry.UserError:
        return "files below `--data`"
    return "no files needed"


def suites() -> str:
    return table(("suite", "description"), ((code(name), text) for name, text in suite.names().items()))


def toml_keys() -> str:
    """Every table of a suite file with its keys."""
    kept = [one for one in tables(SuiteFile) if one.name not in Block.model_fields]
    parts: list[tuple[str, str, list[Parameter]]] = [
        ("Top level", "", kept),
        ("`[[blocks]]` and top level", "Each `[[blocks]]` entry can have these tables too.", tables(Block)),
        ("`[axes]`", 'Lists of values. `"all"` stands for all components, those of plugins included.', axes()),
        ("`[training]`", "Default: the value of the published recipe of the method.", recipe()),
        ("`[resources]`", "", parameters_of(Resources)),
        ("`[[reported]]`", "Numbers of a paper, for `bench report reported`.", parameters_of(ReportedTable)),
    ]
    return "\n".join(
        f"### {title}\n\n{f'{note}{chr(10)}{chr(10)}' if note else ''}{parameter_table(found, 'key')}"
        for title, note, found in parts
    )


def tables(cls: type[Any]) -> list[Parameter]:
    """Keys whose default is a table have no default to show: the keys of the table do."""
    return [replace(one, default="") if one.values == "table" else one for one in parameters_of(cls)]


def axes() -> list[Parameter]:
    """Axes with the values that hold where neither the suite nor the block gives them."""
    return [replace(one, default=json.dumps(getattr(DEFAULTS, one.name))) for one in parameters_of(Axes)]


def recipe() -> list[Parameter]:
    """Fields of the recipe. A required field has no default of its own: every method gives one."""
    return [replace(one, default="") if one.default == "required" else one for one in parameters_of(Recipe)]


def metrics() -> str:
    """A table per section; a control follows its metric."""
    parts = []
    for section in METRICS.sections():
        rows = [
            [linked(one.title, one.methodology), code(name), one.meaning, one.range, one.better, one.unit]
            for name in METRICS.of(section)
            if (one := METRICS[name])
        ]
        head = ("column", "name in data frames", "meaning", "range", "better", "unit")
        parts.append(f"### {section}\n\n{table(head, rows)}")
    return "\n".join(parts)


def linked(title: str, anchor: str) -> str:
    """The title of a column, as a link to its section of the methodology if there is one."""
    return f"[{title}](../{METHODOLOGY}#{anchor})" if anchor else title


def columns() -> str:
    """The columns that are no metrics: those of all boards, then those of each board."""
    own = {name: dict(one.columns) for name, one in all_boards().items()}
    own["attacks-overall"] = {}  # has the columns of attacks
    others = {"reported": reported.MEANINGS, "compare": compare.MEANINGS, "best": best_board.COLUMNS}
    parts = [("every board", COMMON), *own.items(), *others.items()]
    rows = [
        [name if name == "every board" else code(name), linked(column, about.methodology), about.meaning]
        for name, held in parts
        for column, about in held.items()
        if column not in AXES or name in {"every board", "equal-strength"}
    ]
    return table(("board", "column", "meaning"), rows)


def frames() -> str:
    """The columns of the frames of notebooks that are no metrics."""
    found: dict[str, tuple[tidy.About, list[str]]] = {}
    for kind in tidy.KINDS:
        for name, about in tidy.about(kind).items():
            if name not in METRICS:
                found.setdefault(name, (about, []))[1].append(kind)
    every = list(tidy.KINDS)
    rows = [
        [code(name), "all" if kinds == every else ", ".join(kinds), one.dtype, one.meaning, one.missing]
        for name, (one, kinds) in found.items()
    ]
    return table(("column", "frames", "dtype", "meaning", "NaN or NA"), rows)


def boards() -> str:
    rows = [
        [
            code(name),
            one.chapter,
            one.help,
            ", ".join(board_option(key, value.default) for key, value in one.options.items()),
        ]
        for name, one in sorted(all_boards().items())
    ]
    return table(("board", "chapter of report.html", "shows", "options"), rows)


def board_option(name: str, default: object) -> str:
    return code(f"--{name}" if default is None or isinstance(default, bool) else f"--{name} {default}")


def values_of(annotation: Any) -> str:
    """The values of an option that has no metavar."""
    if get_origin(annotation) is Literal:
        return "|".join(map(str, get_args(annotation)))
    inner = [one for one in get_args(annotation) if one is not type(None)]
    return values_of(inner[0]) if inner else {"int": "N", "float": "X"}.get(annotation.__name__, "TEXT")


def as_text(default: Any) -> str:
    return ",".join(default) if isinstance(default, list) else str(default)


def commands() -> str:
    """Every command with its arguments and options, from the parser."""
    parsers: dict[str, Any] = dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    for name, group in list(parsers.items()):
        parsers |= {f"{name} {one}": parser for one, parser in getattr(group, "commands", {}).items()}
    parts = []
    for name, parser in parsers.items():
        rows = []
        for one in parser.params:
            if one.param_type_name == "argument":
                shown = one.metavar or one.name.strip("_").upper()
                rows.append([code(shown), getattr(one, "help", "") or "", ""])
            elif "--help" not in one.opts:
                flag = getattr(one, "is_flag", False)
                value = "" if flag else f" {one.metavar or values_of(one.type_descriptor.annotation)}"
                default = "" if flag or not one.default else as_text(one.default)
                variable = f" Environment variable: `{one.envvar}`." if one.envvar else ""
                rows.append([code(f"{one.opts[0]}{value}"), f"{one.help or ''}{variable}", code(default)])
        about = " ".join((parser.help or "").split())
        parts.append(f"### `bench {name}`\n\n{about}\n\n{table(('argument or option', '', 'default'), rows)}")
    return "\n".join(parts)


PARTS: dict[str, Callable[[], str]] = {
    "attacks": lambda: components("attacks", "access", access),
    "defenses": lambda: components("defenses", "kind", defense_kind),
    "datasets": lambda: components("datasets", "source", data_source),
    "methods": lambda: components("methods", "", lambda _: ""),
    "backbones": lambda: components("backbones", "starts from", own_weights),
    "suites": suites,
    "keys": toml_keys,
    "metrics": metrics,
    "boards": boards,
    "frames": frames,
    "columns": columns,
    "commands": commands,
    "excerpt": lambda: markdown.excerpt(opened(Path(REFERENCE)), "quick"),
}


def generated(text: str) -> str:
    """The document with its parts as the code is now."""
    return PART.sub(lambda found: f"{found[1]}\n{PARTS[found[2]]()}\n{found[4]}", text)


def results() -> str:
    """The main boards of the published results."""
    return markdown.document(opened(Path(REFERENCE)))


def main() -> None:
    for name in (*DOCUMENTS, RESULTS):
        path = ROOT / name
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        after = results() if name == RESULTS else generated(before)
        if after != before:
            path.write_text(after, encoding="utf-8")
            print(f"wrote {name}")


if __name__ == "__main__":
    main()
