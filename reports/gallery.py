"""Pictures of attacks: clean and triggered queries, poisoned training images, and magnified differences."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int64, UInt8

from bench.api.errors import StoreError, UserError
from bench.api.untrusted import strip_controls
from bench.artifacts.inputs import ImplantInputs, MeasureInputs
from bench.engine.record import Record
from bench.engine.record_cache import RecordCache
from bench.engine.runs import LATEST
from bench.engine.store import Store
from reports.artifact_files import NO_PICTURES, evenly_spaced, opened
from reports.context import FIXED, listed
from reports.figures import suffix_of, write
from reports.frame import SETTING, read
from reports.image_grid import Block, Pair, paint
from reports.selection import NONE, groups
from reports.trial_details import SHORTEST, find, name_of
from reports.trial_texts import changes

COLUMNS = 8
LARGEST = 4096  # pixels of a side; data sets have up to 1024


@dataclass(frozen=True)
class Drawn:
    """The drawn attacks, and the attacks without pictures with their reasons."""

    blocks: tuple[Block, ...]
    without: tuple[str, ...]

    def __str__(self) -> str:
        titles = [block.title for block in self.blocks]
        count = f"{len(titles)} attack{'s' * (len(titles) > 1)}"
        poisons = sum(len(block.pairs) > 1 for block in self.blocks)
        words = f"{count} ({listed(pd.Series(titles))}): clean queries, triggered queries, differences"
        words += "; poisoned training images" if poisons else ""
        words += f", of {poisons} of them" if 0 < poisons < len(titles) else ""
        return words + (f". Without a picture: {'; '.join(self.without)}" if self.without else "")


def draw(store: Store, path: Path, *, key: str | None = None, run: str = LATEST, suite: str | None = None) -> Drawn:
    """Draw one trial, or every attack of a run, into a file whose suffix names the format."""
    cache = RecordCache(store)
    if key is None:
        return draw_trials(cache, read(store, suite=suite, run=run).trials, path)
    found = Drawn((_of_trial(cache, key),), ())
    write(path, paint(found.blocks, suffix_of(path)))
    return found


def draw_trials(cache: RecordCache, trials: pd.DataFrame, path: Path) -> Drawn:
    """Draw every attack of the trials into a file."""
    suffix = suffix_of(path)
    found = of_trials(cache, trials)
    if not found.blocks:
        why = f" ({'; '.join(found.without)})" if found.without else ": it has only clean models"
        raise UserError(f"no attack of this run has pictures{why}")
    write(path, paint(found.blocks, suffix))
    return found


def _of_trial(cache: RecordCache, prefix: str) -> Block:
    key, planned, _ = find(cache.store, prefix)
    record = cache.record(key)
    what = f"trial {key[:SHORTEST]} ({name_of(planned.trial)})" if planned is not None else f"stage {key[:SHORTEST]}"
    if record is None:
        raise UserError(f"{what} has not been run yet", "`python -m bench run` continues")
    is_attack = record.stage == ImplantInputs.stage
    if not is_attack and MeasureInputs.of(record.parents).implant is None:
        raise UserError(f"{what} holds no attack, so there is no picture", "give the key of an attacked trial")
    implant = record if is_attack else cache.implant(record)
    if implant is None or _lost(cache, implant):
        raise UserError(f"{what} has no picture: {_lost(cache, implant)}", "run it again")
    if planned is None:
        return _block(cache, implant, implant.label, "")
    setting = _setting({**planned.trial.axes(), "changes": changes(planned.trial.training)})
    return _block(cache, implant, planned.trial.attack.label, setting)


def of_trials(cache: RecordCache, trials: pd.DataFrame) -> Drawn:
    """One block per attack and setting: the first target and seed that has pictures; equal pictures are drawn once."""
    blocks: dict[str, Block] = {}
    again: dict[str, list[str]] = {}
    without = []
    for _, part in groups(trials, [*SETTING, "attack"]):
        rows = [dict(row) for _, row in part.iterrows()]
        records = [cache.record(row["key"]) if row["key"] else None for row in rows]
        if any(record is not None and MeasureInputs.of(record.parents).implant is None for record in records):
            continue  # a trial without attack
        label, why = str(rows[0]["attack"]), "not run"
        for row, record in zip(rows, records, strict=True):
            implant = cache.implant(record)
            try:
                if why := _lost(cache, implant):
                    continue
                assert implant is not None
                block = _block(cache, implant, label, _setting(row))
            except StoreError as error:  # one damaged file must not stop the other pictures
                why = str(error)
                continue
            place = _digest(block)
            if place in blocks:
                again[place].append(f"{label}, {block.about[0]}")
            else:
                blocks[place], again[place] = block, []
            break
        if why and label != NONE:
            without.append(f"{label}: {rows[0]['reason'] or why}")
    return Drawn(
        tuple(replace(block, about=(*block.about, *_same(again[place]))) for place, block in blocks.items()),
        tuple(dict.fromkeys(without)),
    )


def _same(others: Sequence[str]) -> Iterator[str]:
    if others:
        more = f"; and {len(others) - 3} more" if others[3:] else ""
        yield f"The same pictures: {'; '.join(others[:3])}{more}"


def _lost(cache: RecordCache, implant: Record | None) -> str:
    """The reason why an attack has no pictures; "" if it has some."""
    if implant is None:
        return "its attack has not been run"
    if not implant.ok:
        return f"its attack {implant.status}: {implant.reason}"
    if not cache.store.artifact_path(implant.key).is_file():
        return "the file of its attacked model is missing"
    if implant.artifact is not None and implant.artifact.published:
        return NO_PICTURES
    with opened(cache, implant.key) as file:
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


def _some(file: Any, name: str) -> UInt8[np.ndarray, "n c h w"]:
    part = file.get_slice(name)
    return _at(part, evenly_spaced(part.get_shape()[0], COLUMNS))


def _at(part: Any, places: Int64[np.ndarray, " k"]) -> UInt8[np.ndarray, "k c h w"]:
    """The pictures at some places of a memory-mapped tensor."""
    return _checked(np.concatenate([part[place : place + 1] for place in places.tolist()]))


def _checked(found: np.ndarray) -> UInt8[np.ndarray, "n c h w"]:
    if found.dtype != np.uint8 or found.ndim != 4 or not found.size or max(found.shape[2:]) > LARGEST:
        raise ValueError(f"no pictures: {found.dtype} {found.shape}")
    return found


def _block(cache: RecordCache, implant: Record, label: str, setting: str) -> Block:
    with opened(cache, implant.key) as file:
        before, after = (_some(file, f"gallery_{name}") for name in ("clean", "triggered"))
        stealth = _stealth(file, "stealth", before, after)
    pairs = [Pair(("clean", "triggered"), before, after)]
    about = [f"Triggered queries: {_means(stealth)}"]
    if (poisons := _poisons(cache, implant)) is not None:
        pair, count, stealth = poisons
        pairs.append(pair)
        about.append(f"{count:,} poisoned training image{'s' * (count > 1)}: {_means(stealth)}")
    return Block(strip_controls(label), tuple(strip_controls(line) for line in (setting, *about) if line), tuple(pairs))


def _poisons(cache: RecordCache, implant: Record) -> tuple[Pair, int, np.ndarray] | None:
    """Poisoned training images and their originals; None if there are none or the data set is not in the store."""
    inputs = ImplantInputs.of(implant.parents)
    load, split = inputs.load.key, inputs.split.key
    with opened(cache, implant.key) as file:
        if "poison_images" not in file.keys() or not file.get_slice("poison_images").get_shape()[0]:  # noqa: SIM118
            return None
        after: UInt8[np.ndarray, "n c h w"] = _some(file, "poison_images")
        mask: Bool[np.ndarray, " m"] = file.get_tensor("mask")
        stealth = _stealth(file, "poison_stealth", after, after)
    if not all(key and cache.store.artifact_path(key).is_file() for key in (load, split)):
        return None
    with opened(cache, split) as file:
        ids = file.get_tensor("train")[mask]
    with opened(cache, load) as file:
        before = _at(file.get_slice("images"), ids[evenly_spaced(len(ids), COLUMNS)])
        if before.shape != after.shape:
            raise ValueError(f"{before.shape} against {after.shape}")
    return Pair(("training image", "poisoned"), before, after, robust=True), int(mask.sum()), stealth


def _stealth(file: Any, name: str, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    found: np.ndarray = file.get_tensor(name)
    if found.ndim != 2 or found.shape[1] < 3 or before.shape != after.shape:
        raise ValueError(f"{found.shape} of {before.shape} and {after.shape}")
    return found


def _means(stealth: np.ndarray) -> str:
    """Mean L-inf, PSNR, area and contrast; an unchanged image has no PSNR and no contrast.

    SSIM, the third column, hardly sees a patch. Older artifacts have only three columns.
    """
    words = []
    forms = ("L-inf {:.3f}", "PSNR {:.1f} dB", "", "area {:.3f}", "contrast {:.3f}")
    for column, form in zip(stealth.T, forms, strict=False):
        finite = column[np.isfinite(column)]
        words += [form.format(float(finite.mean()))] if form and len(finite) else []
    return ", ".join(words) or "unchanged"
