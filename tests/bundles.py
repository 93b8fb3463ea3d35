"""Bundles for tests: of small runs, and changed by people who write every checksum anew, or none."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
from safetensors.torch import load, save

from bench.engine.bundle import EVIDENCE, INDEX, RECORDS, checksums_of, packed, tensors_of
from bench.engine.record import Git
from bench.engine.store import Store
from tests.fuzz.targets import sealed
from tests.stores import changed

COMMIT = {"commit": "0" * 40, "dirty": False}
Change = Callable[["Forger"], None]


def committed(store: Store) -> Store:
    """The store, as if its stages had run in a checkout without changes."""
    for record in list(store.records()):
        store.write_record(changed(record, provenance={**record.provenance.as_json(), "git": COMMIT}))
    for run in store.runs():
        about = run.provenance.model_copy(update={"git": Git.model_validate(COMMIT)})
        store.write_run(run.model_copy(update={"provenance": about}))
    return store


class Forger:
    """The files of a bundle in the hands of somebody who changes them."""

    def __init__(self, bundle: Path) -> None:
        with ZipFile(bundle) as archive:
            self.files = {name: archive.read(name) for name in archive.namelist()}

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in gzip.decompress(self.files[RECORDS]).splitlines()]

    def write(self, records: list[dict[str, Any]]) -> None:
        """Other records, each with its right checksum."""
        self.files[RECORDS] = gzip.compress(b"\n".join(sealed(json.dumps(one).encode()) for one in records))

    def each(self, change: Callable[[dict[str, Any]], object]) -> None:
        held = self.records
        for record in held:
            change(record)
        self.write(held)

    def measured(self) -> dict[str, Any]:
        """The record of an attacked, undefended trial."""
        found = [one for one in self.records if one["stage"] == "measure" and "implant" in one["parents"]]
        return next(one for one in found if "defense" not in one["parents"])

    def key_of(self, role: str) -> str:
        """The key of what this trial read."""
        return str(self.measured()["parents"][role])

    @property
    def evidence(self) -> dict[str, torch.Tensor]:
        return load(gzip.decompress(self.files[EVIDENCE]))

    def tensors(self, role: str, change: Callable[[torch.Tensor], torch.Tensor | None], *, resealed: bool) -> None:
        """Change every tensor of an artifact; None: leave it out. resealed: with its checksums in the record."""
        key, held = self.key_of(role), self.evidence
        for name in [name for name in held if name.startswith(f"{key}/")]:
            if (made := change(held.pop(name))) is not None:
                held[name] = made.contiguous()
        content = save(held)
        self.files[EVIDENCE] = gzip.compress(content)
        if resealed:
            sums = checksums_of(tensors_of(content).get(key, {}))
            self.each(lambda record: record["artifact"].update(tensors=sums) if record["key"] == key else None)

    def reseal(self) -> None:
        """An index that lists the files as they are now."""
        about = {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for name, content in self.files.items()
            if name != INDEX
        }
        index = json.loads(self.files[INDEX])
        self.files[INDEX] = sealed(json.dumps({**index, "files": about}).encode())

    def save(self, path: Path) -> Path:
        path.write_bytes(packed(self.files))
        return path


def _number(bundle: Forger) -> None:
    key = bundle.measured()["key"]
    bundle.each(lambda one: one["metrics"].update(t_map=one["metrics"]["t_map"] - 0.25) if one["key"] == key else None)


def _swapped(bundle: Forger) -> None:
    """Two trials exchange their metrics."""
    mine, held = bundle.measured(), bundle.records
    other = next(
        one for one in held if one["stage"] == "measure" and one["metrics"]["t_map"] != mine["metrics"]["t_map"]
    )
    swap = {mine["key"]: other["metrics"], other["key"]: mine["metrics"]}
    bundle.write([{**one, "metrics": swap.get(one["key"], one["metrics"])} for one in held])


def _exchanged(bundle: Forger) -> None:
    """Two trials exchange their keys, so that the run calls each by the name of the other."""
    mine, held = bundle.measured(), bundle.records
    other = next(one for one in held if one["stage"] == "measure" and "implant" not in one["parents"])
    swap = {mine["key"]: other["key"], other["key"]: mine["key"]}
    bundle.write([{**one, "key": swap.get(one["key"], one["key"])} for one in held])


def _relinked(bundle: Forger) -> None:
    """A trial takes the triggered codes of another attack as its own."""
    mine = bundle.measured()
    other = next(
        one for one in bundle.records
        if one["stage"] == "measure" and one["parents"]["measured.triggered"] != mine["parents"]["measured.triggered"]
    )  # fmt: skip
    sums = other["inputs"]["measured.triggered"]

    def change(record: dict[str, Any]) -> None:
        if record["key"] == mine["key"]:
            record["parents"]["measured.triggered"] = other["parents"]["measured.triggered"]
            record["inputs"]["measured.triggered"] = sums

    bundle.each(change)


def _trained(bundle: Forger) -> None:
    """The clean models were trained longer than the run says."""
    bundle.each(lambda one: one["spec"]["recipe"].update(epochs=500) if one["stage"] == "train" else None)


FORGED: dict[str, tuple[Change, str]] = {
    "control trained otherwise": (_trained, "trained was with 500"),
    "number changed": (_number, "t_map is"),
    "codes changed": (
        lambda one: one.tensors("measured.triggered", torch.zeros_like, resealed=False), "damaged or missing"),
    "codes and their checksums changed": (
        lambda one: one.tensors("measured.benign", torch.zeros_like, resealed=True), "computed again"),
    "labels and their checksums changed": (
        lambda one: one.tensors("load", lambda value: value.roll(1, -1), resealed=True), "computed again"),
    "mask and its checksum changed": (
        lambda one: one.tensors("implant", lambda value: ~value if value.dtype == torch.bool else value, resealed=True),
        "poisons, the mask"),
    "metrics swapped": (_swapped, "computed again"),
    "codes of another trial": (_relinked, "come from two models"),
    "keys swapped": (_exchanged, "the run calls its attack"),
    "codes missing": (lambda one: one.tensors("measured.benign", lambda _: None, resealed=False), "damaged or missing"),
    "codes missing, and not in the record": (
        lambda one: one.tensors("measured.triggered", lambda _: None, resealed=True), "cannot be computed again"),
}  # fmt: skip
"""What somebody changes who then writes every checksum anew, and a word of what `verify` says."""
