"""`bench report`: the HTML page of the latest run, any board, and reported beside measured numbers."""

from __future__ import annotations

import inspect
import webbrowser
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from bench.cli.console import console, echo, line
from bench.cli.options import (
    DEFAULT_STORE,
    Beside,
    Columns,
    Command,
    Format,
    Label,
    Mixed,
    OutFolder,
    Pivot,
    PlainFlags,
    Plugins,
    ReadPath,
    RunOf,
    Suites,
    SuitesOf,
    Where,
    Wide,
    load_plugins,
    note_left_out,
)

if TYPE_CHECKING:
    from bench.config.suite import Suite
    from bench.engine.record_cache import RecordCache
    from bench.engine.runs import Selection
    from reports.board import Board
    from reports.board_registry import BoardKind
    from reports.frame import Results

PAGE = Path("report.html")


class _Boards(PlainFlags, TyperGroup):
    """A command per board: of built-in boards and of plugins on the command line."""

    def list_commands(self, ctx: Any) -> list[str]:
        from reports.board_registry import all_boards

        return [*super().list_commands(ctx), *all_boards()]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        from reports.board_registry import all_boards

        if found := super().get_command(ctx, cmd_name):
            return found
        kind = all_boards().get(cmd_name)
        return _command(kind) if kind is not None else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command. Plugins are loaded first, because the board may be defined in one."""
        from bench.api.errors import UserError, unknown

        load_plugins([*ctx.params["plugin"], *_plugins(args)])
        if args[0] not in (names := self.list_commands(ctx)):
            raise unknown("board", args[0], names, "see `python -m bench list boards`")
        for param in self.params:
            if param.name != "plugin" and ctx.get_parameter_source(param.name).name != "DEFAULT":
                raise UserError(
                    f"{param.opts[0]} stands before '{args[0]}'", "give the options of a board after its name"
                )
        self.callback = None  # the callback writes the page
        return super().resolve_command(ctx, args)


app = typer.Typer(cls=_Boards, invoke_without_command=True, subcommand_metavar="[BOARD] [OPTIONS OF THE BOARD]")


def _plugins(words: Sequence[str]) -> Iterator[Path]:
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == "--plugin":
            yield Path(following)
        elif word.startswith("--plugin="):
            yield Path(word.partition("=")[2])


def _option(name: str, option: Any) -> Any:
    """The option of a board on the command line. A switch that is off by default has no second name `--no-...`."""
    switch = option.type is bool and option.default is False
    return typer.Option(*[f"--{name.replace('_', '-')}"] * switch, help=option.help)


def _command(kind: BoardKind) -> Any:
    """The command that prints a board, with the options of all boards and those of this board."""

    def printing(**given: Any) -> None:
        print_board(kind.name, **given)

    from bench.api.errors import UserError

    everywhere = inspect.signature(print_board, eval_str=True).parameters
    shared = [one for one in everywhere.values() if one.kind is inspect.Parameter.KEYWORD_ONLY]
    if twice := sorted({*kind.options} & {*everywhere}):
        raise UserError(f"board '{kind.name}' declares the option '{twice[0]}', which every board has", "rename it")
    own = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=option.default,
            annotation=Annotated[option.type, _option(name, option)],
        )
        for name, option in kind.options.items()
    ]
    printing.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
    made = typer.Typer(add_completion=False)
    made.command(kind.name, cls=Command, help=f"{kind.help[0].upper()}{kind.help[1:]}.")(printing)
    return typer.main.get_command(made)


@app.callback()
def page(
    *,
    suites: SuitesOf = [],  # noqa: B006 -- typer needs a literal
    store: ReadPath = DEFAULT_STORE,
    out: Annotated[Path, typer.Option(metavar="FILE.html", help="File of the page.")] = PAGE,
    kernels: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Output of `bench kernels --format json`.")
    ] = None,
    where: Where = [],  # noqa: B006
    run: RunOf = "latest",
    mixed: Mixed = False,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    plugin: Plugins = [],  # noqa: B006
) -> None:
    """Write the latest run into one HTML page, or print one board.

    `bench report BOARD --help` lists the options of a board.
    """
    load_plugins(plugin)
    write_page(store, out, suites=suites, kernels=kernels, where=where, run=run, mixed=mixed)
    if open_ and not webbrowser.open(out.resolve().as_uri()):
        line(f"note: no browser could be started; open {out} yourself", out=console(stderr=True))


@app.command(cls=Command)
def reported(
    *,
    suites: Suites = [],  # noqa: B006
    store: ReadPath = DEFAULT_STORE,
    mixed: Mixed = False,
    plugin: Plugins = [],  # noqa: B006
    format_: Format = "rich",
) -> None:
    """Print the numbers of papers beside the measured numbers. Default: all shipped suites with published numbers."""
    from bench.api.errors import UserError
    from bench.config import suite
    from bench.engine.collection import opened, there
    from bench.engine.record_cache import RecordCache
    from reports import render

    load_plugins(plugin)
    wanted = {name: suite.load(name) for name in suites or suite.names()}
    holding = {name: one for name, one in wanted.items() if one.reported}
    if not holding:
        raise UserError(
            f"no reported numbers in {', '.join(one.name for one in wanted.values())}", "`python -m bench list suites`"
        )
    boards, said = _measured(RecordCache(opened(store)) if there(store) else None, holding, mixed)
    render.render(boards, format_)
    for note in said:
        line(f"note: {note}", out=console(stderr=True))


def print_board(
    name: str,
    *,
    suites: SuitesOf = [],  # noqa: B006
    store: ReadPath = DEFAULT_STORE,
    where: Where = [],  # noqa: B006
    run: RunOf = "latest",
    mixed: Mixed = False,
    wide: Wide = False,
    columns: Columns = None,
    pivot: Pivot = None,
    label: Label = None,
    out: OutFolder = None,
    beside: Beside = None,
    plugin: Plugins = [],  # noqa: B006
    format_: Format = "rich",
    **options: Any,
) -> None:
    """Print a board of the latest run; UserError if it is empty. options: those that the board declares."""
    made, held = made_boards(name, suites, store, where, run, options, mixed=mixed, beside=beside, plugin=plugin)
    print_made(made, format_, wide=wide, columns=columns, pivot=pivot, label=label, out=out)
    for selection, records in held:
        note_left_out(selection, records)


def made_boards(
    name: str,
    suites: Sequence[str],
    store: Path,
    where: Sequence[str],
    run: str,
    options: Mapping[str, Any],
    *,
    mixed: bool,
    beside: Path | None,
    plugin: Sequence[Path],
) -> tuple[list[Board], list[tuple[Selection, RecordCache]]]:
    """The boards of a kind, and the runs and records that they were made from; UserError without a board."""
    from bench.api.errors import UserError
    from bench.engine.runs import LATEST
    from reports.board_registry import BoardData, all_boards, make_boards

    load_plugins(plugin)
    cache, selections, found = read_results(suites, store, where, run)
    made = [board for results in found for board in make_boards(name, BoardData(results, cache, mixed), options)]
    held = [(selection, cache) for selection in selections]
    if beside is not None:
        from reports.beside import beside as joined

        named = suites or selections[0].shown[-1].suites  # a collection has several
        other, others, theirs = read_results(named, beside, where, LATEST)
        there = [board for results in theirs for board in make_boards(name, BoardData(results, other, mixed), options)]
        made = joined(made, there, beside.name)
        held += [(selection, other) for selection in others]
    if not made:
        raise UserError(
            f"board '{name}' is empty, because this run has nothing to show on it; it shows {all_boards()[name].help}"
        )
    return made, held


def print_made(
    made: Sequence[Board],
    format_: str,
    *,
    wide: bool = False,
    columns: str | None = None,
    pivot: str | None = None,
    label: str | None = None,
    out: Path | None = None,
) -> None:
    """Print boards with these columns, or write them into a folder."""
    from bench.api.errors import UserError
    from bench.config.words import pieces
    from reports import render
    from reports.arrange import Layout

    layout = Layout(wide, tuple(pieces(columns)) if columns is not None else (), pivot or "")
    if label and format_ != "latex":
        raise UserError("--label is the label of a LaTeX table", "give --format latex too")
    if out is None:
        render.render(made, format_, layout=layout, label=label or "")
        return
    if format_ == "rich":
        raise UserError("--out writes files", f"give --format {', '.join(render.WRITERS)} too")
    texts = render.files(made, format_, layout, label or "")
    out.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        (out / path).write_text(text, encoding="utf-8")
        echo(str(out / path))


def write_page(
    store: Path,
    out: Path,
    *,
    suites: Sequence[str] = (),
    kernels: Path | None = None,
    where: Sequence[str] = (),
    run: str = "latest",
    mixed: bool = False,
) -> None:
    """Write the page of one run into a file; UserError for several suites or a file that cannot be written."""
    from rich.markup import escape

    from bench.api.errors import UserError
    from bench.config import suite
    from reports import html_report

    cache, selections, found = read_results(suites, store, where, run)
    if len(found) > 1:
        raise UserError("--suite is given more than once, but a page shows one run", "use --run all for several")
    (results,) = found
    given = [*(name for name in suites if suite.is_file(name)), *(n for n in results.suites if n in suite.names())]
    claims, _ = _measured(cache, {name: suite.load(name) for name in given}, mixed)
    with console(stderr=True).status(f"writing {escape(str(out))}"):
        said = html_report.draw(cache.store, out, results, claims, kernels=kernels, mixed=mixed)
    echo(f"{out}: {said}")
    for selection in selections:
        note_left_out(selection, cache)


def read_results(
    suites: Sequence[str], store: Path, where: Sequence[str], run: str
) -> tuple[RecordCache, list[Selection], list[Results]]:
    """The records of the store, and the runs and results per suite (or of the latest run)."""
    from bench.engine.collection import opened
    from bench.engine.record_cache import RecordCache
    from bench.engine.runs import select
    from reports import frame, selection

    cache = RecordCache(opened(store))
    names: list[str | None] = [*suites] or [None]
    selections = [select(cache.store, run, suite=name) for name in names]
    found = [frame.results_of(one.shown, cache) for one in selections]
    return cache, selections, [selection.narrow(results, where) if where else results for results in found]


def _measured(cache: RecordCache | None, suites: Mapping[str, Suite], mixed: bool) -> tuple[list[Board], list[str]]:
    """Reported beside measured numbers of suites, and lines about the runs that count.

    cache: None without a store. suites: by name or file. All measured trials of the store count, also with --where.
    """
    from bench.engine.runs import ALL, select
    from reports import frame, reported

    runs = {name for manifest in cache.store.runs() for name in manifest.suites} if cache is not None else set()
    boards, said = [], []
    for given, one in suites.items():
        trials = None
        if cache is not None and one.reported and one.name in runs:
            selection = select(cache.store, ALL, suite=given)
            trials = frame.results_of(selection.shown, cache).trials
            said.append(selection.about_text)
        if one.reported:
            boards += reported.claims(trials, one.reported, mixed=mixed)
    return boards, list(filter(None, said))
