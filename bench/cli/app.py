"""The command line: the list of commands, and how errors end. The commands are in the files beside this one."""

from __future__ import annotations

import errno
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.api.errors import EXIT_BUG, EXIT_INTERRUPT, EXIT_OK, EXIT_USER, RenamedWarning, UserError
from bench.api.untrusted import abbreviate, strip_controls
from bench.cli import (
    best,
    bundles,
    component,
    doctor,
    explain,
    figures,
    kernels,
    listing,
    report,
    rerun,
    results,
    run,
    runs,
    selfcheck,
    site,
    verify,
)
from bench.cli.options import Command, memory_limit
from bench.cli.streams import tolerant_streams

app = typer.Typer(
    name="bench",
    help="HashDoor: a benchmark of backdoor attacks and defenses on deep hashing.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog="Exit codes: 0 done, 1 some trials failed, 2 wrong input, 70 a bug of HashDoor, "
    "130 interrupted (start the same command again).",
)
# groups of commands in `--help`
RUN, LOOK, SHARE, EXTEND, MAINTAIN = "Run", "Look at results", "Share results", "Extend", "Maintain"


def _add(name: str, function: Callable[..., None], group: str, *examples: str) -> None:
    """Add a command. examples: command lines after `python -m bench`; a blank line keeps each on its own line."""
    lines = [f"Example: python -m bench {one}".replace("[", "\\[") for one in examples]
    app.command(name, cls=Command, rich_help_panel=group, epilog="\n\n".join(lines) or None)(function)


_add(
    "run", run.run, RUN, "run --set badnets.poison_rate=0.01,0.03,0.1",
    "run --set bits=16,32 --only attack=none,badnets",
    "run --set 'attacks=none,badnets(poison_rate=0.1)' --set training.epochs=20",
    "run --set 'datasets={name=\"folder\",path=\"my_images\"}'", "run --retry failed,timeout,oom",
)  # fmt: skip
_add("plan", run.plan, RUN, "plan --suite full")
_add("list", listing.list_, RUN, "list attacks", "list attacks ciba")
_add("leaderboard", results.leaderboard, LOOK, "leaderboard --wide", "leaderboard --where attack=badnets --by bits",
     "leaderboard --format latex --board attacks --columns attack,t-mAP,gain")  # fmt: skip
app.add_typer(report.app, name="report", rich_help_panel=LOOK)
_add("show", results.show, LOOK, "show --retrieved retrieved.png", "show --gallery attacks.png")
_add("figures", figures.figures, LOOK, "figures paper --columns 2")
_add("explain", explain.explain, LOOK, "explain t-mAP", "explain badnets")
_add("compare", results.compare, LOOK, "compare A B", "compare runs --run ID --run ID")
_add("best", best.best, LOOK, "best", "best --store reference --wide", "best --store quick.zip --append")
_add("runs", runs.runs, LOOK)
_add("score", results.score, LOOK, "score query.npz database.npz --target 3")
_add("publish", bundles.publish, SHARE, "publish --suite quick --evidence")
_add("merge", bundles.merge, SHARE, "merge quick.zip")
_add("site", site.site, SHARE, "site pages", "site pages --store runs")
_add("rerun", rerun.rerun, SHARE, "rerun quick.zip --trials 3", "rerun reference --seed 7")
_add("new", component.new, EXTEND, "new attack my_attack")
_add("check", component.check, EXTEND, "check my_attack.py")
_add("doctor", doctor.doctor, MAINTAIN, "doctor --data DIR")
_add("selfcheck", selfcheck.selfcheck, MAINTAIN, "selfcheck --store check")
_add("verify", verify.verify, MAINTAIN)
_add("rescore", verify.rescore, MAINTAIN)
_add("gc", runs.gc, MAINTAIN, "gc --keep 3 --dry-run")
_add("kernels", kernels.kernels, MAINTAIN, "kernels --quick")

LONGEST = 4000  # characters of an error message
PATHS = {errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM}  # the path is wrong, not the program
OVERVIEW = """\
[bold]HashDoor[/bold] compares backdoor attacks and defenses on deep hashing.

  [bold]python -m bench run[/bold]                  run the suite quick: offline, on a CPU
  [bold]python -m bench leaderboard[/bold]          print the boards of the last run
  [bold]python -m bench report --open[/bold]        write boards and charts as a web page, and open it
  [bold]python -m bench explain t-mAP[/bold]        explain a column of the boards
  [bold]python -m bench plan --suite full[/bold]    print the trials and time of a suite
  [bold]python -m bench list[/bold]                 list attacks, defenses, data sets, ...
  [bold]python -m bench score Q.npz DB.npz[/bold]   compute metrics of your own codes
  [bold]python -m bench kernels --quick[/bold]      measure the speed of the kernels
  [bold]python -m bench new attack NAME[/bold]      write an example attack
  [bold]python -m bench check NAME.py[/bold]        test your attack
  [bold]python -m bench doctor[/bold]               list missing data and weights

`python -m bench COMMAND --help` explains a command. README.md explains everything else."""


def _version(wanted: bool) -> bool:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"HashDoor {version('hashdoor')}")
        raise typer.Exit
    return wanted


@app.callback()
def overview(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """HashDoor: a benchmark of backdoor attacks and defenses on deep hashing."""
    del version


def main(arguments: list[str] | None = None) -> None:
    """Run the command line. Wrong input ends with one line and exit code 2, a bug of HashDoor with its traceback."""
    with warnings.catch_warnings(), tolerant_streams() as failures:
        warnings.simplefilter("default", RenamedWarning)  # once for each text
        warnings.showwarning = partial(_warn, warnings.showwarning, set())
        code = _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
        if failures.errors:
            _complain(f"the output could not be written ({failures.errors[0].strerror}); results in the store are kept")
            code = code or EXIT_USER
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    code: object = EXIT_BUG
    try:
        _check_folder()
        if arguments:
            code = app(arguments, standalone_mode=False)
        else:
            from bench.cli.console import console

            console().print(OVERVIEW)
            code = EXIT_OK
    except UserError as error:
        _complain(error.problem, hint=error.hint)
        code = EXIT_USER
    except KeyboardInterrupt:
        _complain("interrupted; start the same command again to continue")
        code = EXIT_INTERRUPT
    except (MemoryError, ImportError) as error:
        if (found := memory_limit()) is None:
            return _bug()
        limit, size = found
        _complain(f"{size / 1e9:.1f} GB is too little memory for this process ({error})", hint=f"raise `{limit}`")
        code = EXIT_USER
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001 -- whatever it is, its traceback is printed
        code = _usage(error)
        if code is None:
            return _bug()
    return code if isinstance(code, int) else EXIT_OK


def _check_folder() -> None:
    """UserError if the current folder was deleted: libraries of torch would end the process with an odd message."""
    try:
        Path.cwd()
    except OSError as error:
        raise UserError(f"the current folder cannot be used ({error.strerror})", "change to another folder") from None


def _usage(error: BaseException) -> int | None:
    """The exit code for an unusable path or option, whose message is printed; None for every other error."""
    if isinstance(error, OSError) and error.errno in PATHS:
        _complain(f"{abbreviate(error.filename)} cannot be used ({error.strerror})", hint="give another path")
        return EXIT_USER
    show, code = getattr(error, "format_message", None), getattr(error, "exit_code", None)
    if show is None or code is None:
        return code if isinstance(code, int) else None
    from bench.config.schema import AXES

    context = getattr(error, "ctx", None)
    words = []
    while context is not None and context.parent is not None:
        words.append(context.info_name)
        context = context.parent
    said = show().rstrip(".").replace("Value error, ", "")
    option = str(getattr(error, "option_name", "")).removeprefix("--")
    if option in {*AXES, *AXES.values()}:
        said = f"no such option: --{option}; axes are set with --set {option}=VALUE"
    _complain(said, hint=f"`{' '.join(['python -m bench', *reversed(words), '--help'])}` explains the command")
    return EXIT_USER


def _bug() -> int:
    import traceback

    from bench.api.untrusted import strip_controls_multiline

    sys.stderr.write(strip_controls_multiline(traceback.format_exc()))
    _complain("this is a bug of HashDoor: please report the lines above")
    return EXIT_BUG


def _warn(
    usual: Callable[..., None], said: set[str], message: Warning | str, category: type[Warning], *where: Any
) -> None:
    """Print a warning; said: texts about renamed parameters that this command has printed."""
    if issubclass(category, RenamedWarning):
        if str(message) not in said:
            said.add(str(message))
            _complain(str(message), "warning", "yellow")
    else:
        usual(message, category, *where)


def _complain(message: str, what: str = "error", colour: str = "red", hint: str = "") -> None:
    from rich.text import Text

    from bench.cli.console import console

    out = console(stderr=True, soft_wrap=True)
    for start, text, style in ((what, message, colour), ("hint", hint, "cyan")):
        line = strip_controls(" ".join(text.split()))
        if len(line) > LONGEST:
            line = f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"
        if line:
            out.print(Text.assemble((f"{start}: ", f"bold {style}"), line))
