"""Checkpoints: safetensors with the net's configuration inside. No torch, no pickle."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from ndp_edge.errors import InputError
from ndp_edge.files import write_atomic
from ndp_edge.model.config import NdpConfig

FORMAT = "ndp-edge-checkpoint-1"
CHECKPOINT_NAME = "model.safetensors"
"""The file a training run keeps its net in."""


@dataclass
class Checkpoint:
    """One trained (or fresh) net.

    Attributes:
        config: its shape.
        weights: float32 arrays under torch's state_dict names.
        training: what training recorded: seed, steps, data and split hashes, losses used.
    """

    config: NdpConfig
    weights: dict[str, NDArray[Any]]
    training: dict[str, Any] = field(default_factory=dict)


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write atomically: a killed process leaves the old file or the new one."""
    metadata = {
        "format": FORMAT,
        "config": checkpoint.config.to_json(),
        "training": json.dumps(checkpoint.training, sort_keys=True),
    }
    weights = {k: np.ascontiguousarray(v) for k, v in checkpoint.weights.items()}
    write_atomic(path, safetensors.numpy.save(weights, metadata))


def load(path: Path) -> Checkpoint:
    """Read a training run's folder or its safetensors file.

    Raises:
        InputError: missing, not a safetensors file, or not one of ours.
    """
    file = path / CHECKPOINT_NAME if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"no checkpoint at {file}; python -m ndp_edge.train makes one")
    try:
        with safe_open(file, framework="numpy") as handle:
            metadata = handle.metadata() or {}
            names = handle.keys()  # a handle is no dict
            weights = {name: handle.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} is not a checkpoint: {error}") from error
    if metadata.get("format") != FORMAT:
        raise InputError(f"{file} is a safetensors file, but not a checkpoint of ndp-edge")
    config = NdpConfig.from_json(metadata.get("config", ""))
    return Checkpoint(config, weights, json.loads(metadata.get("training", "{}")))
