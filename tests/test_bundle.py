"""A bundle is whole or refused with one line; writing one leaves all or nothing."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from ndp_edge import atomic
from ndp_edge.bundle import Bundle, BundleWriter
from ndp_edge.errors import InputError
from ndp_edge.manifest import MANIFEST, seal
from ndp_edge.model.config import preset

FILES = {"model.onnx": b"net" * 100, "engines/openvino-int8.onnx": b"int8", "golden.npz": b"gold"}


def content(**changes: Any) -> dict[str, Any]:
    engines = [
        {"backend": "openvino", "precision": "fp32", "file": "model.onnx"},
        {"backend": "openvino", "precision": "int8", "file": "engines/openvino-int8.onnx"},
    ]
    empty = ("package", "input", "output", "calibration", "splits", "training", "metrics")
    return {
        **{key: {} for key in (*empty, "latency_ms", "gate")},
        "created": "2026-11-22T20:00:00+00:00",
        "config": asdict(preset("nano")),
        "engines": engines,
        "default": {"backend": "openvino", "precision": "int8"},
        "threshold": {"value": 0.25},
        "golden": {"file": "golden.npz"},
        **changes,
    }


def write(out: Path, *, force: bool = False, **changes: Any) -> Path:
    with BundleWriter(out) as writer:
        for name, data in FILES.items():
            writer.path(name).write_bytes(data)
        return writer.commit(content(**changes), force=force)


def reseal(root: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Edit the manifest as somebody would who also mends its digest."""
    manifest = json.loads((root / MANIFEST).read_text())
    change(manifest)
    (root / MANIFEST).write_text(seal(manifest))


def refused(root: Path) -> str:
    with pytest.raises(InputError) as caught:
        Bundle.open(root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def leftovers(out: Path) -> list[str]:
    return sorted(p.name for p in out.parent.iterdir() if p != out)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path / "bundle")


def test_what_was_written_is_read(root: Path) -> None:
    bundle = Bundle.open(root)
    assert bundle.config == preset("nano")
    assert bundle.threshold == 0.25
    assert bundle.default == ("openvino", "int8")
    assert bundle.precisions("openvino") == ["fp32", "int8"]
    assert bundle.backends == ["openvino"]
    assert bundle.engine_path("openvino", "int8").read_bytes() == b"int8"
    assert len(bundle.hash) == 64
    assert leftovers(root) == []
    with pytest.raises(InputError, match="no onnxruntime fp32 engine, only openvino fp32"):
        bundle.engine_path("onnxruntime", "fp32")


def test_a_link_to_a_bundle_opens(root: Path) -> None:
    root.with_name("current").symlink_to(root)
    assert Bundle.open(root.with_name("current")).root == root


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_one_flipped_byte_in_any_file_is_refused(root: Path, name: str) -> None:
    good = (root / name).read_bytes()
    step = max(1, len(good) // 40)
    for at in range(0, len(good), step):
        for bit in (0x01, 0x80):
            data = bytearray(good)
            data[at] ^= bit
            (root / name).write_bytes(data)
            assert "bundle" in refused(root)
    (root / name).write_bytes(good)
    Bundle.open(root)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_or_truncated_file_is_named(root: Path, name: str) -> None:
    (root / name).write_bytes(FILES[name][:-1])
    assert name in refused(root)
    (root / name).unlink()
    assert f"{name} is missing" in refused(root)


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
def test_paths_that_lead_out_are_refused(root: Path, name: str) -> None:
    (root.parent / "secret").write_bytes(b"net" * 100)

    def change(manifest: dict[str, Any]) -> None:
        manifest["files"][name] = manifest["files"]["model.onnx"]
        manifest["engines"][0]["file"] = name

    reseal(root, change)
    assert "leads out" in refused(root)


def test_links_inside_are_refused_even_with_the_right_content(root: Path) -> None:
    outside = root.parent / "outside"
    (root / "model.onnx").rename(outside)
    (root / "model.onnx").symlink_to(outside)
    assert "is a link" in refused(root)


def test_a_linked_folder_or_manifest_is_refused(root: Path) -> None:
    (root / "engines").rename(root.parent / "engines")
    (root / "engines").symlink_to(root.parent / "engines")
    assert "is a link" in refused(root)
    (root / MANIFEST).rename(root.parent / MANIFEST)
    (root / MANIFEST).symlink_to(root.parent / MANIFEST)
    assert "is a link" in refused(root)


@pytest.mark.parametrize("schema", [0, 2, "1", None, True, 1.0, [1]])
def test_another_schema_is_refused(root: Path, schema: object) -> None:
    manifest = json.loads((root / MANIFEST).read_text())
    (root / MANIFEST).write_text(json.dumps({**manifest, "schema": schema}))
    assert "schema" in refused(root)


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{", b"\xff\xfe", b"null", b'{"schema": NaN}', b"[" * 100000]
)
def test_what_is_no_manifest_is_refused(root: Path, text: bytes) -> None:
    (root / MANIFEST).write_bytes(text)
    refused(root)


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


def test_an_infinite_threshold_is_refused(root: Path) -> None:
    text = (root / MANIFEST).read_text()
    (root / MANIFEST).write_text(text.replace('"value": 0.25', '"value": 1e999'))
    refused(root)
    with pytest.raises(InputError, match="not finite"):
        write(root.parent / "other", threshold={"value": float("nan")})


def test_a_missing_bundle_names_the_command(tmp_path: Path) -> None:
    assert "python -m ndp_edge.build" in refused(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "no bundle" in refused(tmp_path / "empty")


def test_an_existing_bundle_is_kept_unless_forced(root: Path) -> None:
    before = Bundle.open(root).hash
    with pytest.raises(InputError, match="--force"):
        write(root, threshold={"value": 0.5})
    assert Bundle.open(root).hash == before
    assert leftovers(root) == []
    write(root, force=True, threshold={"value": 0.5})
    assert Bundle.open(root).threshold == 0.5
    assert leftovers(root) == []


def test_what_is_no_bundle_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs" / "precious.png").write_bytes(b"x")
    (tmp_path / "file").write_bytes(b"x")
    for name in ("photographs", "file"):
        with pytest.raises(InputError, match="not a bundle"):
            write(tmp_path / name, force=True)
    assert (tmp_path / "photographs" / "precious.png").read_bytes() == b"x"


def test_an_empty_directory_is_filled(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    Bundle.open(write(tmp_path / "bundle"))


def test_two_renames_do_where_the_kernel_cannot_exchange(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "_exchange", lambda first, second: False)
    write(root, force=True, threshold={"value": 0.5})
    assert Bundle.open(root).threshold == 0.5
    assert leftovers(root) == []


def test_an_old_bundle_set_aside_by_a_killed_build_comes_back(root: Path) -> None:
    root.rename(root.with_name(".bundle.1-00.ndp-old"))
    with BundleWriter(root):
        pass
    Bundle.open(root)
    assert leftovers(root) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_full_disk_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def full(handle: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=os.strerror(code)):
        write(tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), BundleWriter(tmp_path / "bundle") as writer:
        writer.path("model.onnx").write_bytes(b"x")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def _die_within_a_build(out: Path) -> None:
    with BundleWriter(out) as writer:
        writer.path("model.onnx").write_bytes(b"x")
        os._exit(9)  # as SIGKILL: no cleanup runs


def test_the_next_build_cleans_up_after_a_dead_one_but_not_a_living_one(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    process = multiprocessing.get_context("spawn").Process(target=_die_within_a_build, args=(out,))
    process.start()
    process.join(60)
    assert not out.exists()
    dead = leftovers(out)
    assert len(dead) == 1
    with BundleWriter(out) as first:
        assert dead[0] not in leftovers(out)
        with BundleWriter(out) as second:
            first.path("x").write_bytes(b"1")
            second.path("x").write_bytes(b"2")
        assert first.path("x").read_bytes() == b"1"
    assert list(tmp_path.iterdir()) == []


STEPS = ("bundle.seal", "bundle.put_in_place", "atomic.sync_tree", "atomic._exchange")
WORKER = """
import json, os, sys
from pathlib import Path
from ndp_edge import atomic, bundle
module, name = sys.argv[2].split(".")
module = {"bundle": bundle, "atomic": atomic}[module]
real = getattr(module, name)
def die(*a):
    if sys.argv[3] == "after":
        real(*a)
    os.kill(os.getpid(), 9)
setattr(module, name, die)
with bundle.BundleWriter(Path(sys.argv[1])) as writer:
    for name in ("model.onnx", "engines/openvino-int8.onnx", "golden.npz"):
        writer.path(name).write_bytes(b"new")
    writer.commit(json.loads(sys.argv[4]), force=True)
"""


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("existing", [False, True])
def test_a_kill_around_each_step_of_a_commit_leaves_old_or_new(
    tmp_path: Path, step: str, moment: str, existing: bool
) -> None:
    out = tmp_path / "bundle"
    if existing:
        write(out)
    new = json.dumps(content(threshold={"value": 0.5}))
    done = subprocess.run([sys.executable, "-c", WORKER, out, step, moment, new], check=False)
    if step == "atomic._exchange" and not existing:
        assert done.returncode == 0  # nothing to exchange: the step is never reached
    else:
        assert done.returncode == -signal.SIGKILL
    renamed = moment == "after" and step in ("bundle.put_in_place", "atomic._exchange")
    if renamed or done.returncode == 0:
        assert Bundle.open(out).threshold == 0.5
    elif existing:
        assert Bundle.open(out).threshold == 0.25
    else:
        assert not out.exists()
    Bundle.open(write(out, force=True))
    assert leftovers(out) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(InputError, match="cannot write"),
        BundleWriter(tmp_path / "file" / "bundle"),
    ):
        pass


def test_a_report_replaces_only_a_report(tmp_path: Path) -> None:
    out = tmp_path / "bundle.failed"
    for text in ("1", "2"):
        with BundleWriter(out) as writer:
            writer.path("report.json").write_text(text)
            writer.commit_plain()
    assert (out / "report.json").read_text() == "2"
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not a report"), BundleWriter(out) as writer:
        writer.commit_plain()
    assert leftovers(out) == []
