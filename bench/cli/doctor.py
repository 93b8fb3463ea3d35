"""`bench doctor` and `bench gc`: what the machine has, and what a store no longer needs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from bench.cli.console import echo
from bench.cli.options import DEFAULT_STORE, Data, Format, StorePath, emit

DAY = 86400.0  # seconds


def doctor(data: Data = None, store: StorePath = DEFAULT_STORE, format_: Format = "rich") -> None:
    """Show versions, devices, data sets and weights, and how to get what is missing."""
    emit("Machine", _machine(store), format_)
    emit("Data sets" + (f" under {data}" if data else " (no --data given)"), _datasets(data), format_)
    emit("Public weights", _weights(), format_)


def _machine(store: Path) -> list[dict[str, str]]:
    import os
    import platform
    import shutil

    import torch

    from bench.engine.provenance import PACKAGES, git, installed, processor

    nearest_folder = next(path for path in (store.resolve(), *store.resolve().parents) if path.exists())
    free = shutil.disk_usage(nearest_folder).free
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    commit = git()
    facts = {
        "Python": platform.python_version(),
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "GPUs": ", ".join(devices) or "none: stages run on the CPU",
        "packages": ", ".join(f"{name} {installed(name) or 'MISSING: pip install -e .'}" for name in PACKAGES),
        "commit": str(commit or "not a checkout"),
        "store": f"{store} ({'there' if (store / 'store.json').exists() else 'not yet'}, {free / 1e9:.0f} GB free)",
    }
    return [{"what": name, "found": value} for name, value in facts.items()]


def _datasets(data: Path | None) -> list[dict[str, str]]:
    """Every protocol: a data set as it is, and with each choice that leads to other files or another name."""
    from bench.api import registry
    from bench.api.errors import UserError
    from bench.config.trial import Spec

    rows: list[dict[str, str]] = []
    for name, source in registry.catalogue("datasets").items():
        known: set[str] = set()
        for params in _variants(registry.lookup("datasets", name)):
            try:
                dataset = registry.create("datasets", name, params)
                files = dataset.files(data)
                protocol, _ = dataset.protocol(data)
                where = ", ".join(map(str, files[:3])) if files else "embedded"
                found = f"found ({protocol}): {where}"
            except UserError as error:
                found = str(error)
            if found not in known:  # most parameters have nothing to do with files
                known.add(found)
                rows.append({"dataset": Spec(name, given=params).label, "state": found, "from": source.origin})
    return rows


def _variants(component: type[Any]) -> Iterator[dict[str, Any]]:
    """No parameters; then each value of each parameter that takes one of a few."""
    yield {}
    for name, field in getattr(component, "__pydantic_fields__", {}).items():
        for value in get_args(field.annotation) if get_origin(field.annotation) is Literal else ():
            if value != field.default:
                yield {name: value}


def _weights() -> list[dict[str, str]]:
    """Backbones and attacks that read files of weights, or would if these were here."""
    from bench.api import registry
    from bench.api.errors import UserError

    rows = []
    for kind in ("backbones", "attacks"):
        for name in registry.catalogue(kind):
            try:
                wanted = {"weights": "imagenet"} if hasattr(registry.lookup(kind, name), "weights") else {}
                files = registry.create(kind, name, wanted).files()
                found = f"found: {', '.join(map(str, files))}"
            except UserError as error:
                files, found = (), str(error)
            if files or not found.startswith("found"):
                rows.append({"component": name, "state": found})
    return rows


def gc(
    store: StorePath = DEFAULT_STORE,
    repaired: Annotated[bool, typer.Option("--repaired", help="Also drop models that defenses repaired.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Drop what no run of this store needs any more; results that boards show are kept."""
    from bench.api.kinds import CODE_CHANGING
    from bench.engine.record import is_key
    from bench.engine.store import Store, writing

    held = Store(store)
    records = {record.key: record for record in held.records()}
    wanted: set[str] = set()
    for run in held.runs():
        trials = {trial.key for trial in run.trials if trial.key}
        unfinished = any(key not in records or not records[key].ok for key in trials)
        wanted |= trials.union(run.stages if unfinished else ())  # the same command continues with them
    todo = list(wanted)
    while todo:
        record = records.get(todo.pop())
        for parent in record.parents.values() if record is not None else ():
            if parent not in wanted:
                wanted.add(parent)
                todo.append(parent)
    # files named by keys and no others, whatever a folder of a stranger's store may link to
    ours = (path for path in (held.root / "records").glob("*.json") if is_key(path.stem))
    gone: list[Path] = [path for path in ours if path.stem not in wanted]
    for path in (held.root / "artifacts").glob("*.safetensors"):
        if not is_key(path.stem):
            continue
        record = records.get(path.stem)
        of_repair = record is not None and record.meta.kind in CODE_CHANGING
        if path.stem not in wanted or (repaired and of_repair):
            gone.append(path)
    aside = held.root / "damaged"
    gone += [] if aside.is_symlink() else list(aside.glob("*"))
    # what killed processes leave; a file of a run that goes on now is younger, and what lies behind a link is not ours
    own = [folder for folder in held.root.iterdir() if not folder.is_symlink()]
    left = [path for folder in own for path in folder.glob("*" if folder.name == "running" else ".*.tmp")]
    gone += [path for path in left if path.lstat().st_mtime < time.time() - DAY]
    gone = [path for path in gone if path.is_symlink() or path.is_file()]
    size = sum(path.lstat().st_size for path in gone)
    if not dry_run:
        with writing(held.root):
            for path in gone:
                path.unlink(missing_ok=True)
    total = sum(path.stat().st_size for path in held.root.rglob("*") if path.is_file())
    verb = "would free" if dry_run else "freed"
    echo(f"{verb} {size / 1e6:.1f} MB in {len(gone)} files; the store holds {total / 1e6:.1f} MB")
