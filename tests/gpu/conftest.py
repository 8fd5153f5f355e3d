"""The GPU for the checks of `ndp_edge.bench.gpu`. What is marked gpu skips without one, or fails
with NDP_REQUIRE_GPU=1: tests/conftest.py."""

from __future__ import annotations

import pytest

from ndp_edge.bench.gpu.rig import Rig, cuda_rig


@pytest.fixture(scope="session")
def rig() -> Rig:
    """The kernels compiled for the first GPU."""
    return cuda_rig()
