"""What a result must say of where it was measured."""

from __future__ import annotations

import datetime
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from ndp_edge import __version__
from ndp_edge.errors import MachineError
from ndp_edge.native.compile import find_nvcc

DRY_RUN = "none: dry run on the host build"


def root() -> Path:
    """The checkout (or what stands around the package), links resolved."""
    return Path(__file__).resolve().parents[2]


def describe(dry_run: bool) -> dict[str, Any]:
    """Device, driver, architecture, versions, date and commit."""
    found: dict[str, Any] = {
        "device": DRY_RUN,
        "date": datetime.date.today().isoformat(),
        "ndp_edge": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
        "numpy": metadata.version("numpy"),
    }
    if not dry_run:
        found |= _device() | {"nvcc": _nvcc()}
    return found


def _device() -> dict[str, Any]:
    import torch

    properties = torch.cuda.get_device_properties(0)
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return {
        "device": properties.name,
        "sm": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "l2_mib": round(getattr(properties, "L2_cache_size", 0) / 2**20, 1),
        "driver": next(iter(_said(query).splitlines()), "unknown"),
        "torch_cuda": torch.version.cuda,
    }


def _nvcc() -> str:
    try:
        said = _said([find_nvcc(), "--version"])
    except MachineError:
        return "none"
    return next((line for line in said.splitlines() if "release" in line), "unknown").strip()


def _commit() -> str:
    """The commit, with a + where the tree differs from it; "none" outside a checkout."""
    git = ["git", "-C", str(root())]
    commit = _said([*git, "rev-parse", "--short=12", "HEAD"]).strip()
    if not commit:
        return "none"
    return commit + ("+" if _said([*git, "status", "--porcelain"]).strip() else "")


def _said(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
