"""The documents' commands in small: everything that is exchanged before one is run, in two tables."""

from __future__ import annotations

import re
import shlex
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from zipfile import ZipFile

from bench.config.overrides import axis_of
from bench.config.schema import AXES
from tests.docs._markdown import Shown, all_blocks, blocks
from tests.faults._bench import bench

# What stands for a name of the reader's. KEY, ID, and gains of `report equal-strength` come from the small store.
NAMES = {
    "DIR": "data", "A": "runs", "B": "again", "N": "2", "FILE": "my_attack.py", "FILE.png": "file.png",
    "NAME": "my_part", "BOARD": "conventions", "REVISION": "HEAD", "FIRST": "127.0.0.1",
    "reference": "again", "quick.zip": "bundle.zip",
}  # fmt: skip

# Axes that every `run` is given unless it names them itself: papers' and suites' own sizes take minutes to days.
SMALL = {
    "datasets": '[{ name = "digits", train = 60, query = 12, database = 60, trusted = 40 }]',
    "backbones": '[{ name = "convnet", width = 4 }]',
    "attacks": "none,badnets",
    "defenses": '["none", { name = "fine_pruning", steps = 2 }]',
    "targets": "0",
    "seeds": "0",
    "training.epochs": "2",
}
# The store that other commands read: the suite `quick` with all its kinds of rows, and a dose to sweep.
STORE = {
    "datasets": '[{ name = "digits", train = 160, query = 30, database = 200, trusted = 40 }]',
    "backbones": '[{ name = "convnet", width = 6 }]',
    "attacks": '["none", { name = "badnets", poisons = [4, 10, 24] }, { name = "ciba", steps = 3 }]',
    "defenses": '["none", { name = "fine_pruning", steps = 2, max_drop = [0.01, 0.04, 0.1] },'
    ' { name = "strip", overlays = 8 }, { name = "neural_cleanse", steps = 1 }]',
    "targets": "0,1",
    "training.epochs": "6",
    "training.lr": "2e-2",
}
# Suites whose plan alone takes most of a minute are narrowed; a slow test plans the whole.
HEAVY = {"full": ["--set", "attacks=none,badnets", "--set", "defenses=none,strip"]}
# Hundreds of steps of tuning, which the documents' suites have by default.
FEWER_STEPS = {
    '"none", "fine_pruning"': '"none", { name = "fine_pruning", steps = 2 }',
    '"fine_pruning", max_drop': '"fine_pruning", steps = 2, max_drop',
}
# A block's own attacks and defenses are kept, as they are what it shows.
BLOCK = {axis: value for axis, value in SMALL.items() if axis not in {"attacks", "defenses"}} | {
    "bits": "8",
    "training.epochs": "1",
}
# Ray takes ten seconds to start; `tests/cli`, `tests/faults` and the slow tests here run with it.
ALONE = {"--executor": "serial", "--device": "cpu"}


def words_of(command: str) -> list[str]:
    """A command's words without its comment."""
    return shlex.split(command, comments=True)


def with_fewer_steps(text: str) -> str:
    """The text of a suite or the value of an axis, with short tunings."""
    for own, less in FEWER_STEPS.items():
        text = text.replace(own, less)
    return text


def named(words: list[str], **more: str) -> list[str]:
    """With something real for each of the reader's names."""
    names = {**NAMES, **more}
    return [names.get(word, word) for word in words]


def smaller(words: list[str], axes: dict[str, str]) -> list[str]:
    """A `run` over these axes, but for those that it sets itself, in this process."""
    if words[0] != "run":
        return words
    given = [after.partition("=")[0] for option, after in pairwise(words) if option == "--set"]
    own = {axis_of(axis) if axis in {*AXES, *AXES.values()} else axis for axis in given}
    sets = [word for axis, value in axes.items() if axis not in own for word in ("--set", f"{axis}={value}")]
    return [*words, *sets, *(word for pair in ALONE.items() if pair[0] not in words for word in pair)]


def done(words: list[str], code: int = 0) -> str:
    """What a command prints that ends as it should, without a traceback."""
    got, out, err = bench(*words)
    assert got == code, f"python -m bench {shlex.join(words)}: exit code {got}, not {code}\n{err[-2000:]}"
    assert "Traceback" not in err
    return out


def stages_run(printed: str) -> int:
    """The number of stages that a run says it ran."""
    (found,) = re.findall(r"Stages: (\d+) run", printed)
    return int(found)


def commands(block: Shown) -> list[str]:
    """The commands of a block of them, comments left out; `a && b` are two."""
    lines = [line.strip() for line in block.text.splitlines()]
    return [part.strip() for line in lines if line and not line.startswith("#") for part in line.split("&&")]


def block_with(start: str) -> Shown:
    """The one block that has a line that begins so."""
    (found,) = (b for b in all_blocks() if any(line.strip().startswith(start) for line in b.text.splitlines()))
    return found


def suite_block() -> str:
    """The suite that suites/README.md begins with, with short tunings."""
    return with_fewer_steps(next(block.text for block in blocks("suites/README.md") if block.language == "toml"))


def birds(path: Path) -> None:
    """An archive of images, a folder for each class."""
    from PIL import Image

    with ZipFile(path, "w") as held:
        for number in range(800):
            image = BytesIO()
            Image.new("RGB", (8, 8), (number % 5 * 50, number % 100, 90)).save(image, "PNG")
            held.writestr(f"class{number % 5}/{number}.png", image.getvalue())


def parquet(folder: Path) -> None:
    """The same pictures as in a data set of Hugging Face, in two files."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    (folder / "data").mkdir(parents=True)
    pictures = []
    for number in range(800):
        Image.new("RGB", (8, 8), (number % 5 * 50, number % 100, 90)).save(held := BytesIO(), "PNG")
        pictures.append({"bytes": held.getvalue(), "path": f"{number}.png"})
    table = pa.table({"image": pictures, "label": [number % 5 for number in range(800)]})
    for part, rows in {"train": table.slice(0, 600), "test": table.slice(600)}.items():
        pq.write_table(rows, folder / "data" / f"{part}-00000-of-00001.parquet")


def own_data(folder: Path) -> None:
    """Data of the reader's own: images, and room for lists of them."""
    from PIL import Image

    for place in ("my_lists", "my_images"):
        (folder / place).mkdir(parents=True)
    for number in range(60):
        Image.new("RGB", (16, 16), (number * 4, 255 - number * 4, number % 3 * 100)).save(
            folder / "my_images" / f"{number}.png"
        )
