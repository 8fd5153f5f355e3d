"""The kernels on a GPU: every check that `bash bench/gpu/verify.sh` runs, one test each."""

from __future__ import annotations

import pytest

from ndp_edge.bench.gpu.checks import Case, cases
from ndp_edge.bench.gpu.rig import Rig

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_kernels(rig: Rig, case: Case) -> None:
    case.run(rig)
