"""`bench doctor`: what this machine has and lacks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from bench.cli.options import DEFAULT_STORE, Data, Format, StorePath, emit_all


def doctor(data: Data = None, store: StorePath = DEFAULT_STORE, format_: Format = "rich") -> None:
    """Show versions, devices, data sets and weights. For missing data and weights, show the way to get them."""
    rows = _datasets(data)
    if format_ == "rich" and all(row["from"] == "built in" for row in rows):
        rows = [{"dataset": row["dataset"], "state": row["state"]} for row in rows]
    datasets = "Data sets" + (f" under {data}" if data else " (no --data given)")
    emit_all({"Machine": _machine(store), datasets: rows, "Weights": _weights()}, format_)


def _machine(store: Path) -> list[dict[str, str]]:
    import os
    import platform
    import shutil

    import torch

    from bench.api.errors import StoreError
    from bench.engine.provenance import PACKAGES, git, installed, processor
    from bench.engine.store import nearest_folder

    try:
        free = shutil.disk_usage(nearest_folder(store)).free
        state = f"{'there' if (store / 'store.json').exists() else 'not yet'}, {free / 1e9:.0f} GB free"
    except StoreError as error:
        state = str(error)
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    commit = git()
    facts = {
        "Python": platform.python_version(),
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "GPUs": ", ".join(devices) or "none: HashDoor uses the CPU",
        "packages": ", ".join(f"{name} {installed(name) or 'MISSING: pip install -e .'}" for name in PACKAGES),
        "commit": str(commit or "not a checkout"),
        "store": f"{store} ({state})",
    }
    return [{"what": name, "found": value} for name, value in facts.items()]


def _datasets(data: Path | None) -> list[dict[str, str]]:
    """One row per protocol: each data set with its defaults, and with each parameter value that needs other files."""
    from bench.api import registry
    from bench.api.errors import UserError
    from bench.config.trial import Spec

    rows: list[dict[str, str]] = []
    for name, source in registry.catalogue("datasets").items():
        if yours := registry.required("datasets", name):
            rows.append({"dataset": name, "from": source.origin, "state": _yours("images", yours)})
            continue
        known: set[str] = set()
        for params in _variants(registry.lookup("datasets", name)):
            try:
                dataset = registry.create("datasets", name, params)
                files = dataset.files(data)
                protocol, _ = dataset.protocol(data)
                where = ", ".join(map(str, files[:3])) if files else "no files needed"
                found = f"found ({protocol}): {where}"
            except UserError as error:
                found = str(error)
            if found not in known:  # most parameters have nothing to do with files
                known.add(found)
                rows.append({"dataset": Spec(name, given=params).label, "from": source.origin, "state": found})
    return rows


def _yours(what: str, parameters: list[str]) -> str:
    return f"your own {what}: set the parameter {', '.join(parameters)}"


def _variants(component: type[Any]) -> Iterator[dict[str, Any]]:
    """No parameters; then each value of each `Literal` parameter."""
    yield {}
    for name, field in getattr(component, "__pydantic_fields__", {}).items():
        for value in get_args(field.annotation) if get_origin(field.annotation) is Literal else ():
            if value != field.default:
                yield {name: value}


def _weights() -> list[dict[str, str]]:
    """Backbones and attacks that need files of weights, with the files or the way to get them."""
    from bench.api import registry
    from bench.api.errors import UserError

    rows = []
    for kind in ("backbones", "attacks"):
        for name in registry.catalogue(kind):
            if yours := registry.required(kind, name):
                rows.append({"component": name, "state": _yours("model", yours)})
                continue
            try:
                wanted = {"weights": "imagenet"} if hasattr(registry.lookup(kind, name), "weights") else {}
                files = registry.create(kind, name, wanted).files()
                found = f"found: {', '.join(map(str, files))}"
            except UserError as error:
                files, found = (), str(error)
            if files or not found.startswith("found"):
                rows.append({"component": name, "state": found})
    return rows
