"""Pictures of the HTML report: what attacks look like, and where codes lie."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int8, Int64, UInt8

from bench.api.errors import StoreError
from bench.artifacts.inputs import MeasureInputs, SystemInputs
from bench.engine.record import Record
from bench.engine.record_cache import RecordCache
from bench.engine.store import Store
from hashing.codes import PackedCodes
from reports import gallery
from reports._charts import FAINT, INK, Chart, Short, chart
from reports._image_grid import Block, coloured
from reports.context import contexts
from reports.frame import groups

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 5  # pictures of a kind: a page shows fewer than a gallery file
SMALL = 64  # pixels: below it pictures are stored as they are, above it compressed
ITEMS = {"others": 200, "target": 80, "queries": 80}  # points of a map, at equal distances in the data
Codes = Int8[np.ndarray, "_ b"]
Plane = Float[np.ndarray, "_ 2"]
MAPPED = (
    "Principal components of the database's codes, each model in its own plane: grey other classes, blue the target's"
    " class, green queries, orange the same with the trigger. A sample of each; the larger a mark, the more codes are"
    " equal."
)


@dataclass(frozen=True)
class Strip:
    """A row of pictures as one image. pixels: width and height of the image as stored; factor: enlarged on the page."""

    name: str
    source: str
    pixels: tuple[int, int]
    factor: int


def strips(block: Block) -> Iterator[Strip]:
    """Clean and triggered queries, poisoned training images, and magnified differences."""
    for pair in block.pairs:
        change, words = pair.difference()
        for pictures, name in ((pair.before, pair.names[0]), (pair.after, pair.names[1]), (change, words)):
            yield _strip(pictures[:SHOWN], " ".join(name.split()))


def _strip(pictures: UInt8[np.ndarray, "n c h w"], name: str) -> Strip:
    from PIL import Image

    _, _, height, width = pictures.shape
    gap = max(1, width // 48)  # transparent, whatever the page's colour
    row = np.zeros((height, len(pictures) * (width + gap) - gap, 4), np.uint8)
    for i, picture in enumerate(pictures):
        row[:, i * (width + gap) : i * (width + gap) + width] = np.dstack(
            [coloured(picture), np.full((height, width), 255, np.uint8)]
        )
    buffer = io.BytesIO()
    small = max(height, width) <= SMALL
    if small:
        Image.fromarray(row).save(buffer, "PNG", optimize=True)
    else:
        Image.fromarray(row).save(buffer, "WEBP", quality=80, method=6)
    kind = "png" if small else "webp"
    source = f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return Strip(name, source, (row.shape[1], row.shape[0]), max(1, round(96 / max(height, width))))


# Code maps


@dataclass(frozen=True)
class Map:
    """Codes of one model (±1). others, target: database items without and with the target's label."""

    others: Int8[np.ndarray, "m b"]
    target: Int8[np.ndarray, "k b"]
    benign: Int8[np.ndarray, "q b"]
    triggered: Int8[np.ndarray, "q b"]


def of_codes(
    trials: pd.DataFrame, store: Store, record_cache: RecordCache, short: Short, mixed: bool
) -> Iterator[Chart]:
    """A map per attack and setting, of the first target and seed whose codes are here: clean model and attacked one."""
    for context in contexts(trials[(trials["defense"] == "none") & (trials["attack"] != "none")], mixed):
        for (attack,), part in groups(context.done, ["attack"]):
            for _, row in part.iterrows():
                maps = _maps(record_cache.record(row["key"]), store, int(row["bits"]))
                if maps is not None:
                    about = f"Target {row['target']}, seed {row['seed']}. {MAPPED}"
                    yield chart(f"Codes · {short(attack)}", short(context.title), about, partial(_drawn, maps))
                    break


def _maps(record: Record | None, store: Store, bits: int) -> dict[str, Map] | None:
    """Both models' codes; None where an artifact has gone or is damaged."""
    if record is None:
        return None
    try:
        inputs = MeasureInputs.of(record.parents)
        clean, attacked = (_map(inputs, one, store, record.target, bits) for one in (inputs.control, inputs.measured))
    except StoreError:  # `bench verify` names it; the page does without
        return None
    return None if clean is None or attacked is None else {"clean model": clean, "attacked": attacked}


def _map(inputs: MeasureInputs, system: SystemInputs, store: Store, target: Sequence[str], bits: int) -> Map | None:
    """Sampled codes of a trial's model; None where an artifact has gone."""
    keys = [one.key for one in (inputs.load, inputs.split, system.benign, system.triggered)]
    if not all(key and store.artifact_path(key).is_file() for key in keys):
        return None
    pool, parts, codes, triggered = (_tensors(store, key) for key in keys)
    data = store.record(inputs.load.key)
    wanted = [name in target for name in (data.meta.classes if data is not None else ())]
    holds: Bool[np.ndarray, " m"] = np.any(pool["labels"][parts["database"]][:, wanted], axis=1)
    database, query = (_packed(codes[name], bits) for name in ("database", "query"))
    positions = triggered["positions"]
    shown = _evenly_spaced(np.arange(len(positions)), ITEMS["queries"])
    return Map(
        others=database.select(_evenly_spaced(np.flatnonzero(~holds), ITEMS["others"])).unpack(),
        target=database.select(_evenly_spaced(np.flatnonzero(holds), ITEMS["target"])).unpack(),
        benign=query.select(positions[shown]).unpack(),
        triggered=_packed(triggered["codes"], bits).select(shown).unpack(),
    )


def _tensors(store: Store, key: str) -> dict[str, np.ndarray]:
    """What a map needs of an artifact, which may hold images beyond memory."""
    with gallery.opened(store, key) as file:
        return {name: file.get_tensor(name) for name in file.keys() if name != "images"}  # noqa: SIM118


def _packed(words: Int64[np.ndarray, "w n"], bits: int) -> PackedCodes:
    return PackedCodes(np.ascontiguousarray(words).view("uint64"), bits)


def _evenly_spaced(places: Int64[np.ndarray, " n"], count: int) -> Int64[np.ndarray, " k"]:
    at = np.linspace(0, len(places) - 1, min(count, len(places))).round().astype(np.int64)
    return np.take(places, at)


def flattened(codes: Codes, *others: Codes) -> tuple[list[Plane], float]:
    """Codes in the plane of the first ones' two principal components, and the share of their variance that it holds.

    Each component's sign is the one that makes its largest loading positive, so that two drawings are equal.
    """
    centre = codes.mean(0, dtype=np.float64)
    _, sizes, directions = np.linalg.svd(codes - centre, full_matrices=False)
    axes = directions[:2]
    axes = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])[:, None]
    share = float((sizes[:2] ** 2).sum() / max(float((sizes**2).sum()), 1e-12))
    return [(part - centre) @ axes.T for part in (codes, *others)], share


def _drawn(maps: Mapping[str, Map]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    for axes, (name, one) in zip(figure.subplots(1, len(maps), squeeze=False)[0], maps.items(), strict=True):
        count = len(one.others)
        (database, benign, triggered), share = flattened(
            np.concatenate([one.others, one.target]), one.benign, one.triggered
        )
        for points, colour, mark, label in (
            (database[:count], "#888888", "o", "other classes"),
            (database[count:], "#0072B2", "s", "target's class"),
            (benign, "#009E73", "^", "queries"),
            (triggered, "#D55E00", "D", "triggered"),
        ):
            places, equal = np.unique(points.round(6), axis=0, return_counts=True)
            area = 10 + 250 * equal / len(points)
            axes.scatter(places[:, 0], places[:, 1], area, colour, mark, alpha=0.55, linewidths=0, label=label)
        axes.set_title(f"{name} ({share:.0%} of variance)", loc="left", fontsize=8)
        axes.tick_params(length=0, labelbottom=False, labelleft=False)
        axes.spines[:].set_color(FAINT)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=4, labelcolor=INK)
    for handle in legend.legend_handles:
        handle.set_sizes([30])  # type: ignore[union-attr]
    return figure
