"""Data larger than memory: decoded into a file, read from the memory-mapped cache in portions."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.api import registry
from bench.api.errors import UserError
from bench.artifacts import stage_io
from bench.artifacts.artifact import Output
from bench.artifacts.inputs import DataInputs
from bench.artifacts.outputs.data import DecodedData, SplitData
from bench.conformance.fixture import Memory
from hashing.datasets.helpers import image_buffer

pytestmark = pytest.mark.long

SIDE, IMAGES = 512, 480  # 360 MiB decoded, 8 MB on the disk
SUITE = f"""
[axes]
datasets = [{{ name = "lists", path = ".", size = {SIDE}, trusted = 20 }}]
backbones = [{{ name = "convnet", width = 4 }}]
[training]
batch = 10
epochs = 1
"""
SCRIPT = """
import json, resource, sys
from pathlib import Path
import torch
from bench.config import suite
from bench.engine import process_state, worker
from bench.graph import planner
from bench.artifacts import stage_io
from bench.engine.store import Store
from hashing import codes, model
from hashing.datasets.helpers import image_buffer

def kilobytes(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))

image_buffer.IN_MEMORY, stage_io.PORTION, model.VALUES = 0, 2**24, 2**22
root, size = Path(sys.argv[1]), int(sys.argv[2])
made = planner.plan([suite.load(str(root / "s.toml"))], data=root, device="cpu")
Store(root / "store", create=True)
environment = worker.Environment(root / "store", root, "cpu")
stages = list(made.stages.values())
process_state.set_torch(1)
with torch.no_grad():  # arenas and kernels that every process pays for once
    torch.nn.Conv2d(3, 4, 3)(torch.rand(10, 3, 512, 512))
codes.pack(torch.rand(10, 32))
for stage in stages:
    worker.warm_up(stage)
limits = {
    "load": (resource.RLIMIT_DATA, "VmData", size // 3),  # what is mapped from a shared file does not count
    # the cache, mapped, and less than a copy of it: without AVX-512 a third was too little, and sometimes .6 of it
    "encode": (resource.RLIMIT_DATA, "VmData", size + size * 9 // 10),
}
outcome = {}
for stage in stages:
    kind, name, room = limits.get(stage.kind, (resource.RLIMIT_DATA, "", 0))
    hard = resource.getrlimit(kind)[1]
    if name:
        resource.setrlimit(kind, (kilobytes(name) * 1024 + room, hard))
    record = worker.run_stage(stage, environment)
    resource.setrlimit(kind, (hard, hard))
    outcome[stage.kind] = [record.status, record.reason]
print(json.dumps(outcome))
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(IMAGES):
        pixels = np.full((8, 8, 3), (number * 37) % 256, dtype=np.uint8)
        pixels[:4, :, number % 2] = 255
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    lines = [f"{number}.png {1 - number % 2} {number % 2}\n" for number in range(IMAGES)]
    (tmp_path / "test.txt").write_text("".join(lines[:20]))
    (tmp_path / "train.txt").write_text("".join(lines[20:60]))
    (tmp_path / "database.txt").write_text("".join(lines[20:]))
    (tmp_path / "s.toml").write_text(SUITE)
    return tmp_path


@pytest.mark.skipif(sys.platform != "linux", reason="limits by the kinds that Linux counts")
def test_a_data_set_larger_than_the_memory_it_may_take_runs_through(root):
    size = IMAGES * 3 * SIDE * SIDE
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(root), str(size)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert {kind: status for kind, (status, _) in outcome.items()} == dict.fromkeys(outcome, "ok"), outcome
    assert {"load", "encode", "measure"} <= outcome.keys()


def test_portions_are_the_part_in_its_order():
    images = torch.arange(10 * 3 * 4 * 4).remainder(251).to(torch.uint8).view(10, 3, 4, 4)
    ids = torch.tensor([7, 1, 9, 0, 4])
    memory = Memory()
    memory.put("load", Output({"images": images}))
    memory.put("split", Output({"database": ids}))
    inputs = DataInputs(DecodedData("load", memory), SplitData("split", memory))
    for portion, sizes in ((1, [1] * 5), (2 * 48, [2, 2, 1]), (2**20, [5])):
        parts = list(stage_io.portions(inputs, "database", portion))
        assert [len(part) for part in parts] == sizes
        assert torch.equal(torch.cat(parts), images[ids])


@pytest.fixture
def through_a_file(tmp_path, monkeypatch):
    """Called, it sends all images through a file in TMPDIR, as if memory were full."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return lambda: monkeypatch.setattr(image_buffer, "IN_MEMORY", 0)


def test_images_come_out_the_same_from_a_file(root, through_a_file):
    data = registry.create("datasets", "lists", {"path": ".", "size": 16, "trusted": 20})
    plain = data.decode(root).images
    assert not isinstance(image_buffer.canvas(1, 3, 4, 4), np.memmap)
    through_a_file()
    assert isinstance(image_buffer.canvas(1, 3, 4, 4), np.memmap)
    assert torch.equal(data.decode(root).images, plain)
    assert len(list(root.glob("*"))) == IMAGES + 4  # the file has no name


def test_a_disk_without_room_is_named(monkeypatch, tmp_path, through_a_file):
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    through_a_file()
    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(UserError, match=rf"'{tmp_path}'.*TMPDIR"):
        image_buffer.canvas(2, 3, 4, 4)
