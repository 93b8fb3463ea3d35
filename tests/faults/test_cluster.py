"""A cluster as the README describes it: a head and two further machines, here three raylets on one host.

Its lines are the README's own; `Cluster` says what is added to them and what stands for the reader's names.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docs._markdown import Shown, all_spans
from tests.docs._shown import blocks_of
from tests.docs._small import commands, words_of
from tests.faults._bench import ROOT, SUITE, Driver, board, end, finished, results, session_of, until, verified
from tests.faults.test_stages import suite_of

pytestmark = pytest.mark.slow
Start = Callable[..., Driver]
Undisturbed = tuple[str, dict[str, bytes]]
(BLOCK,) = blocks_of("cluster")


def line_of(block: Shown, *start: str) -> list[str]:
    """The words of the line that begins so, without these."""
    (found,) = (words for line in commands(block) if (words := words_of(line))[: len(start)] == [*start])
    return found[len(start) :]


# `ray start --head` asks for a token; `...` stands for a secret
TOKEN = {name: value for name, _, value in (word.partition("=") for word in line_of(BLOCK, "export"))}
TOKEN = {name: secrets.token_hex(32) if value == "..." else value for name, value in TOKEN.items()}


class Cluster:
    """The README's two lines in sessions of their own, with a free port, this host for FIRST, and few resources.

    The head only keeps the books, so that every stage is on another node.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hd"))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.port, self.address = port, f"127.0.0.1:{port}"
        self.nodes: list[subprocess.Popen[bytes]] = []
        self.start("--head", "--num-cpus=0", f"--temp-dir={self.folder}", "--include-dashboard=false")

    def here(self, words: list[str]) -> list[str]:
        """Words with this cluster's address for the README's."""
        return [word.replace("FIRST:6379", self.address).replace("6379", str(self.port)) for word in words]

    def start(self, which: str, *options: str, under: tuple[str, ...] = ()) -> None:
        """which: how the README's line goes on after `ray start`."""
        (line,) = (line for line in commands(BLOCK) if line.startswith(f"ray start {which}"))
        log = self.folder / f"{len(self.nodes)}.log"
        ray = str(Path(shutil.which("ray") or "ray"))
        with log.open("w") as file:
            node = subprocess.Popen(
                [*under, ray, *self.here(words_of(line)[1:]), *options, "--block"],
                stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
                env={**os.environ, **TOKEN, "RAY_USAGE_STATS_ENABLED": "0"},
            )  # fmt: skip
        self.nodes.append(node)
        until(lambda: "Ray runtime started" in log.read_text() or node.poll() is not None, "a node to start")
        assert node.poll() is None, log.read_text()

    def join(self, under: tuple[str, ...] = ()) -> None:
        self.start("--address", "--num-cpus=1", under=under)

    def close(self) -> None:
        for node in reversed(self.nodes):
            end(node)
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    yield made
    made.close()


def test_the_readme_s_commands_in_their_order(tmp_path: Path, cluster: Cluster) -> None:
    """`ray status` lists both nodes, and the run joins them: a small suite for `full`, folders here for /shared."""
    cluster.join()
    (status,) = (words_of(text) for text in [one.text for one in all_spans()] if text.startswith("ray status"))
    environment = {**os.environ, **TOKEN}

    def active() -> int:
        """The nodes that it lists; a new cluster has no status for some seconds."""
        said = subprocess.run(cluster.here(status), env=environment, capture_output=True, text=True, check=True).stdout
        return len(re.findall(r"^ 1 ", said.partition("Active:")[2].partition("Pending:")[0], re.MULTILINE))

    until(lambda: active() == 2, "ray status to list both nodes")
    (tmp_path / "small.toml").write_text(SUITE)
    (tmp_path / "data").mkdir()
    words = cluster.here(line_of(BLOCK, "python"))
    places = {"full": tmp_path / "small.toml", "/shared/runs": tmp_path / "runs", "/shared/data": tmp_path / "data"}
    assert {*places} < {*words}
    command = [sys.executable, *(str(places.get(word, word)) for word in words)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    verified(tmp_path / "runs")


def test_a_suite_runs_over_three_nodes_and_one_dies(
    tmp_path: Path, cluster: Cluster, drivers: Start, moody: tuple[Path, Path]
) -> None:
    plugin, folder = moody
    cluster.join()
    cluster.join()
    store, suite = tmp_path / "store", suite_of(folder, "once", "fine")
    driver = drivers(suite, store, "--plugin", plugin, "--address", cluster.address, **TOKEN)
    until((folder / "pid").exists, "a stage to wait")
    place = session_of(int((folder / "pid").read_text()))
    (node,) = (node for node in cluster.nodes[1:] if node.pid == place)
    kept = finished(store)
    end(node)
    assert driver.finish() == 0, driver.err
    assert "worker died" in driver.err
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
    assert f"'{place / 'store'}'" in line
    assert "Traceback" not in driver.err


def test_a_cluster_with_a_token_refuses_without_one(
    suite: Path, tmp_path: Path, cluster: Cluster, drivers: Start
) -> None:
    driver = drivers(suite, tmp_path / "store", "--address", cluster.address, RAY_AUTH_MODE="disabled")
    assert driver.finish() == 2, driver.err
    (line,) = (line for line in driver.err.splitlines() if line.startswith("error: "))
    assert "RAY_AUTH_MODE=token" in line
