"""What attacks look like: clean and triggered queries, poisoned training images, and magnified differences.

Drawn on one pair of axes whose unit is a pixel, with matplotlib's objects and not its global state. No picture is made
smaller; small ones are enlarged by a whole factor, pixel by pixel.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, UInt8
from safetensors import SafetensorError, safe_open

from bench.api.errors import StoreError, UserError
from bench.api.untrusted import strip_controls
from bench.artifacts.inputs import ImplantInputs, MeasureInputs
from bench.engine.record import Record
from bench.engine.record_cache import RecordCache
from bench.engine.runs import LATEST
from bench.engine.store import Store
from reports._image_grid import Block, Pair, paint, suffix_of, write
from reports.context import FIXED, listed
from reports.frame import SETTING, changes, groups, read
from reports.trial_details import SHORTEST, find, name_of

COLUMNS = 8


@dataclass(frozen=True)
class Drawn:
    """What is in a file, and which attacks are not, each with the reason."""

    blocks: tuple[Block, ...]
    without: tuple[str, ...]

    def __str__(self) -> str:
        titles = [block.title for block in self.blocks]
        count = f"{len(titles)} attack{'s' * (len(titles) > 1)}"
        poisons = sum(len(block.pairs) > 1 for block in self.blocks)
        words = f"{count} ({listed(pd.Series(titles))}): clean and triggered queries and what differs"
        words += "; poisoned training images and what differs" if poisons else ""
        words += f", of {poisons} of them" if 0 < poisons < len(titles) else ""
        return words + (f". Without a picture: {'; '.join(self.without)}" if self.without else "")


def draw(store: Store, path: Path, *, key: str | None = None, run: str = LATEST, suite: str | None = None) -> Drawn:
    """Draw one trial, or every attack of a run, into a file whose suffix names the format."""
    suffix = suffix_of(path)
    if key is not None:
        found = Drawn((_of_trial(store, key),), ())
    else:
        found = of_cells(store, read(store, suite=suite, run=run).trials)
        if not found.blocks:
            why = f" ({'; '.join(found.without)})" if found.without else ": it holds none but clean models"
            raise UserError(f"no attack of this run has pictures{why}")
    write(path, paint(found.blocks, suffix))
    return found


# Which pictures


def _of_trial(store: Store, prefix: str) -> Block:
    key, planned, _ = find(store, prefix)
    record_cache = RecordCache(store)
    record = record_cache.record(key)
    what = f"trial {key[:SHORTEST]} ({name_of(planned.trial)})" if planned is not None else f"stage {key[:SHORTEST]}"
    if record is None:
        raise UserError(f"{what} has not been run yet: `python -m bench run` continues")
    is_attack = record.stage == ImplantInputs.stage
    if not is_attack and MeasureInputs.of(record.parents).implant is None:
        raise UserError(f"{what} holds no attack, so there is no picture: give the key of an attacked trial")
    implant = record if is_attack else record_cache.implant(record)
    if implant is None or _lost(store, implant):
        raise UserError(f"{what} has no picture: {_lost(store, implant)}; run it again")
    if planned is None:
        return _block(store, implant, implant.label, "")
    setting = _setting({**planned.trial.axes(), "changes": changes(planned.trial.training)})
    return _block(store, implant, planned.trial.attack.label, setting)


def of_cells(store: Store, trials: pd.DataFrame) -> Drawn:
    """One block per attack and setting: the first target and seed that has pictures; equal pictures are drawn once."""
    record_cache = RecordCache(store)
    blocks: dict[str, Block] = {}
    again: dict[str, list[str]] = {}
    without = []
    for _, part in groups(trials, [*SETTING, "attack"]):
        rows = [dict(row) for _, row in part.iterrows()]
        records = [record_cache.record(row["key"]) if row["key"] else None for row in rows]
        if any(record is not None and MeasureInputs.of(record.parents).implant is None for record in records):
            continue  # it attacks nothing
        label, why = str(rows[0]["attack"]), "not run"
        for row, record in zip(rows, records, strict=True):
            implant = record_cache.implant(record)
            try:
                if why := _lost(store, implant):
                    continue
                assert implant is not None
                block = _block(store, implant, label, _setting(row))
            except StoreError as error:  # one damaged file does not take the other pictures along
                why = str(error)
                continue
            place = _digest(block)
            if place in blocks:
                again[place].append(f"{label}, {block.about[0]}")
            else:
                blocks[place], again[place] = block, []
            break
        if why and label != "none":
            without.append(f"{label}: {rows[0]['reason'] or why}")
    return Drawn(
        tuple(replace(block, about=(*block.about, *_same(again[place]))) for place, block in blocks.items()),
        tuple(dict.fromkeys(without)),
    )


def _same(others: Sequence[str]) -> Iterator[str]:
    if others:
        more = f"; and {len(others) - 3} more" if others[3:] else ""
        yield f"The same pictures: {'; '.join(others[:3])}{more}"


def _lost(store: Store, implant: Record | None) -> str:
    """Why there are no pictures of an attack; nothing where there are."""
    if implant is None:
        return "it has not been attacked yet"
    if not implant.ok:
        return f"its attack {implant.status}: {implant.reason}"
    if not store.artifact_path(implant.key).is_file():
        return "the file of its attacked model is gone"
    with opened(store, implant.key) as file:
        if "gallery_clean" not in file.keys() or 0 in file.get_slice("gallery_clean").get_shape():  # noqa: SIM118
            return "no query could carry its trigger"
    return ""


def _setting(axes: Mapping[str, Any]) -> str:
    words = [str(axes[name]) for name in ("dataset", "backbone", "method")]
    words += [f"{axes['bits']} bits", f"target {axes['target']}", f"seed {axes['seed']}"]
    words += [f"{name} {axes[name]}" for name, usual in FIXED.items() if axes.get(name, "") not in {usual, ""}]
    words += [f"training: {axes['changes']}"] if axes.get("changes") else []
    return " · ".join(words)


def _digest(block: Block) -> str:
    whole = hashlib.sha256()
    for pair in block.pairs:
        for pictures in (pair.before, pair.after):
            whole.update(str(pictures.shape).encode() + np.ascontiguousarray(pictures).tobytes())
    return whole.hexdigest()


# Reading


_MISFITS = (LookupError, ValueError, TypeError, ArithmeticError, RuntimeError)


@contextmanager
def opened(store: Store, key: str) -> Iterator[Any]:
    """An artifact whose tensors are read one by one, as arrays; never one that is not what its record names."""
    path = store.artifact_path(key)
    damaged = StoreError(
        f"the artifact {key[:SHORTEST]} is damaged: `python -m bench verify --set-aside`, then run its suite again,"
        " which replaces it"
    )
    if not path.is_file() or not _whole(store, key, path.stat().st_mtime_ns):
        raise damaged
    try:
        with safe_open(path, framework="np") as file:
            yield file
    except (SafetensorError, OSError):
        raise damaged from None
    except _MISFITS as error:
        raise StoreError(
            f"the artifact {key[:SHORTEST]} does not hold what its stage writes ({type(error).__name__}): see"
            " `python -m bench verify`, or remove it and run its suite again"
        ) from error


@cache
def _whole(store: Store, key: str, mtime: int) -> bool:
    """Whether an artifact has its checksum; data sets are read again for every attack."""
    del mtime
    record = store.record(key)
    return record is not None and store.whole(record)


def _evenly_spaced(count: int) -> list[int]:
    """Up to COLUMNS of so many items, at equal distances: data sets are in the order of their classes."""
    return [round(place) for place in np.linspace(0, count - 1, min(COLUMNS, count)).tolist()]


def _some(file: Any, name: str) -> UInt8[np.ndarray, "n c h w"]:
    part = file.get_slice(name)  # memory-mapped: only these few are read
    return _checked(np.concatenate([part[place : place + 1] for place in _evenly_spaced(part.get_shape()[0])]))


def _checked(found: np.ndarray) -> UInt8[np.ndarray, "n c h w"]:
    if found.dtype != np.uint8 or found.ndim != 4 or not found.size:
        raise ValueError(f"no pictures: {found.dtype} {found.shape}")
    return found


def _block(store: Store, implant: Record, label: str, setting: str) -> Block:
    with opened(store, implant.key) as file:
        before, after = (_some(file, f"gallery_{name}") for name in ("clean", "triggered"))
        stealth = _stealth(file, "stealth", before, after)
    pairs = [Pair(("clean", "triggered"), before, after)]
    about = [f"Triggered queries: {_means(stealth)}"]
    if (poisons := _poisons(store, implant)) is not None:
        pair, count, stealth = poisons
        pairs.append(pair)
        about.append(f"{count:,} poisoned training image{'s' * (count > 1)}: {_means(stealth)}")
    return Block(strip_controls(label), tuple(strip_controls(line) for line in (setting, *about) if line), tuple(pairs))


def _poisons(store: Store, implant: Record) -> tuple[Pair, int, np.ndarray] | None:
    """Poisoned training images beside what they were; nothing where an attack leaves none, or the data are gone."""
    inputs = ImplantInputs.of(implant.parents)
    load, split = inputs.load.key, inputs.split.key
    with opened(store, implant.key) as file:
        if "poison_images" not in file.keys() or not file.get_slice("poison_images").get_shape()[0]:  # noqa: SIM118
            return None
        after: UInt8[np.ndarray, "n c h w"] = _some(file, "poison_images")
        mask: Bool[np.ndarray, " m"] = file.get_tensor("mask")
        stealth = _stealth(file, "poison_stealth", after, after)
    if not all(key and store.artifact_path(key).is_file() for key in (load, split)):
        return None
    with opened(store, split) as file:
        ids = file.get_tensor("train")[mask]
    with opened(store, load) as file:
        images = file.get_slice("images")
        before = _checked(np.concatenate([images[int(ids[i]) : int(ids[i]) + 1] for i in _evenly_spaced(len(ids))]))
        if before.shape != after.shape:
            raise ValueError(f"{before.shape} against {after.shape}")
    return Pair(("training image", "poisoned"), before, after, robust=True), int(mask.sum()), stealth


def _stealth(file: Any, name: str, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    found: np.ndarray = file.get_tensor(name)
    if found.ndim != 2 or found.shape[1] != 3 or before.shape != after.shape:
        raise ValueError(f"{found.shape} of {before.shape} and {after.shape}")
    return found


def _means(stealth: np.ndarray) -> str:
    """L-inf, PSNR and SSIM as boards show them: an unchanged image has no PSNR."""
    words = []
    for column, form in zip(stealth.T, ("L-inf {:.3f}", "PSNR {:.1f} dB", "SSIM {:.3f}"), strict=True):
        finite = column[np.isfinite(column)]
        words += [form.format(float(finite.mean()))] if len(finite) else []
    return ", ".join(words) or "unchanged"
