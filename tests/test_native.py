"""The kernels' library: compiled once, kept by what it was made of, and the C interface kept."""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ndp_edge import reference
from ndp_edge.errors import InputError, MachineError
from ndp_edge.native import compile as native
from ndp_edge.native import library
from ndp_edge.native.host import HostKernels, aligned

CXX = shutil.which(os.environ.get("CXX", "g++"))
needs_compiler = pytest.mark.skipif(CXX is None, reason="no C++ compiler: apt install g++")

COMPILER = """#!/bin/sh
echo "$@" >> "$LOG"
if [ "$1" = --version ]; then echo "fake $FAKE_VERSION"; exit 0; fi
if [ -n "$FAKE_ERROR" ]; then echo "In file included from x"; echo "$FAKE_ERROR" >&2; exit 1; fi
while [ "$1" != -o ]; do shift; done
sleep "${FAKE_SLEEP:-0}"; echo made > "$2"
"""


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compiler that writes down how it was called, and a cache and sources of its own."""
    path = tmp_path / "bin" / "nvcc"
    path.parent.mkdir()
    path.write_text(COMPILER)
    path.chmod(0o755)
    sources = tmp_path / "kernels"
    for name in ("src/ndp_kernels.h", "src/rbfrm.cu", "host/cuda_words.h", "README.md"):
        (sources / name).parent.mkdir(parents=True, exist_ok=True)
        (sources / name).write_text(name)
    for name, value in (
        ("CXX", path), ("NDP_NVCC", path), ("LOG", tmp_path / "log"), ("FAKE_VERSION", "1"),
        ("NDP_EDGE_CACHE", tmp_path / "cache"), ("NDP_KERNELS", sources),
    ):  # fmt: skip
        monkeypatch.setenv(name, str(value))
    return path


def compilations(compiler: Path) -> list[str]:
    """The command lines that compiled something."""
    log = compiler.parent.parent / "log"
    return [line for line in log.read_text().splitlines() if line != "--version"]


def test_a_library_is_compiled_once(compiler: Path, tmp_path: Path) -> None:
    made = native.build_device(90)
    assert made.read_text() == "made\n"
    assert made.parent == tmp_path / "cache" / "kernels"
    assert native.build_device(90) == made
    (command,) = compilations(compiler)
    assert "arch=compute_90,code=sm_90" in command
    assert all(f"src/{name}" in command for name in native.KERNELS)
    assert [path.name for path in made.parent.iterdir()] == [made.name]


def test_whatever_changes_the_library_changes_its_name(
    compiler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [native.build_device(90), native.build_device(80), native.build_host()]
    names.append(native.build_host(["-O1", "-fsanitize=address"]))
    (tmp_path / "kernels" / "src" / "ndp_kernels.h").write_text("another interface")
    names.append(native.build_device(90))
    (tmp_path / "kernels" / "src" / "new.cuh").write_text("")
    names.append(native.build_device(90))
    monkeypatch.setenv("FAKE_VERSION", "2")
    names.append(native.build_device(90))
    assert len(set(names)) == len(names) == len(compilations(compiler))


def test_nothing_else_changes_its_name(
    compiler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = native.build_device(90)
    (tmp_path / "kernels" / "README.md").write_text("other words")
    shutil.copytree(tmp_path / "kernels", tmp_path / "elsewhere")
    monkeypatch.setenv("NDP_KERNELS", str(tmp_path / "elsewhere"))
    assert native.build_device(90) == before


def test_two_processes_at_once_each_get_a_whole_library(
    compiler: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_SLEEP", "0.5")
    code = "from ndp_edge.native.compile import build_host; print(build_host().read_text())"
    runs = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [run.communicate()[0].split() for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert said == [["made"], ["made"]]
    assert len(compilations(compiler)) == 2, "they were not at it at the same time"
    assert len(list(native.cache_folder().iterdir())) == 1


def test_a_compilers_refusal_is_one_line(compiler: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_ERROR", "rbfrm.cu(3): error: no such word\n1 error in all")
    with pytest.raises(MachineError, match=r"nvcc cannot compile .*: rbfrm\.cu\(3\): error: no"):
        native.build_device(90)
    assert list(native.cache_folder().iterdir()) == []


@pytest.mark.parametrize(
    ("target", "variable", "word"),
    [(native.build_host, "CXX", r"g\+\+"), (lambda: native.build_device(90), "NDP_NVCC", "CUDA")],
)
def test_a_missing_compiler_is_named(
    compiler: Path, monkeypatch: pytest.MonkeyPatch, target: object, variable: str, word: str
) -> None:
    assert callable(target)
    monkeypatch.setenv(variable, "/nowhere/compiler")
    with pytest.raises(MachineError, match=rf"{variable}=/nowhere/compiler .*install.*{word}"):
        target()


def test_nvcc_is_looked_for_in_this_order(
    compiler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "cuda" / "bin" / "nvcc"
    home.parent.mkdir(parents=True)
    shutil.copy(compiler, home)
    other = tmp_path / "other" / "nvcc"
    other.parent.mkdir()
    shutil.copy(compiler, other)
    monkeypatch.setenv("NDP_NVCC", str(other))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    monkeypatch.setenv("PATH", str(compiler.parent))
    assert native.find_nvcc() == str(other)
    monkeypatch.delenv("NDP_NVCC")
    assert native.find_nvcc() == str(home)
    monkeypatch.delenv("CUDA_HOME")
    assert native.find_nvcc() == str(compiler)


def test_a_cache_that_cannot_be_written_is_named(
    compiler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NDP_EDGE_CACHE", str(tmp_path / "file"))
    with pytest.raises(MachineError, match=r"cannot be written.*NDP_EDGE_CACHE"):
        native.build_device(90)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NDP_EDGE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert native.cache_folder() == tmp_path / "ndp-edge" / "kernels"
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")  # the specification: ignore it
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert native.cache_folder() == tmp_path / "home" / ".cache" / "ndp-edge" / "kernels"


def test_missing_sources_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NDP_KERNELS", str(tmp_path))
    with pytest.raises(MachineError, match=f"no kernel sources in {tmp_path}; reinstall"):
        native.build_host()


@needs_compiler
def test_what_is_no_kernel_library_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.so"
    text.write_text("no library")
    with pytest.raises(MachineError, match=r"text\.so is no kernel library"):
        library.Library(text)
    for code, message in (
        ("int nothing;", "no kernel library"),
        ("int ndp_kernels_abi(void) { return 999; }", "interface 999, this package wants 1"),
    ):
        source = tmp_path / "other.c"
        source.write_text(code)
        made = tmp_path / f"other{len(code)}.so"
        subprocess.run([str(CXX), "-x", "c", source, "-shared", "-fPIC", "-o", made], check=True)
        with pytest.raises(MachineError, match=message):
            library.Library(made)


STRUCTS = {
    "NdpRbfrm": library._Rbfrm,
    "NdpFfmSelect": library._FfmSelect,
    "NdpSmoothMax": library._SmoothMax,
}


@needs_compiler
def test_the_structures_are_those_of_the_header(tmp_path: Path) -> None:
    """Field by field where C puts it: a swapped pair of pointers would be a silent wrong result."""
    lines, wanted = [], []
    for name, struct in STRUCTS.items():
        lines.append(f'std::printf("{name} %zu\\n", sizeof({name}));')
        wanted.append(f"{name} {ctypes.sizeof(struct)}")
        for field in (one[0] for one in struct._fields_):
            place = f"offsetof({name}, {field}), sizeof({name}::{field})"
            lines.append(f'std::printf("{field} %zu %zu\\n", {place});')
            descriptor = getattr(struct, field)
            wanted.append(f"{field} {descriptor.offset} {descriptor.size}")
    source = tmp_path / "probe.cpp"
    head = '#include <cstdio>\n#include "ndp_kernels.h"\n'
    source.write_text(f"{head}int main() {{ {' '.join(lines)} }}\n")
    include = native.kernels_folder() / "src"
    probe = tmp_path / "probe"
    subprocess.run([str(CXX), source, "-I", include, "-o", probe], check=True)
    said = subprocess.run([probe], check=True, capture_output=True, text=True).stdout
    assert said.splitlines() == wanted


# --- the door for NumPy ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def host() -> HostKernels:
    """The real sources on the CPU; tests/kernels looks at their numbers closely."""
    if CXX is None:
        pytest.skip("no C++ compiler: apt install g++")
    return HostKernels()


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_arrays_of_any_strides_and_places_are_taken(host: HostKernels, layout: str) -> None:
    rng = np.random.default_rng(0)
    f = rng.random((8, 4, 2, 8), np.float32).transpose(2, 0, 1, 3)
    ref = np.frombuffer(b"\0\0\0\0" + rng.random((8, 8, 4), np.float32).tobytes(), np.float32)
    ref = ref[1:].reshape(8, 8, 4)
    assert not f.flags.c_contiguous
    before = f.copy()
    rep2, rep4, fused = host.rbfrm(f, ref, 2.0, layout)
    for i in range(2):
        assert np.abs(rep2[i] - reference.rbfrm(f[i], ref, 2, 2.0)).max() < 1e-6
        assert np.abs(rep4[i] - reference.rbfrm(f[i], ref, 4, 2.0)).max() < 1e-6
    assert np.allclose(fused, f + rep2 + rep4, atol=1e-6)
    assert np.array_equal(f, before)
    logits = rng.random((2, 24, 4, 8), np.float32)
    selected = host.ffm_select(logits, rep4, rep2, f, layout)
    judge = reference.ffm_select(logits[1].reshape(3, 8, 4, 8), rep4[1], rep2[1], f[1])
    assert np.abs(selected[1] - judge).max() < 1e-6
    smoothed, peaks = host.smooth_max(f[:, :, 0, :])
    assert np.array_equal(smoothed[1], reference.median_filter(f[1, :, 0, :]))
    assert np.array_equal(peaks, smoothed.max(axis=(1, 2)))


def test_the_door_refuses_what_pointers_would_hide(host: HostKernels) -> None:
    f = np.ones((1, 8, 4, 4), np.float32)
    wrong = {
        "wanted nchw or nhwc": lambda: host.rbfrm(f, f[0], layout="chwn"),
        "float16 or float32": lambda: host.rbfrm(f.astype(float), f[0].astype(float)),
        r"wanted \[8, h, w\]": lambda: host.rbfrm(f, f[0, :4]),
        "reference is float16": lambda: host.rbfrm(f, f[0].astype(np.float16)),
        "images": lambda: host.rbfrm(f[:0], f[0]),
        "softmax_scale": lambda: host.rbfrm(f, f[0], 0.0),
        "do not belong together": lambda: host.ffm_select(f, f, f, f),
        "differ": lambda: host.ffm_select(
            np.ones((1, 24, 4, 4), np.float32), f, f.astype(np.float16), f
        ),
        r"wanted float32 \[N, H, W\]": lambda: host.smooth_max(f),
        "height": lambda: host.smooth_max(f[:, 0, :0]),
    }
    for message, call in wrong.items():
        with pytest.raises(InputError, match=message):
            call()


def test_new_arrays_are_aligned_and_full_of_nan() -> None:
    for shape, dtype in (((3, 5), np.float16), ((7,), np.float32), ((0,), np.uint8)):
        array = aligned(shape, dtype)
        assert (array.shape, array.dtype) == (shape, dtype)
        assert array.ctypes.data % 256 == 0
        assert array.dtype.kind == "u" or np.isnan(array).all()
        array[...] = 1


def test_the_fake_compiler_is_executable(compiler: Path) -> None:
    """Else the tests above would test the PATH's own compiler."""
    assert compiler.stat().st_mode & stat.S_IXUSR
    assert native.find_nvcc() == str(compiler)
