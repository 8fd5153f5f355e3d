"""What every test shares: real data, the GPU rule, hypothesis without luck, plain regions."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

# The same examples every time, and no deadline: CI's two cores are shared and noisy.
settings.register_profile("ndp-edge", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("ndp-edge")


def data_root() -> Path | None:
    """Where the real photographs are: NDP_EDGE_DATA, or shared/data beside the checkout."""
    named = os.environ.get("NDP_EDGE_DATA")
    root = Path(named) if named else ROOT.parent / "shared" / "data"
    return root if root.is_dir() else None


@lru_cache(maxsize=1)
def cuda_devices() -> int:
    """How many CUDA devices the driver shows; 0 without a driver. Asks no Python package."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with kolektor_sdd, dagm_class1 and anomaly_source; skips where it is not."""
    root = data_root()
    if root is None:
        pytest.skip("no real photographs here: set NDP_EDGE_DATA to the folder that has them")
    return root


def _regions_of(mask: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Row and column indices of each 8-connected region, found by flooding."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    regions = []
    while left:
        edge = [left.pop()]
        region = []
        while edge:
            y, x = edge.pop()
            region.append((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            edge += near
        rows, cols = np.array(region).T
        regions.append((rows, cols))
    return regions


@pytest.fixture(scope="session")
def regions_of() -> Callable[[np.ndarray], list[tuple[np.ndarray, np.ndarray]]]:
    """What metrics and postprocess are compared with: regions found by flooding."""
    return _regions_of


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test marked gpu skips without a device, and fails there if NDP_REQUIRE_GPU=1."""
    if item.get_closest_marker("gpu") is None or cuda_devices():
        return
    if os.environ.get("NDP_REQUIRE_GPU") == "1":
        pytest.fail("NDP_REQUIRE_GPU=1, but no CUDA device answers", pytrace=False)
    pytest.skip("no CUDA device here (NDP_REQUIRE_GPU=1 makes this a failure)")


def pytest_report_header() -> list[str]:
    """Says beforehand what will skip."""
    return [
        f"real data: {data_root() or 'none (NDP_EDGE_DATA)'}",
        f"CUDA devices: {cuda_devices()}; CPUs: {os.cpu_count()}",
    ]
