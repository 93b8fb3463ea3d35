"""What enters a stage's key beside its spec and its parents: the content of files, code, versions."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.api import registry
from bench.artifacts.inputs import STAGES, DefendInputs, MeasureInputs
from bench.config.trial import digest, sha256
from bench.graph.fingerprint import fingerprint


@cache
def file_digest(path: Path, size: int, mtime: int) -> str:
    """Content digest of a data file; size and time only say when to read it again."""
    del size, mtime
    return sha256(path)


def content_of(files: Sequence[Path]) -> str:
    """Names below the folder that holds them all, and contents: a moved image may have changed its label."""
    common = os.path.commonpath([path.parent for path in files]) if files else ""
    return digest(
        [
            [os.path.relpath(path, common), file_digest(path, (info := path.stat()).st_size, info.st_mtime_ns)]
            for path in files
        ]
    )


def modules_of(kind: str, spec: Mapping[str, Any]) -> tuple[str, ...]:
    """A stage's module, and those of the components that it looks up by name."""
    kinds = registry.KIND_OF_AXIS
    named = {registry.find(kinds[axis], spec[axis]["name"]).module for axis in kinds if axis in spec}
    declared = registry.declaring_modules("metrics") if kind == MeasureInputs.stage else ()
    return tuple(sorted({f"bench.stages.{kind}", *named, *declared}))


def key_of(
    kind: str, spec: Mapping[str, Any], parents: Mapping[str, str], *, threads: int, device: str
) -> tuple[str, tuple[str, ...], str]:
    """A stage's key, the modules that its code is in, and their fingerprint.

    The code behind a parent's artifact is in the parent's key.
    """
    modules = modules_of(kind, spec)
    code = fingerprint(modules)
    versions = environment(kind, threads=threads, device=device)
    if kind == DefendInputs.stage:
        used = registry.lookup("defenses", spec["defense"]["name"]).optional_packages
        versions = versions | {package: _minor(package) for package in used if find_spec(package) is not None}
    return digest([kind, spec, parents, code, versions]), modules, code


@cache  # a plan asks once a stage; nobody writes into what it gets
def environment(kind: str, *, threads: int, device: str) -> dict[str, Any]:
    """Versions and settings that a stage's result may depend on."""
    inputs = STAGES[kind]
    packages = ("torch", "numpy", *inputs.packages, *(["torchvision"] if inputs.uses_device else []))
    versions = {"python": ".".join(platform.python_version_tuple()[:2]), **{name: _minor(name) for name in packages}}
    return {**versions, "threads": threads, "device": device} if inputs.uses_device else versions


@cache
def _minor(package: str) -> str:
    return ".".join(version(package).split(".")[:2])
