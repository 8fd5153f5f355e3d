"""That the sanitizers' tests see what they are for: faults planted in copies of the sources."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ndp_edge.native.compile import kernels_folder


@dataclass(frozen=True)
class Plant:
    """A fault: what replaces the one place of the sources that `place` matches."""

    kernel: str
    flavour: str
    place: str
    fault: str
    report: str

    def sow(self, folder: Path) -> Path:
        """A copy of the kernels with the fault in it."""
        root = folder / "kernels"
        shutil.copytree(kernels_folder(), root)
        files = sorted((root / "src").glob("*.cu*"))
        found = {path: len(re.findall(self.place, path.read_text())) for path in files}
        assert sum(found.values()) == 1, (
            f"{self.place!r} should be in the sources once and is there {sum(found.values())} "
            "times: the kernels have changed, so choose another place for this fault"
        )
        path = next(path for path, count in found.items() if count)
        path.write_text(re.sub(self.place, self.fault, path.read_text()))
        return root


BARRIER = r"__syncthreads\(\);"
PLANTS = {
    "a store past the end": Plant(
        "ffm_select", "address", r"(store_run\(selected \+ at)(, out\))", r"\1 + kLength\2",
        "heap-buffer-overflow",
    ),
    "a store past the end of U": Plant(
        "rbfrm", "address", r"(p\.fused\) \+ at\.offset)", r"\1 + Shape::kLength",
        "heap-buffer-overflow",
    ),
    "a map that begins one pixel late": Plant(
        "smooth_max", "address", r"(smoothed\[)(map \+)", r"\g<1>1 + \2", "heap-buffer-overflow",
    ),
    "the same, between guard bands": Plant(
        "smooth_max", "plain", r"(smoothed\[)(map \+)", r"\g<1>1 + \2", "wrote behind smoothed",
    ),
    "no barrier behind the tile": Plant(
        "smooth_max", "thread", BARRIER + r"(\s+const int in_y)", r"\1", "data race",
    ),
    "no barrier before the maximum": Plant(
        "smooth_max", "thread", BARRIER + r"(\s+if \(threadIdx.x == 0\)\s+for)", r"\1",
        "data race",
    ),
    "no barrier before a stage is read": Plant(
        "rbfrm", "thread", r"(__pipeline_wait_prior\(Stages - 1\);\s+)" + BARRIER, r"\1",
        "data race",
    ),
    "no barrier before a stage is overwritten": Plant(
        "rbfrm", "thread", r"(compute\(\(step - first\) % Stages\);\s+)" + BARRIER, r"\1",
        "data race",
    ),
    "no barrier before sums are read": Plant(
        "rbfrm", "thread", r"(scratch\[warp \* N \+ i\] = values\[i\];\s+)" + BARRIER, r"\1",
        "data race",
    ),
    "no barrier before a tile is written out": Plant(
        "rbfrm", "thread", r"(blend\.store\(half_block[^\n]+\s+)" + BARRIER, r"\1", "data race",
    ),
}  # fmt: skip
QUICK = {"a store past the end", "the same, between guard bands", "no barrier behind the tile"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in PLANTS]
)
def test_a_planted_fault_is_caught(workshop: Any, cases: Any, tmp_path: Path, name: str) -> None:
    """The fault lives in a copy of the sources; without it these very cases pass."""
    plant = PLANTS[name]
    workshop.skip_without(plant.flavour)
    planted = plant.sow(tmp_path)
    done = workshop.run(plant.flavour, cases(plant.kernel, plant.flavour), planted, plant.kernel)
    assert done.returncode != 0, f"{name}: nobody noticed"
    assert plant.report in done.stderr, done.stderr


def test_a_place_that_is_gone_is_said_plainly(tmp_path: Path) -> None:
    """Else a fault that can no longer be planted would pass for one that was caught."""
    with pytest.raises(AssertionError, match="choose another place"):
        Plant("rbfrm", "address", "no such words", "", "").sow(tmp_path)
