# ruff: noqa: E501 -- a table of hostile stores reads better in few lines
"""Stores of a stranger's, made from an honest one: each row of HOSTILE changes a copy, and every checksum holds again.

A stranger who writes a file also writes its checksum. So records and manifests are sealed anew after each change, and
the records that read an artifact name the checksum of the changed one.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from bench.config.trial import sha256
from bench.engine.bundle import (
    EVIDENCE,
    INDEX,
    MANIFEST,
    RECORDS,
    Index,
    checksums_of,
    described,
    encoded,
    packed,
    tensors_of,
)
from tests.fuzz.targets import sealed

Row = Callable[["Stranger"], None]
LONG = 100_000
NEVER = 2**62


@dataclass
class Stranger:
    """A store that somebody else has written, whatever it holds."""

    root: Path

    def records(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        for path in sorted((self.root / "records").glob("*.json")):
            yield path, json.loads(path.read_bytes())

    def put(self, path: Path, content: Any) -> None:
        path.write_bytes(sealed(json.dumps(content).encode()))

    def each_record(self, change: Callable[[dict[str, Any]], object], stage: str = "") -> None:
        """Change every record, or those of a stage."""
        for path, record in list(self.records()):
            if stage in {"", record["stage"]}:
                change(record)
                self.put(path, record)

    def each_run(self, change: Callable[[dict[str, Any]], object]) -> None:
        for path in sorted((self.root / "manifests").glob("*.json")):
            run = json.loads(path.read_bytes())
            change(run)
            self.put(path, run)

    def components(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Change every component that trials name."""
        self.each_run(lambda run: [change(one) for one in run["components"]])

    def measured(self) -> dict[str, Any]:
        """The record of a trial with an attack and without a defense."""
        found = [r for _, r in self.records() if r["stage"] == "measure" and "implant" in r["parents"]]
        return next(r for r in found if "defense" not in r["parents"])

    def of_role(self, role: str) -> str:
        """The key of a parent of that trial."""
        return str(self.measured()["parents"][role])

    def artifact(self, role: str) -> Path:
        return self.root / "artifacts" / f"{self.of_role(role)}.safetensors"

    def tensors(self, role: str, change: Callable[[dict[str, Tensor]], object]) -> None:
        """Change the tensors of an artifact; the table that `change` gets is what is stored."""
        path = self.artifact(role)
        held = {name: value.clone() for name, value in load_file(path).items()}
        change(held)
        save_file({name: value.contiguous() for name, value in held.items()}, path)
        self.resealed(path)

    def resealed(self, path: Path) -> None:
        """Let every record name the checksum that an artifact's file has now."""
        record_path = self.root / "records" / f"{path.stem}.json"
        record = json.loads(record_path.read_bytes())
        before, after = record["artifact"]["sha256"], sha256(path)
        record["artifact"] = {"sha256": after, "bytes": path.stat().st_size}
        self.put(record_path, record)
        for other, found in list(self.records()):
            if before in found.get("inputs", {}).values():
                found["inputs"] = {role: after if sum_ == before else sum_ for role, sum_ in found["inputs"].items()}
                self.put(other, found)

    def bundle(self, path: Path) -> Path:
        """A bundle of what the store holds, with its tensors as evidence, whatever they are."""
        lines, tensors = [], dict[str, Tensor]()
        with suppress(OSError):
            for one in sorted((self.root / "records").glob("*.json")):
                with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError):
                    record = json.loads(one.read_bytes()) if one.is_file() and not one.is_symlink() else {}
                    file = self.root / "artifacts" / f"{one.stem}.safetensors"
                    if record.get("artifact") and file.is_file() and not file.is_symlink():
                        held = {f"{one.stem}/{name}": value for name, value in load_file(file).items()}
                        record["artifact"]["tensors"] = checksums_of(tensors_of(save(held))[one.stem])
                        tensors |= held
                    lines.append(sealed(json.dumps(record).encode()))
        runs = [run for run in (self.root / "manifests").glob("*.json") if run.is_file() and not run.is_symlink()]
        files = {MANIFEST: runs[0].read_bytes() if runs else b"", RECORDS: gzip.compress(b"\n".join(lines))}
        files[EVIDENCE] = gzip.compress(save(tensors))
        index = Index(bundle=1, files={name: described(content) for name, content in files.items()})
        path.write_bytes(packed(files | {INDEX: encoded(index)}))
        return path

    def replaced(self, path: Path, what: str) -> None:
        """Something else in the place of a file or folder."""
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        match what:
            case "pipe":
                os.mkfifo(path)
            case "socket":
                here = Path.cwd()
                os.chdir(path.parent)  # the path of a socket is short
                with socket.socket(socket.AF_UNIX) as made:
                    made.bind(path.name)
                os.chdir(here)
            case "device":
                path.symlink_to("/dev/zero")
            case "terminal":
                path.symlink_to("/dev/tty")
            case "folder":
                path.mkdir()
            case "ring":
                path.symlink_to(path.name)
            case "pipe behind a link":
                pipe = self.root / "pipe"
                os.mkfifo(pipe)
                path.symlink_to(pipe)
            case "nothing":
                pass
            case "empty":
                path.write_bytes(b"")
            case "text":
                path.write_text("hello\n")


HOSTILE: dict[str, Row] = {"honest": lambda store: None}
PLACES: dict[str, Callable[[Stranger], Path]] = {
    "measured": lambda store: store.root / "records" / f"{store.measured()['key']}.json",
    "record of the data": lambda store: store.root / "records" / f"{store.of_role('load')}.json",
    "data": lambda store: store.artifact("load"),
    "split": lambda store: store.artifact("split"),
    "attacked model": lambda store: store.artifact("implant"),
    "codes": lambda store: store.artifact("measured.benign"),
    "triggered codes": lambda store: store.artifact("measured.triggered"),
    "manifest": lambda store: next(iter((store.root / "manifests").glob("*.json"))),
    "store.json": lambda store: store.root / "store.json",
    "records": lambda store: store.root / "records",
    "artifacts": lambda store: store.root / "artifacts",
    "manifests": lambda store: store.root / "manifests",
}  # fmt: skip
KINDS = ("pipe", "socket", "device", "terminal", "folder", "ring", "pipe behind a link", "nothing", "empty", "text")
FOLDERS = {"records", "artifacts", "manifests"}


def _placed(place: str, what: str) -> Row:
    return lambda store: store.replaced(PLACES[place](store), what)


for _place in PLACES:
    for _what in KINDS:
        if _place not in FOLDERS or _what in {"pipe", "text", "nothing", "ring"}:
            HOSTILE[f"{_place}: {_what}"] = _placed(_place, _what)

# Texts of components, suites, classes and hosts

TEXTS = {
    "control": "x\x1b]0;owned\x07\x1b[31m\r\n\t\x00y",
    "reversed": "x\u202egnp.y\u2066",
    "formula": "=cmd|' /C calc'!A0",
    "formula behind blanks": " \t\r\n=1+1",
    "formula after a separator": 'x,"=1+1',
    "wide formula": "\uff1d1+1",  # spreadsheets of East Asia read this as =
    "unseen": "bad\u200bnets",
    "look-alike": "b\u0430dnets",  # a Cyrillic letter
    "combining": "a" + "\u0301" * 500,
    "tags": "x\U000e0041\U000e0042",
    "empty": "",
    "long": "a" * 30_000,
    "brackets": "x(" * 2000,
    "markup": "</script><img src=x onerror=alert(1)>[red]x[/red]$\\frac$",
    "surrogate": "x\ud800",
}  # fmt: skip


def _names(text: str) -> Row:
    """Every component, target, suite and reason, and every word of a record, ends with the text."""

    def change(store: Stranger) -> None:
        def component(one: dict[str, Any]) -> None:
            if one["name"] != "none":
                one["name"] += text

        def run(found: dict[str, Any]) -> None:
            found["suites"] = [f"{name}{text}" for name in found["suites"]]
            found["descriptions"] = {f"{name}{text}": f"x{text}" for name in found["descriptions"]}
            for line in found["trials"]:
                line["trial"]["target"] = [f"{name}{text}" for name in line["trial"]["target"]]
                line["trial"]["training"] = {
                    f"{name}{text}": value for name, value in line["trial"]["training"].items()
                }

        def record(found: dict[str, Any]) -> None:
            found["label"] += text
            found["cost"]["host"] += text
            found["provenance"]["processor"] = found["provenance"].get("processor", "") + text
            if found["stage"] == "load":
                found["meta"]["classes"] = [f"{name}{text}" for name in found["meta"]["classes"]]
            if "target" in found["spec"]:
                found["spec"]["target"] = [f"{name}{text}" for name in found["spec"]["target"]]

        store.components(component)
        store.each_run(run)
        store.each_record(record)

    return change


def _whole_names(text: str) -> Row:
    """The text is the whole name of the attacked trials' attack and of a defense."""

    def change(one: dict[str, Any]) -> None:
        if one["name"] in {"badnets", "fine_pruning", "strip"}:
            one["name"], one["given"] = text, {}

    return lambda store: store.components(change)


for _name, _text in TEXTS.items():
    HOSTILE[f"names that end: {_name}"] = _names(_text)
    HOSTILE[f"names that are: {_name}"] = _whole_names(_text)
for _name in ("attack", "t-mAP", "gain", "cells", "key", "board", "none", "value", "metric"):
    HOSTILE[f"defense named like a column: {_name}"] = _whole_names(_name)


def _parameters(store: Stranger) -> None:
    """Names and values of parameters, and what defenses noted."""
    store.components(lambda one: one["given"].update({"=1+1": "=2", "\x1b[31m": ["\n"], "p": {"deep": [None]}}))
    store.each_record(lambda record: record["meta"].update(notes={"=1\x1b": 1e308, "": True}))


HOSTILE["parameters"] = _parameters

# Runs


def _runs(**given: Any) -> Row:
    return lambda store: store.each_run(lambda run: run.update(given))


def _trials(change: Callable[[dict[str, Any]], object]) -> Row:
    return lambda store: store.each_run(lambda run: [change(line) for line in run["trials"]])


HOSTILE |= {
    "a run without trials": _runs(trials=[]),
    "a run of suites without a name": _runs(suites=[""]),
    "a run of the year 9900": _runs(started=2.5e11),
    "a command": _runs(command="python -m bench run '\x1b[31m; rm -rf ~' \n=1"),
    "texts of suites": _runs(texts={"\x1b[31m": "x" * LONG}),
    "skipped trials": _trials(lambda line: line.update(key=None, skipped="=1\x1b[31m\nno")),
    "nothing has run": _trials(lambda line: line.update(key="f" * 32)),
    "one key for all": lambda store: _trials(lambda line: line.update(key=store.measured()["key"]))(store),
    "a trial of a stage": lambda store: _trials(lambda line: line.update(key=store.of_role("load")))(store),
    "huge seeds": _trials(lambda line: line["trial"].update(seed=2**63 - 1, surrogate_seed=-(2**63))),
    "bits that codes have not": _trials(lambda line: line["trial"].update(bits=4096)),
    "one bit": _trials(lambda line: line["trial"].update(bits=1)),
    "many labels": _trials(lambda line: line["trial"].update(target=[str(i) for i in range(2000)])),
    "equal trials": lambda store: store.each_run(lambda run: run.update(trials=[run["trials"][-1]] * 50)),
    "kinds of defenses": _trials(lambda line: line.update(defense_kind="model_detector", access=None)),
    "trained otherwise": _trials(lambda line: line["trial"].update(training={"lr": None, "x": [{}], "=1\x1b": "\n"})),
    "components of one name": lambda store: store.components(lambda one: one.update(name="none", given={})),
    "parameters of other types": lambda store: store.components(
        lambda one: one.update(params=dict(enumerate([None, [], {}, 1e308])), given={"poisons": "many"})
    ),
}  # fmt: skip

# Records


def _measured(**given: Any) -> Row:
    return lambda store: store.each_record(lambda record: record.update(given), "measure")


def _metrics(value: Any) -> Row:
    def change(record: dict[str, Any]) -> None:
        record["metrics"] = {
            name: held if isinstance(held, dict) else value for name, held in record["metrics"].items()
        }

    return lambda store: store.each_record(change, "measure")


def _parents(change: Callable[[dict[str, str], str], object]) -> Row:
    return lambda store: store.each_record(lambda record: change(record["parents"], record["key"]))


def _classes(change: Callable[[list[str]], list[str]]) -> Row:
    return lambda store: store.each_record(
        lambda record: record["meta"].update(classes=change(record["meta"]["classes"])), "load"
    )


def _swapped(parents: dict[str, str], key: str) -> None:
    keys = [*parents.values()]
    parents.update(dict(zip(parents, keys[1:] + keys[:1], strict=True)))


def _scores(record: dict[str, Any]) -> None:
    if "detectors" in record["metrics"]:
        worth = {"auroc": 1e308, "tpr_1": "x", "\x1b[31m": None}
        record["metrics"]["detectors"] = {"headline": "gone", "scores": {"=1\x1b[31m": worth, "": {}, "attack": worth}}


HOSTILE |= {
    "no class": _classes(lambda names: []),
    "a class fewer": _classes(lambda names: names[:-1]),
    "a class more": _classes(lambda names: [*names, "more"]),
    "too many classes": _classes(lambda names: [str(i) for i in range(LONG)]),
    "equal classes": _classes(lambda names: [names[3]] * len(names)),
    "classes of other names": _classes(lambda names: [f"\x1b[31m{name}" for name in names]),
    "no metrics": _measured(metrics={}),
    "metrics: huge": _metrics(1.7e308),
    "metrics: least": _metrics(-1.7e308),
    "metrics: tiny": _metrics(5e-324),
    "metrics: integers": _metrics(NEVER),
    "metrics: text": _metrics("=1\x1b[31m"),
    "metrics: none": _metrics(None),
    "metrics: true": _metrics(True),
    "metrics of nobody": lambda store: store.each_record(lambda r: r["metrics"].update({"=x\x1b": 1, "": "y"}), "measure"),
    "scores": lambda store: store.each_record(_scores, "measure"),
    "cut off late": _measured(meta={"protocol": {"name": "=1\x1b", "version": "\n", "cutoff": NEVER, "sizes": {"=q": -NEVER}}}),
    "long ago": lambda store: store.each_record(lambda r: r["cost"].update(seconds=1e12, started=2.5e11)),
    "no cost": lambda store: store.each_record(lambda r: r.update(cost=None)),
    "no parents": _parents(lambda parents, key: parents.clear()),
    "its own parent": _parents(lambda parents, key: parents.update(dict.fromkeys(parents, key))),
    "parents of other roles": _parents(_swapped),
    "parents that are no keys": _parents(lambda parents, key: parents.update(dict.fromkeys(parents, "../../x"))),
    "parents of strange roles": _parents(lambda parents, key: parents.update({"a.b.c": key, "surrogates.99999999": key, "": key, "control": key})),
    "other stages": lambda store: store.each_record(lambda r: r.update(stage={"measure": "load", "load": "measure"}.get(r["stage"], "=x\x1b"))),
    "all failed": lambda store: store.each_record(lambda r: r.update(status="failed", reason="=1\x1b[31m\nx", log="\x1b[31m\n" * 999, cause=r["key"])),
    "a failure that others caused": lambda store: store.each_record(lambda r: r.update(status="killed", cause="f" * 32)),
    "specs of others": lambda store: store.each_record(lambda r: r.update(spec={"target": [1, None, {}], "attack": {"name": "x", "params": {"\x1b": "=1"}}, "bits": "many"})),
    "no spec": lambda store: store.each_record(lambda r: r.update(spec={})),
    "no artifact on record": lambda store: store.each_record(lambda r: r.update(artifact=None)),
    "counts of others": lambda store: store.each_record(lambda r: r["meta"].update(poisons=NEVER, kind="model_detector", classes=r["meta"].get("classes", []))),
}  # fmt: skip

# Artifacts. The names of their tensors are those of the honest store, whatever stage they belong to.

ROLES = ("load", "split", "implant", "measured.benign", "measured.triggered", "control.benign", "control.triggered")
SHAPES: dict[str, Callable[[Tensor], Tensor]] = {
    "shorter": lambda value: value[: len(value) // 2],
    "longer": lambda value: torch.cat([value, value[-1:].repeat(3, *[1] * (value.dim() - 1))]),
    "empty": lambda value: value[:0],
    "one": lambda value: value[:1],
    "flat": lambda value: value.flatten(),
    "deeper": lambda value: value[None],
    "narrower": lambda value: value[..., :1],
    "far": lambda value: ~value if value.dtype == torch.bool else torch.full_like(value, 255 if value.dtype == torch.uint8 else 2**30),
    "floats": lambda value: value.to(torch.float16),
    "no numbers": lambda value: torch.full_like(value, torch.nan) if value.is_floating_point() else value,
    "complex": lambda value: value.to(torch.complex64) if value.dtype != torch.bool else value,
}  # fmt: skip


def _shaped(role: str, how: str) -> Row:
    def change(held: dict[str, Tensor]) -> None:
        for name, value in held.items():
            if value.dim():
                held[name] = SHAPES[how](value)

    return lambda store: store.tensors(role, change)


def _one_tensor(role: str, name: str, change: Callable[[Tensor], Tensor]) -> Row:
    def changed(held: dict[str, Tensor]) -> None:
        assert name in held, [*held]
        held[name] = change(held[name])

    return lambda store: store.tensors(role, changed)


def _wide(value: Tensor) -> Tensor:
    """Pictures of one line, longer than a drawing may be."""
    return torch.zeros(len(value), 1, 1, 70_000, dtype=torch.uint8)


def _pictures(change: Callable[[Tensor], Tensor]) -> Row:
    def changed(held: dict[str, Tensor]) -> None:
        for name in ("gallery_clean", "gallery_triggered"):
            held[name] = change(held[name])

    return lambda store: store.tensors("implant", changed)


for _role in ROLES:
    for _how in SHAPES:
        HOSTILE[f"{_role}: {_how}"] = _shaped(_role, _how)
HOSTILE |= {
    "pictures: wide": _pictures(_wide),
    "pictures: high": _pictures(lambda value: _wide(value).transpose(2, 3)),
    "pictures: one pixel": _pictures(lambda value: value[..., :1, :1]),
    "pictures: no channel": _pictures(lambda value: value[:, :0]),
    "pictures: forty channels": _pictures(lambda value: value.expand(-1, 40, -1, -1)),
    "pictures: many": _pictures(lambda value: value[:1].expand(20_000, -1, -1, -1)),
    "labels of no class": _one_tensor("load", "labels", lambda value: value[:, :0]),
    "labels of a class more": _one_tensor("load", "labels", lambda value: torch.cat([value, value[:, :1]], 1)),
    "positions before the first": _one_tensor("measured.triggered", "positions", lambda value: -1 - value),
    "names of tensors": lambda store: store.tensors("implant", lambda held: held.update({"\x1b[31m": torch.zeros(1), "x" * LONG: torch.zeros(1)})),
    "other tensors": lambda store: store.tensors("measured.benign", lambda held: (held.clear(), held.update(x=torch.zeros(1)))),
}  # fmt: skip
