"""Keys of stages: digests of specs, parents' keys, data files, code, and versions of packages."""

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
    """Digest of a file's content. A file of another size or modification time is read again."""
    del size, mtime
    return sha256(path)


def content_of(files: Sequence[Path]) -> str:
    """Digest of the contents of files, and of their paths below their common folder.

    Paths count, since an image that moves to another folder may have another label.
    """
    common = os.path.commonpath([path.parent for path in files]) if files else ""
    return digest(
        [
            [os.path.relpath(path, common), file_digest(path, (info := path.stat()).st_size, info.st_mtime_ns)]
            for path in files
        ]
    )


def modules_of(kind: str, spec: Mapping[str, Any]) -> tuple[str, ...]:
    """The module of a kind of stage, and the modules of the components that the stage's spec names."""
    kinds = registry.KIND_OF_AXIS
    named = {registry.find(kinds[axis], spec[axis]["name"]).module for axis in kinds if axis in spec}
    declared = registry.declaring_modules("metrics") if kind == MeasureInputs.stage else ()
    return tuple(sorted({f"bench.stages.{kind}", *named, *declared}))


def key_of(
    kind: str, spec: Mapping[str, Any], parents: Mapping[str, str], *, threads: int, device: str
) -> tuple[str, tuple[str, ...], str]:
    """A stage's key, the modules that hold its code, and their fingerprint.

    kind: that of the stage. parents: their keys by role. A parent's key already depends on the parent's code.
    """
    modules = modules_of(kind, spec)
    code = fingerprint(modules)
    versions = environment(kind, threads=threads, device=device)
    versions = versions | {name: _minor(name) for name in _optional(kind, spec) if find_spec(name) is not None}
    return digest([kind, spec, parents, code, versions]), modules, code


def _optional(kind: str, spec: Mapping[str, Any]) -> tuple[str, ...]:
    """Packages of extras that the components of a stage use. Only `defend` runs the defense that its spec names."""
    axes = ("backbone", "defense") if kind == DefendInputs.stage else ("backbone",)
    found = [registry.lookup(f"{axis}s", spec[axis]["name"]).optional_packages for axis in axes if axis in spec]
    return tuple(package for used in found for package in used)


@cache  # a plan asks for it once per stage; callers do not change the result
def environment(kind: str, *, threads: int, device: str) -> dict[str, Any]:
    """The versions and settings that the result of a kind of stage may depend on."""
    inputs = STAGES[kind]
    packages = ("torch", "numpy", *inputs.packages, *(["torchvision"] if inputs.uses_device else []))
    versions = {"python": ".".join(platform.python_version_tuple()[:2]), **{name: _minor(name) for name in packages}}
    return {**versions, "threads": threads, "device": device} if inputs.uses_device else versions


@cache
def _minor(package: str) -> str:
    return ".".join(version(package).split(".")[:2])
