"""A cluster as the README describes it: a head and two further machines, here three raylets on one host."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults._bench import Driver, board, end, finished, results, session_of, until, verified
from tests.faults.test_stages import suite_of

pytestmark = pytest.mark.slow
Start = Callable[..., Driver]
Undisturbed = tuple[str, dict[str, bytes]]
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}  # `ray start --head` asks for one


class Cluster:
    """`ray start` in sessions of their own. The head only keeps the books, so that every stage is on another node."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hd"))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        self.nodes: list[subprocess.Popen[bytes]] = []
        self.start("--head", f"--port={port}", "--num-cpus=0", f"--temp-dir={self.folder}", "--include-dashboard=false")

    def start(self, *options: str, under: tuple[str, ...] = ()) -> None:
        log = self.folder / f"{len(self.nodes)}.log"
        ray = str(Path(shutil.which("ray") or "ray"))
        with log.open("w") as file:
            node = subprocess.Popen(
                [*under, ray, "start", *options, "--block"], stdout=file, stderr=subprocess.STDOUT,
                start_new_session=True, env={**os.environ, **TOKEN, "RAY_USAGE_STATS_ENABLED": "0"},
            )  # fmt: skip
        self.nodes.append(node)
        until(lambda: "Ray runtime started" in log.read_text() or node.poll() is not None, "a node to start")
        assert node.poll() is None, log.read_text()

    def join(self, under: tuple[str, ...] = ()) -> None:
        self.start(f"--address={self.address}", "--num-cpus=1", under=under)

    def close(self) -> None:
        for node in reversed(self.nodes):
            end(node)
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    yield made
    made.close()


def test_a_suite_runs_over_three_nodes_and_one_dies(
    tmp_path: Path, cluster: Cluster, drivers: Start, moody: tuple[Path, Path]
) -> None:
    plugin, folder = moody
    cluster.join()
    cluster.join()
    store, suite = tmp_path / "store", suite_of(folder, "once", "fine", timeout=600)
    driver = drivers(suite, store, "--plugin", plugin, "--address", cluster.address, **TOKEN)
    until((folder / "pid").exists, "a stage to wait")
    place = session_of(int((folder / "pid").read_text()))
    (node,) = (node for node in cluster.nodes[1:] if node.pid == place)
    kept = finished(store)
    end(node)
    assert driver.finish() == 0, driver.err
    assert "its worker died" in driver.err
    assert "trying again" in driver.err
    assert {key: finished(store)[key] for key in kept} == kept
    verified(store)
    alone = drivers(suite, tmp_path / "alone", "--plugin", plugin, executor="serial")
    assert alone.finish() == 0, alone.err
    assert board(store) == board(tmp_path / "alone")
    assert results(finished(store)) == results(finished(tmp_path / "alone"))


def test_a_node_that_does_not_see_the_store_is_named(suite: Path, cluster: Cluster, drivers: Start) -> None:
    """In a mount namespace of its own, where the folder of the store is empty."""
    place = cluster.folder / "shared"
    place.mkdir()
    hidden = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs "$0" && exec "$@"', str(place))
    probe = subprocess.run([*hidden, "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("needs the right to mount a tmpfs in a namespace of its own")
    cluster.join(under=hidden)
    driver = drivers(suite, place / "store", "--address", cluster.address, **TOKEN)
    assert driver.finish() == 2, driver.err
    (line,) = (line for line in driver.err.splitlines() if line.startswith("error: "))
    assert f"does not see the store '{place / 'store'}'" in line
    assert "Traceback" not in driver.err


def test_a_cluster_with_a_token_refuses_without_one(
    suite: Path, tmp_path: Path, cluster: Cluster, drivers: Start
) -> None:
    driver = drivers(suite, tmp_path / "store", "--address", cluster.address, RAY_AUTH_MODE="disabled")
    assert driver.finish() == 2, driver.err
    (line,) = (line for line in driver.err.splitlines() if line.startswith("error: "))
    assert "RAY_AUTH_MODE=token" in line
