"""`bench best`: what it prints, what it adds to a list, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.cli.app import main
from reports import best_known
from tests.bundles import Forger
from tests.reports.board_data import trial


def bench(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["best", *arguments])
    printed = capsys.readouterr()
    return int(caught.value.code or 0), printed.out, printed.err


def tables(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    code, out, err = bench(capsys, *arguments, "--format", "json")
    assert (code, err) == (0, "")
    found: list[dict[str, Any]] = json.loads(out)
    return found


def test_the_list_is_printed_per_setting_attacks_before_defenses(capsys: pytest.CaptureFixture[str]) -> None:
    made = tables(capsys)
    assert [board["title"].partition(" \N{MIDDLE DOT} ")[0] for board in made[:2]] == [
        "Hardest known attack for each defense", "Strongest known defense against each attack",
    ]  # fmt: skip
    strongest = next(board for board in made if board["title"].startswith("Strongest") and "digits" in board["title"])
    rows = {row["attack"]: row for row in strongest["rows"]}
    assert {"badnets", "blend"} <= rows.keys()
    assert rows["badnets"]["defense"] == "fine_pruning"
    assert rows["badnets"]["own-mAP lost"] == pytest.approx(
        rows["badnets"]["own-mAP control"] - rows["badnets"]["own-mAP"]
    )
    assert rows["badnets"]["n"] == 3
    assert rows["badnets"]["suite"] == "quick"


def test_a_bundle_is_added_once_and_shown_before_it_is(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "known.jsonl"
    given = ("--store", "reference", "--list", str(path))
    code, out, _ = bench(capsys, *given)
    assert code == 0
    assert "10 of 10 results" in out
    assert not path.exists()
    code, out, _ = bench(capsys, *given, "--append")
    assert code == 0
    assert f"added to {path}" in "".join(out.split("\n"))
    held = path.read_bytes()
    assert len(best_known.read(path).entries) == 10
    code, out, _ = bench(capsys, *given, "--append")
    assert code == 0
    assert "0 of 10 results" in out
    assert path.read_bytes() == held


def test_only_published_runs_are_added(capsys: pytest.CaptureFixture[str], tmp_path: Path, stock: Any) -> None:
    store = stock([trial(a, d) for a in ("none", "loud") for d in ("none", "repair")])
    path = tmp_path / "known.jsonl"
    code, _, err = bench(capsys, "--store", str(store.root), "--list", str(path), "--append")
    assert code == 2
    assert "is no bundle" in err
    assert "bench publish" in err
    assert not path.exists()
    code, out, _ = bench(capsys, "--store", str(store.root), "--list", str(path))
    assert code == 0
    assert "1 of 1 results" in out


def test_wrong_numbers_are_not_added(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (shipped,) = best_known.shipped_path().parent.glob("quick-*.zip")
    forger = Forger(shipped)
    forger.each(lambda one: one["metrics"].update(own_map=0.0) if one["stage"] == "measure" else None)
    forger.reseal()
    bundle, path = forger.save(tmp_path / "forged.zip"), tmp_path / "known.jsonl"
    code, _, err = bench(capsys, "--store", str(bundle), "--list", str(path), "--append")
    assert code == 2
    assert "do not verify" in err
    assert "own_map" in err
    assert not path.exists()
    _, _, err = bench(capsys, "--store", str(bundle), "--list", str(path))
    assert "as its author reports them" in " ".join(err.split())


def test_wrong_use_ends_in_a_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "known.jsonl"
    for arguments, words in (
        (("--append",), "--store BUNDLE"),
        (("--list", str(path)), "is empty"),
    ):
        code, _, err = bench(capsys, *arguments)
        assert code == 2
        assert words in err
    lines = best_known.shipped_path().read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[1:]))
    code, _, err = bench(capsys, "--list", str(path))
    assert code == 2
    assert "were removed" in err
    assert [line.partition(":")[0] for line in err.strip().splitlines()] == ["error", "hint"]
