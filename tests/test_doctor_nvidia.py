"""What the doctor says of NVIDIA's parts, with the driver played by a library of our own."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ndp_edge import doctor_nvidia, finding
from ndp_edge.finding import Finding

Driver = Callable[..., None]
Found = Callable[[], dict[str, Finding]]

LIBCUDA = r"""
#include <cstring>
#include <cstddef>
extern "C" {
int cuInit(unsigned) { return INIT; }
int cuDriverGetVersion(int* v) { *v = 12060; return 0; }
int cuDeviceGetCount(int* n) { *n = CARDS; return 0; }
int cuDeviceGet(int* d, int i) { *d = i; return 0; }
int cuDeviceGetName(char* name, int, int) { std::strcpy(name, "Orin (nvgpu)"); return 0; }
int cuDeviceTotalMem_v2(size_t* bytes, int) { *bytes = size_t{8} << 30; return 0; }
int cuDeviceGetAttribute(int* v, int attribute, int) {
  *v = attribute == 75 ? 8 : attribute == 76 ? 7 : -1;
  return 0;
}
}
"""


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    """Puts a libcuda.so.1 with that many cards, and that answer of cuInit, before any other."""
    compiler = shutil.which("g++") or pytest.skip("no g++ to make a libcuda of")
    (tmp_path / "cuda.cpp").write_text(LIBCUDA)

    def install(cards: int = 1, init: int = 0) -> None:
        words = [f"-DCARDS={cards}", f"-DINIT={init}", "-shared", "-fPIC", "cuda.cpp"]
        command = [compiler, *words, "-o", "libcuda.so.1"]
        subprocess.run(command, check=True, cwd=tmp_path)
        monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))

    return install


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Found:
    """The doctor's findings by name, on a machine without files and packages of NVIDIA's."""
    monkeypatch.setattr(finding, "lines", lambda _path: [])
    monkeypatch.setattr(finding, "version", lambda _name: None)
    monkeypatch.setenv("NDP_NVCC", str(tmp_path / "none"))
    monkeypatch.setenv("NDP_EDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TENSORRT_INCLUDE_DIR", raising=False)
    return lambda: {one.name: one for one in doctor_nvidia.nvidia()}


def fake_nvcc(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvcc = folder / "nvcc"
    nvcc.write_text(
        "#!/bin/sh\n"
        "[ \"$1\" = --version ] && echo 'Cuda compilation tools, release 12.6, V12.6.68'\n"
        'while [ $# -gt 1 ]; do [ "$1" = -o ] && echo made > "$2"; shift; done\nexit 0\n'
    )
    nvcc.chmod(0o755)
    monkeypatch.setenv("NDP_NVCC", str(nvcc))


def test_a_card_with_everything(
    driver: Driver, found: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver()
    fake_nvcc(tmp_path, monkeypatch)
    (tmp_path / "NvInferVersion.h").write_text(
        "#define NV_TENSORRT_MAJOR 10\n#define NV_TENSORRT_MINOR 3\n"
    )
    monkeypatch.setenv("TENSORRT_INCLUDE_DIR", str(tmp_path))
    tegra = ["# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic"]
    files = {"/sys/module/nvidia/version": ["540.4.0"], "/etc/nv_tegra_release": tegra}
    monkeypatch.setattr(finding, "lines", lambda path: files.get(path, []))
    monkeypatch.setattr(finding, "version", lambda n: "10.3.0" if n == "tensorrt" else None)
    before = found()
    assert before["nvidia driver"].detail == "540.4.0, CUDA 12.6, R36 (release), REVISION: 4.3"
    assert before["nvidia gpu"].detail == "Orin (nvgpu), SM 8.7, 8.0 GiB"
    assert before["nvcc"].detail.startswith("12.6, V12.6.68 (")
    assert before["tensorrt headers"].detail == f"10.3 ({tmp_path})"
    assert all(one.found for name, one in before.items() if name != "tensorrt plugin")
    said = "not compiled yet: the first build for this card does it"
    assert before["tensorrt plugin"] == Finding("tensorrt plugin", False, said)

    from ndp_edge.native.plugin import plugin_library

    library = plugin_library("10.3.0", 87)
    assert found()["tensorrt plugin"] == Finding("tensorrt plugin", True, str(library))


def test_two_cards_are_two_lines(driver: Driver, found: Found) -> None:
    driver(cards=2)
    assert {"nvidia gpu 0", "nvidia gpu 1"} <= set(found())


@pytest.mark.parametrize(("cards", "init"), [(0, 0), (0, 100)])
def test_a_driver_without_a_card(driver: Driver, found: Found, cards: int, init: int) -> None:
    driver(cards=cards, init=init)
    said = found()
    assert said["nvidia driver"].found == (init == 0)
    assert said["nvidia gpu"] == Finding("nvidia gpu", False, "none")
    if init:
        assert "CUDA 12.6, but cuInit fails with 100" in said["nvidia driver"].detail
    assert said["tensorrt plugin"].detail == "not compiled here: no tensorrt and card"


def test_no_driver(found: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "ask", lambda *_a, **_k: "")
    said = found()
    assert not any(one.found for one in said.values())
    assert said["nvidia driver"].detail.startswith("missing: no libcuda answers")
    assert said["nvcc"].detail.startswith("missing: install the CUDA toolkit")
    assert "apt install libnvinfer-headers-dev" in said["tensorrt headers"].detail


def test_what_the_plugin_lacks_is_named(
    driver: Driver, found: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver()
    monkeypatch.setattr(finding, "version", lambda n: "10.3.0" if n == "tensorrt" else None)
    monkeypatch.setenv("TENSORRT_INCLUDE_DIR", str(tmp_path / "none"))
    said = found()
    assert not said["tensorrt headers"].found
    assert said["tensorrt plugin"].detail.startswith("cannot be compiled: the plugin needs the hea")
    (tmp_path / "NvInferVersion.h").write_text(
        "#define NV_TENSORRT_MAJOR 10\n#define NV_TENSORRT_MINOR 3\n"
    )
    monkeypatch.setenv("TENSORRT_INCLUDE_DIR", str(tmp_path))
    assert "NDP_NVCC" in found()["tensorrt plugin"].detail
