"""Errors that a user can cause, with one line that tells what to do. All other errors are bugs and keep a traceback."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TypeVar

__all__ = [
    "EXIT_BUG", "EXIT_FAILED_TRIALS", "EXIT_INTERRUPT", "EXIT_OK", "EXIT_USER", "DataCorruptError", "DataMissingError",
    "DivergedError", "RenamedWarning", "StoreError", "ThreatError", "UserError",
]  # fmt: skip

EXIT_OK, EXIT_FAILED_TRIALS, EXIT_USER, EXIT_BUG, EXIT_INTERRUPT = 0, 1, 2, 70, 130


E = TypeVar("E", bound="UserError")


class UserError(Exception):
    """An input of the user cannot be used. The message is one line and ends with what to do.

    problem, hint: the message in two parts, for two lines of a terminal; "" if it has no parts.
    """

    problem = ""
    hint = ""

    @classmethod
    def in_parts(cls: type[E], problem: str, hint: str, message: str = "") -> E:  # noqa: PYI019 -- beartype has no Self
        """An error whose hint stands on its own line. message: the same in one line. Default: `problem: hint`."""
        error = cls(message or f"{problem}: {hint}")
        error.problem, error.hint = problem, hint
        return error


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
    """The text `; did you mean 'x'?` with the nearest valid name, or "" if none is close."""
    names = list(valid)
    initials = "".join(word[:1] for word in name.split("_"))  # learning_rate: lr
    close = [initials] if "_" in name and initials in names else get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def in_words(message: str) -> str:
    """The message of a validation error as the end of a line: `must be a number` for `Input should be a valid ...`."""
    short = message.removeprefix("Value error, ").partition(", unable to parse")[0]
    short = short.replace("Input should be a valid ", "must be a ").replace("Input should be", "must be")
    return f"{short[:1].lower()}{short[1:]}"


NO_BOOLEAN = "must be a number, and not true or false"


def unknown(what: str, name: str, valid: Iterable[str], fix: str = "") -> UserError:
    """The error for an unknown name: suggests the nearest valid name and lists all."""
    names = sorted(valid)
    listed = f"Known: {', '.join(names) or 'none'}"
    near, more = nearest(name, names), f" ({fix})" if fix else ""
    whole = f"unknown {what} '{name}'{near or '.'} {listed}{more}"
    hint = "; ".join(filter(None, [near.removeprefix("; "), fix]))
    return UserError.in_parts(f"unknown {what} '{name}'. {listed}", hint, whole) if hint else UserError(whole)
