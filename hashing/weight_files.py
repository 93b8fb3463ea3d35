"""Weight files: state dicts from untrusted sources, of which only tensors are read."""

from __future__ import annotations

import hashlib
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
import torch
from torch import Tensor

from bench.api.errors import DataCorruptError

SAFE = ".safetensors"


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict from a file of safetensors or torch.save; DataCorruptError if the file is neither.

    A state dict inside a dict, as training code saves it beside epoch and optimiser, is taken if it is the only one.
    If the name ends in eight digits of a sha256, as torchvision's names do, they are verified.
    """
    named = re.search(r"-([0-9a-f]{8})\.pth$", path.name)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if named and not digest.startswith(named[1]):
            raise DataCorruptError(
                f"'{path}' is not the published file (its sha256 differs: {digest[:8]}, by its name {named[1]})",
                "get it again, or rename a file of your own",
            )
        file.seek(0)
        what = f"'{path}' (sha256 {digest[:8]}...)"
        remedy = "write it with torch.save(network.state_dict(), path)"
        state = _safe(path, what) if path.suffix == SAFE else read_saved(file, what, remedy)
    state = _inner(state, what)
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise DataCorruptError(f"{what} is no state dict (names with tensors): {remedy}")
    return dict(state)


def _inner(state: Any, what: str) -> Any:
    """The only state dict in a dict, with a mean and std that lie beside it; without one the argument."""
    if not isinstance(state, dict):
        return state
    inner = {name: value for name, value in state.items() if _is_state_dict(value)}
    if len(inner) > 1:
        names = " and ".join(repr(name) for name in list(inner)[:2])
        raise DataCorruptError(f"{what} holds several state dicts, {names}: save the one that counts alone")
    if not inner:
        return state
    beside = {name: state[name] for name in ("mean", "std") if isinstance(state.get(name), Tensor)}
    return beside | next(iter(inner.values()))


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(isinstance(one, Tensor) for one in value.values())


def _safe(path: Path, what: str) -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise DataCorruptError(
            f"{what} is damaged ({type(error).__name__})", "write it with safetensors.torch.save_file"
        ) from error
    return state


def read_saved(file: BinaryIO, what: str, remedy: str) -> Any:
    """The content of a file of torch.save, if it is tensors and containers of tensors; else DataCorruptError.

    what, remedy: the first and the last words of the error.
    """
    if _packed(file):
        raise DataCorruptError(f"{what} has compressed members, which torch.save never writes: {remedy}")
    file.seek(0)
    try:
        with warnings.catch_warnings(action="ignore"):  # about what an odd file holds
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # unpacking and unpickling fail in any way on damaged files
        raise DataCorruptError(
            f"{what} is damaged or holds more than tensors ({type(error).__name__}): {remedy}"
        ) from error


def _packed(file: BinaryIO) -> bool:
    """Whether a zip has compressed members, which torch would unpack without a limit."""
    try:
        with zipfile.ZipFile(file) as archive:
            return any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError):
        return False  # torch's old format, or damaged
