"""A training run becomes one checked ONNX file; an ONNX file says what it is."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray

import ndp_edge
from ndp_edge import checkpoint as checkpoints
from ndp_edge.errors import InputError
from ndp_edge.export.check import check_pictures, compare_with_torch
from ndp_edge.export.graph import build_graph
from ndp_edge.files import write_atomic
from ndp_edge.model.config import NdpConfig
from ndp_edge.model.load import load_net


def export_onnx(
    checkpoint_path: Path,
    out: Path,
    *,
    images: NDArray[np.uint8] | None,
    check: bool = True,
) -> dict[str, Any]:
    """Write a checkpoint's net to `out` as ONNX with local functions.

    Args:
        checkpoint_path: a training run's folder or its safetensors file.
        out: the file to write; an existing one is replaced once the new one has passed.
        images: uint8 [N, S, S, 3] RGB, real pictures for the check; None: made ones only.
        check: compare with torch before anything is written.

    Returns:
        {"file", "bytes", "sha256", "preset", "image_size", "check": see
        `check.compare_with_torch`, or None when unchecked}.

    Raises:
        InputError: not a checkpoint, weights that do not fit, images of another size or type.
        MachineError: `check` needs torch and there is none.
        GateError: the check failed; `out` is as it was before, and nothing else is left.
    """
    checkpoint = checkpoints.load(checkpoint_path)
    size = checkpoint.config.image_size
    _check_images(images, size)
    _check_target(out)
    net = load_net(checkpoint) if check else None
    data = build_graph(checkpoint).SerializeToString(deterministic=True)
    # Before anything is written: a check that fails, or is killed, leaves nothing behind.
    found = compare_with_torch(data, net, check_pictures(size, images)) if net else None
    write_atomic(out, data)
    return {
        "file": str(out),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "preset": checkpoint.config.preset,
        "image_size": size,
        "check": found,
    }


def _check_target(out: Path) -> None:
    if out.is_dir():
        raise InputError(f"{out} is a folder; name a file")
    if not out.parent.is_dir():
        raise InputError(f"there is no folder {out.parent}; make it first")


def _check_images(images: NDArray[np.uint8] | None, size: int) -> None:
    if images is None:
        return
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (size, size, 3):
        raise InputError(
            f"check images are {images.dtype} {list(images.shape)}; wanted uint8 "
            f"[N, {size}, {size}, 3]"
        )


def load_model(path: Path) -> onnx.ModelProto:
    """Read an ONNX file.

    Raises:
        InputError: there is none, or it is not ONNX.
    """
    if not path.is_file():
        raise InputError(f"no ONNX at {path}; python -m ndp_edge.export makes one")
    try:
        model = onnx.load(path)
    except DecodeError as error:
        raise InputError(f"{path} is not an ONNX model: {error}") from error
    if not model.graph.node:
        raise InputError(f"{path} is not an ONNX model: it has no graph")
    return model


def read_config(model: onnx.ModelProto | Path) -> tuple[NdpConfig, dict[str, Any]]:
    """The configuration and the training record that an exported model carries.

    Raises:
        InputError: not an ONNX model, or not one that ndp-edge exported.
    """
    name = str(model) if isinstance(model, Path) else "the model"
    loaded = load_model(model) if isinstance(model, Path) else model
    props = {entry.key: entry.value for entry in loaded.metadata_props}
    if "ndp_edge.config" not in props:
        raise InputError(f"{name} is not an ONNX model that ndp-edge {ndp_edge.__version__} knows")
    try:
        training = json.loads(props.get("ndp_edge.training", "{}"))
    except ValueError as error:
        raise InputError(f"{name}: its training record is not JSON: {error}") from error
    if not isinstance(training, dict):
        raise InputError(f"{name}: its training record is not a JSON object")
    return NdpConfig.from_json(props["ndp_edge.config"]), training
