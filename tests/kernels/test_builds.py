"""`make kernels` and CMake: what they would build, and the host build that needs no CUDA."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ndp_edge.bench.kernel_resources import ARCHITECTURES, FLAGS
from ndp_edge.native.compile import KERNELS, kernels_folder
from ndp_edge.native.host import HostKernels

CMAKE = (kernels_folder() / "CMakeLists.txt").read_text()


def run(*command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def test_cmake_builds_what_the_table_was_measured_on() -> None:
    """Machine code for every architecture, and PTX for the last alone, which later ones take."""
    (listed,) = re.findall(r'"(75[^"]*)"', CMAKE)
    *real, last = listed.split(";")
    assert [*real, f"{last}-real"] == [f"{arch}-real" for arch in ARCHITECTURES]
    (sources,) = re.findall(r"set\(sources (.*)\)", CMAKE)
    assert sources.split() == [f"src/{name}" for name in KERNELS]
    assert "-lineinfo" in CMAKE and "CMAKE_CUDA_STANDARD 17" in CMAKE
    assert FLAGS == ("-std=c++17", "-O3", "-lineinfo")


def test_make_kernels_without_nvcc_says_so_in_one_line() -> None:
    if shutil.which("make") is None:
        pytest.skip("no make: apt install make")
    nowhere = "NVCC=/nowhere/nvcc"
    done = run("make", "--no-print-directory", "kernels", nowhere, cwd=kernels_folder().parent)
    first, *rest = done.stderr.splitlines()
    assert first.startswith("make kernels: no nvcc; install ")
    assert len(rest) == 1
    assert rest[0].endswith("Error 3"), "make itself ends with 2 whatever a recipe ends with"


@pytest.mark.slow
def test_cmakes_host_build_answers(tmp_path: Path) -> None:
    for program in ("cmake", "g++"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}: apt install {program}")
    made = run("cmake", "-S", kernels_folder(), "-B", tmp_path, "-DNDP_HOST=ON")
    assert made.returncode == 0, made.stderr
    assert "CMAKE_CUDA_COMPILER" not in (tmp_path / "CMakeCache.txt").read_text()
    made = run("cmake", "--build", tmp_path, "--parallel", "2")
    assert made.returncode == 0, made.stderr
    kernels = HostKernels(tmp_path / "libndp_kernels_host.so")
    assert kernels.smooth_max(np.ones((1, 3, 5), np.float32))[1].tolist() == [1.0]
