"""What bundles are tested with: a small one whose files are a few bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

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


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """The functions above, for test files that cannot import this one."""
    return SimpleNamespace(
        FILES=FILES,
        content=content,
        write=write,
        reseal=reseal,
        refused=refused,
        leftovers=leftovers,
    )
