"""Errors that a user can cause, with one line that tells what to do. All other errors are bugs and keep a traceback."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "EXIT_BUG", "EXIT_FAILED_TRIALS", "EXIT_INTERRUPT", "EXIT_OK", "EXIT_USER", "DataCorruptError", "DataMissingError",
    "DivergedError", "RenamedWarning", "StoreError", "ThreatError", "UserError",
]  # fmt: skip

EXIT_OK, EXIT_FAILED_TRIALS, EXIT_USER, EXIT_BUG, EXIT_INTERRUPT = 0, 1, 2, 70, 130


class UserError(Exception):
    """An input of the user cannot be used. A terminal shows the hint on a line of its own.

    problem: what was given and what was expected, one line.
    hint: what to do, one line; "" if the problem says it.
    """

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(problem, hint)
        self.problem, self.hint = problem, hint

    def __str__(self) -> str:
        """Both in one line, for logs, records and boards."""
        return f"{self.problem}: {self.hint}" if self.hint else self.problem


class DataMissingError(UserError):
    """A data set is not on this machine. Trials that need it are skipped; the message tells how to get it."""


class DataCorruptError(UserError):
    """A data file cannot be read. The message names the file and the member."""


class StoreError(UserError):
    """The store cannot be used: wrong schema, not writable, or disk full."""


class RenamedWarning(FutureWarning):
    """An old name that still works. The message gives the new name and the version that drops the old one."""


class ThreatError(Exception):
    """A component read data that its declared threat model (or needs) does not grant."""


class DivergedError(Exception):
    """Training produced a loss or weight that is not finite. The trial fails; it is never reported as a weak result."""


class StageTimeoutError(BaseException):
    """A stage ran longer than its timeout. A BaseException, so that a component's `except Exception` lets it pass."""


def text_of(error: BaseException) -> str:
    """The message of an error, also of a plugin's error whose message cannot be made."""
    try:
        return str(error)
    except Exception as second:  # noqa: BLE001 -- code of others may raise anything
        return f"its message cannot be made ({type(second).__name__})"


STOPS = (KeyboardInterrupt, StageTimeoutError)  # these pass where code of others may raise anything


def nearest(name: str, valid: Iterable[str]) -> str:
    """The text `did you mean 'x'?` with the nearest valid name, or "" if none is close."""
    names = list(valid)
    initials = "".join(word[:1] for word in name.split("_"))  # learning_rate: lr
    close = [initials] if "_" in name and initials in names else get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else ""


def choice(name: str, valid: Iterable[str]) -> str:
    """The hint for an unknown name: the nearest valid name, and all of them."""
    names = list(valid)
    near, listed = nearest(name, names), ", ".join(names) or "none"
    return f"{near} Known: {listed}" if near else f"known: {listed}"


def in_words(message: str) -> str:
    """The message of a validation error as the end of a line: `must be a number` for `Input should be a valid ...`."""
    short = message.removeprefix("Value error, ").partition(", unable to parse")[0]
    short = short.replace("Input should be a valid ", "must be a ").replace("Input should be", "must be")
    return f"{short[:1].lower()}{short[1:]}"


NO_BOOLEAN = "must be a number, and not true or false"


def unknown(what: str, name: str, valid: Iterable[str], fix: str = "") -> UserError:
    """The error for an unknown name: suggests the nearest valid name and lists all."""
    return UserError(f"unknown {what} '{name}'", choice(name, sorted(valid)) + (f" ({fix})" if fix else ""))
