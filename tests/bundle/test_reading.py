"""A bundle is whole or refused with one line."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ndp_edge.bundle import Bundle
from ndp_edge.errors import InputError
from ndp_edge.manifest import MANIFEST, seal
from ndp_edge.model.config import preset

NAMES = ("model.onnx", "engines/openvino-int8.onnx", "golden.npz")
"""kit.FILES, which a parametrisation cannot ask a fixture for."""


def test_what_was_written_is_read(kit: SimpleNamespace, root: Path) -> None:
    bundle = Bundle.open(root)
    assert bundle.config == preset("nano")
    assert bundle.threshold == 0.25
    assert bundle.default == ("openvino", "int8")
    assert bundle.precisions("openvino") == ["fp32", "int8"]
    assert bundle.backends == ["openvino"]
    assert bundle.engine_path("openvino", "int8").read_bytes() == b"int8"
    assert len(bundle.hash) == 64
    assert kit.leftovers(root) == []
    with pytest.raises(InputError, match="no onnxruntime fp32 engine, only openvino fp32"):
        bundle.engine_path("onnxruntime", "fp32")


def test_a_link_to_a_bundle_opens(root: Path) -> None:
    root.with_name("current").symlink_to(root)
    assert Bundle.open(root.with_name("current")).root == root


@pytest.mark.parametrize("name", [*NAMES, MANIFEST])
def test_one_flipped_byte_in_any_file_is_refused(
    kit: SimpleNamespace, root: Path, name: str
) -> None:
    good = (root / name).read_bytes()
    step = max(1, len(good) // 40)
    for at in range(0, len(good), step):
        for bit in (0x01, 0x80):
            data = bytearray(good)
            data[at] ^= bit
            (root / name).write_bytes(data)
            assert "bundle" in kit.refused(root)
    (root / name).write_bytes(good)
    Bundle.open(root)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_or_truncated_file_is_named(kit: SimpleNamespace, root: Path, name: str) -> None:
    (root / name).write_bytes(kit.FILES[name][:-1])
    assert name in kit.refused(root)
    (root / name).unlink()
    assert f"{name} is missing" in kit.refused(root)


def test_without_hashes_the_size_is_still_checked(root: Path) -> None:
    (root / "model.onnx").write_bytes(b"x" * 300)
    Bundle.open(root, check_hashes=False)
    (root / "model.onnx").write_bytes(b"x")
    with pytest.raises(InputError, match="was changed"):
        Bundle.open(root, check_hashes=False)


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../secret", "a/../../secret", "", "a\\..\\b", "./x", "a//b", ".", "x\0"],
)
def test_paths_that_lead_out_are_refused(kit: SimpleNamespace, root: Path, name: str) -> None:
    (root.parent / "secret").write_bytes(b"net" * 100)

    def change(manifest: dict[str, Any]) -> None:
        manifest["files"][name] = manifest["files"]["model.onnx"]
        manifest["engines"][0]["file"] = name

    kit.reseal(root, change)
    assert "leads out" in kit.refused(root)


def test_links_inside_are_refused_even_with_the_right_content(
    kit: SimpleNamespace, root: Path
) -> None:
    outside = root.parent / "outside"
    (root / "model.onnx").rename(outside)
    (root / "model.onnx").symlink_to(outside)
    assert "is a link" in kit.refused(root)


def test_a_linked_folder_or_manifest_is_refused(kit: SimpleNamespace, root: Path) -> None:
    (root / "engines").rename(root.parent / "engines")
    (root / "engines").symlink_to(root.parent / "engines")
    assert "is a link" in kit.refused(root)
    (root / MANIFEST).rename(root.parent / MANIFEST)
    (root / MANIFEST).symlink_to(root.parent / MANIFEST)
    assert "is a link" in kit.refused(root)


@pytest.mark.parametrize("schema", [0, 2, "1", None, True, 1.0, [1]])
def test_another_schema_is_refused(kit: SimpleNamespace, root: Path, schema: object) -> None:
    manifest = json.loads((root / MANIFEST).read_text())
    (root / MANIFEST).write_text(json.dumps({**manifest, "schema": schema}))
    assert "schema" in kit.refused(root)


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{", b"\xff\xfe", b"null", b'{"schema": NaN}', b"[" * 100000]
)
def test_what_is_no_manifest_is_refused(kit: SimpleNamespace, root: Path, text: bytes) -> None:
    (root / MANIFEST).write_bytes(text)
    kit.refused(root)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("threshold", {"value": "0.2"}),
        ("threshold", {"value": True}),
        ("threshold", {}),
        ("threshold", 0.2),
        ("engines", {}),
        ("engines", [1]),
        ("engines", [{"backend": "openvino", "precision": "int8", "file": 1}]),
        ("engines", []),
        ("default", {"backend": "openvino"}),
        ("default", {"backend": "openvino", "precision": "fp64"}),
        ("files", {"model.onnx": {"sha256": "00", "size": True}}),
        ("golden", {"file": "absent.npz"}),
        ("created", 1),
        ("config", {"preset": "nano"}),
        ("surprise", 1),
    ],
)
def test_values_of_the_wrong_type_are_refused(root: Path, key: str, value: object) -> None:
    manifest = {**json.loads((root / MANIFEST).read_text()), key: value}
    with pytest.raises(InputError):
        (root / MANIFEST).write_text(seal(manifest))
        Bundle.open(root)


def test_an_infinite_threshold_is_refused(kit: SimpleNamespace, root: Path) -> None:
    text = (root / MANIFEST).read_text()
    (root / MANIFEST).write_text(text.replace('"value": 0.25', '"value": 1e999'))
    kit.refused(root)
    with pytest.raises(InputError, match="not finite"):
        kit.write(root.parent / "other", threshold={"value": float("nan")})


def test_a_missing_bundle_names_the_command(kit: SimpleNamespace, tmp_path: Path) -> None:
    assert "python -m ndp_edge.build" in kit.refused(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "no bundle" in kit.refused(tmp_path / "empty")
