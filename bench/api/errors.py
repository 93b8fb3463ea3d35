"""Errors that a user can cause: one line that says what to do. Everything else is our bug and keeps its traceback."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "EXIT_BUG", "EXIT_FAILED_TRIALS", "EXIT_INTERRUPT", "EXIT_OK", "EXIT_USER", "DataCorruptError", "DataMissingError",
    "DivergedError", "RenamedWarning", "StoreError", "ThreatError", "UserError",
]  # fmt: skip

EXIT_OK, EXIT_FAILED_TRIALS, EXIT_USER, EXIT_BUG, EXIT_INTERRUPT = 0, 1, 2, 70, 130


class UserError(Exception):
    """Something that the user gave cannot be used; the message is one line and ends with what to do."""


class DataMissingError(UserError):
    """A data set is not on this machine. Trials that need it are skipped, and the message says how to get it."""


class DataCorruptError(UserError):
    """A data file is there but cannot be read; the message names the file and the member."""


class StoreError(UserError):
    """The store cannot be used: another schema, not writable, disk full."""


class RenamedWarning(FutureWarning):
    """An old name was used that still works; the message is one line: the new one, and when the old one goes."""


class ThreatError(Exception):
    """A component reached for something that its declared threat model (or needs) does not grant."""


class DivergedError(Exception):
    """Training produced a loss or weight that is not finite: a failed trial, never a weak result."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing where no valid name is close."""
    close = get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def unknown(what: str, name: str, valid: Iterable[str], fix: str = "") -> UserError:
    """An unknown name, answered with the nearest right one and the whole list."""
    names = sorted(valid)
    hint = f" ({fix})" if fix else ""
    return UserError(f"unknown {what} '{name}'{nearest(name, names) or '.'} Known: {', '.join(names) or 'none'}{hint}")
