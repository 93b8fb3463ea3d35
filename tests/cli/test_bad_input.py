"""Everything that a user can get wrong: one line, the documented exit code, nothing lost."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from PIL import Image

from bench.cli.app import main
from bench.engine.store import Store

ROOT = Path(__file__).parents[2]
FAST = ["--executor", "serial", "--device", "cpu"]
SMALL = """
[axes]
datasets = [DATASET]
backbones = [{ name = "convnet", width = 4 }]
bits = [8]
[training]
optimizer = "adam"
lr = 1e-2
weight_decay = 0
epochs = 1
"""
SIZES = "size = 8, train = 4, query = 2, database = 4, trusted = 4"


def bench(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    printed = capsys.readouterr()
    return int(caught.value.code or 0), printed.out, printed.err


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must be refused; returns the line of the error, and that of the hint if there is one."""
    code, _, err = bench(capsys, *arguments)
    assert code == 2, err
    lines = err.strip().splitlines()
    assert [line.partition(": ")[0] for line in lines] in (["error"], ["error", "hint"]), err
    return "\n".join(lines)


def folder_suite(tmp_path: Path, path: str) -> str:
    suite = tmp_path / "folder.toml"
    suite.write_text(SMALL.replace("DATASET", f'{{ name = "folder", path = "{path}", {SIZES} }}'))
    return str(suite)


def photo(colour: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (10, 8), (colour, 255 - colour, 40)).save(buffer, "PNG")
    return buffer.getvalue()


def tree(root: Path, count: int = 12) -> Path:
    for name in ("cats", "dogs"):
        (root / name).mkdir(parents=True)
        for number in range(count):
            (root / name / f"{number:02}.png").write_bytes(photo(number * 9))
    return root


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--suite", "quik"], "'quick'"),
        (["run", "--set", "attacks=badnet"], "'badnets'"),
        (["run", "--set", 'attacks=[{ name = "badnets", poison_rate = 1.5 }]'], "poison_rate"),
        (["run", "--set", "bits=0"], "bits"),
        (["run", "--retry", "all"], "timeout"),
        (["run", "--data", "/no/such/folder"], "directory"),
        (["run", "--device", "quantum"], "quantum"),
        (["run", "--plugin", "absent.py"], "absent.py"),
        (["run", "--workers", "0"], "--workers"),
        (["run", "--address", "127.0.0.1:1"], "127.0.0.1:1"),
        (["run", "--sweet", "quick"], "--sweet"),
        (["ran"], "ran"),
        (["list", "attaks"], "'attacks'"),
        (["plan", "--only", "attack=cibaa"], "cibaa"),
        (["leaderboard", "--store", "/no/such/store"], "/no/such/store"),
        (["gc", "--store", "/no/such/store"], "/no/such/store"),
        (["gc", "--store", "a" * 300], "long"),
        (["run", "--store", "a" * 300], "long"),
        (["plan", "--data", "a" * 300], "long"),
        (["check", f"{'a' * 300}.py"], "long"),
        (["new", "attack", "a" * 300], "long"),
        (["plan", "--set", f"training.lr={'1' * 5000}"], "number"),
        (["check", "badnets", "--set", f"poison_rate={'1' * 5000}"], "number"),
        (["plan", "--set", f"bits={'[' * 3000}"], "nested"),
        (["plan", "--set", 'backbones=[{ name = "vgg11", weights = "~no-such/x.pth" }]'], "~no-such/x.pth"),
        (["plan", "--set", f'backbones=[{{ name = "vgg11", weights = "{"a" * 300}.pth" }}]'], "long"),
        (["plan", "--set", "resources.threads=100000"], "1024"),
        (["plan", "--set", f"seeds={2**63 - 1}"], "2147483648"),
        (["plan", "--set", "seeds=true"], "axes.seeds.0 must be a number"),
        (["plan", "--set", "bits=16,true"], "axes.bits.1 must be a number"),
        (["plan", "--set", "targets=[true]"], "axes.targets.0 must be a number"),
        (["plan", "--set", "targets=[[1, true]]"], "axes.targets.0.1 must be a number"),
        (["plan", "--set", "training.epochs=true"], "epochs must be a number"),
        (["plan", "--set", "resources.timeout=true"], "resources.timeout must be a number"),
        (["plan", "--set", 'attacks=[{ name = "badnets", poison_rate = [0.1, true] }]'], "poison_rate must be"),
        (["check", "badnets", "--set", "poison_rate=true"], "poison_rate must be a number"),
        (["plan", "--suite", "smoke", "--set", "surrogate=backbone=nope"], "unknown backbone 'nope'"),
        (["plan", "--suite", "smoke", "--set", "surrogate=method=csk"], "did you mean 'csq'"),
        (["plan", "--suite", "smoke", "--set", "surrogate=bits=99999"], "4096"),
        (["plan", "--workers", "9" * 400], "--workers"),
        (["run", "--workers", "9" * 400], "--workers"),
    ],
)
def test_refused_with_one_line(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *arguments)


@pytest.mark.parametrize("place", ["loop", "loop/x", "file", "file/x", "nowhere", "nowhere/x"])
def test_a_store_that_cannot_be_made_is_refused_before_planning(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("loop").symlink_to("loop")
    Path("nowhere").symlink_to("gone")
    lines = {refused(capsys, command, "--store", place) for command in ("run", "plan")}
    assert all("give another --store" in line for line in lines)
    code, out, _ = bench(capsys, "doctor", "--store", place)
    assert code == 0
    assert "give another" in " ".join(out.split())
    before = sorted(tmp_path.iterdir())
    assert bench(capsys, "plan", "--store", "deep/folder/store")[0] == 0
    assert sorted(tmp_path.iterdir()) == before


def test_malformed_toml(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("[axes\nbits = 3")
    assert path.name in refused(capsys, "run", "--suite", str(path), "--store", str(tmp_path / "s"))


ODD = """
from bench.api.hashing import *

@dataset
class Odd(Dataset):
    def files(self, root): return ()
    def classes(self, root): raise BaseException("so")
    def decode(self, root): ...
    def splits(self, labels, origin, rng): ...
"""


def test_an_error_of_a_plugin_that_is_no_exception_has_its_exit_code(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    plugin = tmp_path / "odd.py"
    plugin.write_text(ODD)
    store = str(tmp_path / "store")
    code, _, err = bench(capsys, "plan", "--plugin", str(plugin), "--set", "datasets=odd", "--store", store)
    assert code == 70
    assert "BaseException: so" in err


def test_missing_archive(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    line = refused(capsys, "run", "--suite", "cifar10_small", "--store", str(tmp_path / "s"), *FAST)
    assert "--data" in line


@pytest.mark.long
def test_missing_data_leaves_cells_out_and_the_rest_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    suite = tmp_path / "two.toml"
    suite.write_text(SMALL.replace("DATASET", '"cifar10", { name = "digits", train = 60, query = 30 }'))
    code, out, _ = bench(capsys, "run", "--suite", str(suite), "--store", str(tmp_path / "s"), *FAST)
    assert code == 0
    assert "1 ok, 1 skipped" in out
    assert "cifar-10-batches-py" in out, "the reason names what is missing"


def test_a_corrupt_archive_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    archive = tmp_path / "pets.tar.xz"
    with tarfile.open(archive, "w:xz") as tar:
        tar.add(tree(tmp_path / "pets"), arcname=".")
    archive.write_bytes(archive.read_bytes()[:-40])
    line = refused(
        capsys, "run", "--suite", folder_suite(tmp_path, str(archive)), "--store", str(tmp_path / "s"), *FAST
    )
    assert "pets.tar.xz" in line


def test_an_image_that_does_not_decode_fails_its_trials_by_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    root = tree(tmp_path / "pets")
    (root / "dogs" / "03.png").write_bytes(photo(3)[:45])
    store = tmp_path / "s"
    code, out, err = bench(capsys, "run", "--suite", folder_suite(tmp_path, str(root)), "--store", str(store), *FAST)
    assert code == 1, err
    assert "03.png" in err + out
    assert "Traceback" not in err + out
    assert {record.status for record in Store(store).records()} == {"failed"}


def test_an_empty_class_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    root = tree(tmp_path / "pets")
    (root / "ants").mkdir()
    line = refused(capsys, "run", "--suite", folder_suite(tmp_path, str(root)), "--store", str(tmp_path / "s"), *FAST)
    assert "ants" in line


def test_sizes_that_cannot_be_met(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    root = tree(tmp_path / "pets", count=2)
    code, out, err = bench(
        capsys, "run", "--suite", folder_suite(tmp_path, str(root)), "--store", str(tmp_path / "s"), *FAST
    )
    assert code in {1, 2}
    assert "Traceback" not in err + out


def test_another_schema(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    store = tmp_path / "s"
    Store(store, create=True)
    (store / "store.json").write_text(json.dumps({"schema": 99}))
    for command in ("run", "leaderboard", "gc"):
        assert "99" in refused(capsys, command, "--store", str(store))


def mounted(path: Path, options: str) -> bool:
    path.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], capture_output=True, check=False)
    return done.returncode == 0


def test_a_read_only_store(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    place = tmp_path / "mount"
    if not mounted(place, "size=1m"):
        pytest.skip("needs the right to mount a tmpfs")
    try:
        Store(place / "s", create=True)
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        assert "read-only" in refused(capsys, "run", "--store", str(place / "s"), *FAST)
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.long
def test_a_full_disk_stops_with_one_line_and_keeps_what_was_finished(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    place = tmp_path / "mount"
    if not mounted(place, "size=600k"):
        pytest.skip("needs the right to mount a tmpfs")
    try:
        code, _, err = bench(capsys, "run", "--suite", "smoke", "--store", str(place / "s"), *FAST)
        assert code == 2
        errors = [line for line in err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        assert "disk" in errors[0]
        finished = [record.key for record in Store(place / "s").records() if record.status == "ok"]
        assert finished
        subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)
        code, out, _ = bench(capsys, "run", "--suite", "smoke", "--store", str(place / "s"), *FAST)
        assert code == 0
        assert f"{len(finished)} taken from the store" in out
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "executor"),
    [
        (signal.SIGINT, "ray"),
        pytest.param(signal.SIGTERM, "serial", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, "ray", marks=pytest.mark.slow),
    ],
)
def test_interrupted_runs_continue(tmp_path: Path, number: signal.Signals, executor: str) -> None:
    store = tmp_path / "s"
    command = [sys.executable, "-m", "bench", "run", "--suite", "smoke", "--store", str(store), "--executor", executor]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a shell's background job ignores Ctrl-C, and so would its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 -- the test has one thread
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and len(list(store.glob("records/*.json"))) < 3:
        time.sleep(0.05)
    if number is signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        os.kill(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    kept = {path.name: path.read_bytes() for path in store.glob("records/*.json")}
    assert len(kept) >= 3
    done = subprocess.run([*command[:-1], "serial"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all((store / "records" / name).read_bytes() == content for name, content in kept.items())


def test_a_timeout_without_end_is_one(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    suite = tmp_path / "endless.toml"
    suite.write_text(SMALL.replace("DATASET", '{ name = "digits", train = 60, query = 30 }'))
    for seconds in ("inf", "1e300"):
        options = ["--suite", str(suite), "--store", str(tmp_path / seconds), "--set", f"resources.timeout={seconds}"]
        code, _, err = bench(capsys, "run", *options, *FAST)
        assert code == 0, err
