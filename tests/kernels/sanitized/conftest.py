"""Drivers of the kernels in each sanitizer's build, and small calls for them to make."""

from __future__ import annotations

import itertools
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ndp_edge.model.prepared import prepare_reference
from ndp_edge.native.compile import KERNELS, kernels_folder

Array = NDArray[Any]

FLAVOURS = {
    "plain": ["-O2"],
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1"],
    "thread": ["-fsanitize=thread", "-g", "-O1", "-DNDP_HOST_THREADS"],
}
ENVIRONMENT = {
    # A container often forbids the ptrace that leak detection wants; no launcher allocates.
    "ASAN_OPTIONS": "detect_leaks=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1",
}

HEAD = ("dtype", "layout", "images", "channels", "height", "width", "ref_height", "ref_width",
        "multiprocessors")  # fmt: skip
"""The numbers at the head of a case, as kernels/host/driver.cpp reads them."""


def run(command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, **ENVIRONMENT},
    )  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One call: the file that the driver reads, and what its outputs are.

    `light` ones have few blocks: each thread of each is a real one under the thread sanitizer.
    """

    path: Path
    outputs: tuple[tuple[tuple[int, ...], Any], ...]
    light: bool

    @property
    def out(self) -> Path:
        """Where the driver writes."""
        return self.path.with_suffix(".out")

    def answers(self) -> list[Array]:
        """The outputs that the driver wrote, as float64."""
        raw, found = self.out.read_bytes(), []
        for shape, dtype in self.outputs:
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            found.append(np.frombuffer(raw[:size], dtype).reshape(shape).astype(np.float64))
            raw = raw[size:]
        assert raw == b""
        return found


class Workshop:
    """Builds drivers, each flavour once per session, and runs cases through them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.compiler = shutil.which(os.environ.get("CXX", "g++"))
        self._numbers = itertools.count()
        self.skip_without = lru_cache(self._words_in_front)
        self._driver = lru_cache(self._build)
        self._object = lru_cache(self._compiled)

    def _words_in_front(self, flavour: str) -> tuple[str, ...]:
        """Words in front of a program of this flavour; skips where none could run."""
        if self.compiler is None:
            pytest.skip("no C++ compiler: apt install g++")
        source, program = self.folder / "probe.cpp", self.folder / f"probe-{flavour}"
        source.write_text("int main() { return 0; }\n")
        made = run([self.compiler, *FLAVOURS[flavour], source, "-o", program])
        if made.returncode:
            pytest.skip(f"{self.compiler} has no {flavour} sanitizer: {made.stderr.strip()[-200:]}")
        # An older thread sanitizer finds no room for itself among randomly placed memory maps.
        unscattered = ("setarch", platform.machine(), "-R")
        ran = run([program])
        if ran.returncode == 0:
            return ()
        if shutil.which("setarch") and run([*unscattered, program]).returncode == 0:
            return unscattered
        pytest.skip(f"the {flavour} sanitizer does not run here: {ran.stderr.strip()[:200]}")

    def _build(self, flavour: str, planted: Path | None, kernel: str) -> Path:
        folder = self.folder / f"{flavour}-{next(self._numbers)}"
        folder.mkdir()
        root = kernels_folder()
        units = [*(root / "src" / name for name in KERNELS), root / "host" / "runner.cpp"]
        units = [*units, root / "host" / "driver.cpp"]
        if planted:  # of that kernel alone: what else is in the driver is there already
            units = [planted / "src" / f"{kernel}.cu", *(u for u in units if u.stem != kernel)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(lambda unit: self._object(flavour, unit), units))
        self._compile([*FLAVOURS[flavour], "-pthread", *objects, "-o", folder / "driver"])
        return folder / "driver"

    def _compiled(self, flavour: str, unit: Path) -> Path:
        made = self.folder / f"{unit.stem}-{next(self._numbers)}.o"
        host = unit.parent.parent / "host"
        # So little room for work in progress that three groups of patches are two pieces.
        flags = [*FLAVOURS[flavour], "-std=c++17", "-DNDP_HOST", "-DNDP_PIECE_BYTES=1", f"-I{host}"]
        self._compile([*flags, "-pthread", "-x", "c++", "-c", unit, "-o", made])
        return made

    def _compile(self, words: Sequence[str | Path]) -> None:
        done = run([str(self.compiler), *words])
        assert done.returncode == 0, done.stderr

    def case(
        self, kernel: str, inputs: Sequence[Array], outputs: Any, light: bool, **head: int
    ) -> Case:
        """Writes a case, scale 10; `head` holds numbers by their names in the C structure."""
        path = self.folder / f"case-{next(self._numbers)}"
        path.write_bytes(
            kernel.encode().ljust(16, b"\0")
            + np.array([head.get(word, 0) for word in HEAD], "<i4").tobytes()
            + np.array([10], "<f4").tobytes()
            + b"".join(np.ascontiguousarray(array).tobytes() for array in inputs)
        )
        return Case(path, tuple(outputs), light)

    def run(
        self, flavour: str, cases: Sequence[Case], planted: Path | None = None, kernel: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """All cases in one process; `kernel` is taken from the sources in `planted`, if any."""
        words = self.skip_without(flavour)
        driver = self._driver(flavour, planted, kernel)
        for one in cases:
            one.out.unlink(missing_ok=True)
        pairs = [word for one in cases for word in (one.path, one.out)]
        return run([*words, driver, *pairs])


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Where drivers are built and run."""
    return Workshop(tmp_path_factory.mktemp("workshop"))


def head_of(features: Array, nhwc: bool) -> dict[str, int]:
    words = ("images", "channels", "height", "width")
    sizes = dict(zip(words, features.shape, strict=True))
    return {"dtype": int(features.dtype == np.float16), "layout": int(nhwc), **sizes}


def inward(x: Array, nhwc: bool) -> Array:
    return x.transpose(0, 2, 3, 1) if nhwc else x


def rbfrm_case(
    workshop: Workshop, kit: SimpleNamespace, dtype: Any, nhwc: bool, split: bool
) -> Case:
    """Parts of a slab of channels and of a group of patches; more than one group here or there."""
    shape, sides = ((1, 72, 4, 8), (20, 16)) if split else ((2, 24, 4, 68), (12, 8))
    features = kit.surface(shape)[0].astype(dtype)
    reference = kit.surface((1, shape[1], *sides), 1)[1].astype(dtype)
    arrays = [inward(features, nhwc), inward(reference[None], nhwc), prepare_reference(reference)]
    return workshop.case(
        "rbfrm", arrays, [(arrays[0].shape, dtype)] * 3, light=split, **head_of(features, nhwc),
        ref_height=sides[0], ref_width=sides[1], multiprocessors=132 if split else 0,
    )  # fmt: skip


def select_case(workshop: Workshop, kit: SimpleNamespace, dtype: Any, nhwc: bool) -> Case:
    features = kit.surface((1, 24, 4, 12))[0].astype(dtype)
    logits = kit.noise((1, 72, 4, 12))[0].astype(dtype)
    arrays = [inward(x, nhwc) for x in (logits, 2 * features, -features, features)]
    outputs = [(arrays[3].shape, dtype)]
    return workshop.case("ffm_select", arrays, outputs, light=nhwc, **head_of(features, nhwc))


def smooth_case(workshop: Workshop, kit: SimpleNamespace, n: int, height: int, width: int) -> Case:
    maps = kit.noise((n, 1, height, width))[0]
    outputs = [((n, height, width), np.float32), ((n,), np.float32)]
    return workshop.case(
        "smooth_max", [maps], outputs, light=n == 1, images=n, height=height, width=width
    )


@pytest.fixture(scope="session")
def cases(workshop: Workshop, kit: SimpleNamespace) -> Callable[[str, str], list[Case]]:
    """Small odd shapes of a kernel in every type and layout, as many as a flavour can afford."""
    kinds = list(itertools.product((np.float32, np.float16), (True, False)))
    sizes = ((1, 9, 35), (1, 1, 1), (2, 17, 31), (3, 2, 5))
    every = {
        "rbfrm": [rbfrm_case(workshop, kit, *k, split) for k in kinds for split in (True, False)],
        "ffm_select": [select_case(workshop, kit, *k) for k in kinds],
        "smooth_max": [smooth_case(workshop, kit, *size) for size in sizes],
    }
    return lambda kernel, flavour: [c for c in every[kernel] if c.light or flavour != "thread"]
