"""The TensorRT plugin against TensorRT's own headers, where this machine has them.

TENSORRT_INCLUDE_DIR (or the system) has to hold NvInferRuntime.h, of any release from 10.3 on;
several folders, joined by ":", are tried one by one. Without headers every test here is skipped,
and says so.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ndp_edge
from ndp_edge.errors import MachineError
from ndp_edge.native.compile import KERNELS, find_nvcc, kernels_folder
from ndp_edge.native.plugin import headers_version, system_folders

ROOT = kernels_folder()
LIBRARIES = ("GLIBC", "GLIBCXX", "CXXABI", "GCC")
"""Versions of these are what an undefined symbol may ask for; cudart is linked in."""

named = os.environ.get("TENSORRT_INCLUDE_DIR")
FOLDERS = [
    folder
    for folder in ([Path(f) for f in named.split(":")] if named else system_folders())
    if headers_version(folder)
]


def cuda_headers() -> Path:
    """The host build of the plugin needs CUDA's headers too, and no compiler of CUDA's."""
    homes = [os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    for home in filter(None, homes):
        if (Path(home) / "include" / "cuda_runtime_api.h").is_file():
            return Path(home) / "include"
    pytest.skip("no CUDA headers: set CUDA_HOME")


def run(*command: object) -> str:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.fixture(
    scope="module",
    params=FOLDERS or [None],
    ids=lambda f: "none" if f is None else f.parent.name,
)
def headers(request: pytest.FixtureRequest) -> Path:
    """Each folder of headers in turn."""
    folder: Path | None = request.param
    if folder is None:
        pytest.skip("no TensorRT headers: set TENSORRT_INCLUDE_DIR to a release's include")
    return folder


@pytest.fixture(scope="module")
def library(headers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library for a Jetson Orin's architecture, compiled as `ndp_edge.native` does.

    --no-undefined makes the linker refuse what cudart (linked in) and libc do not have.
    """
    try:
        nvcc = find_nvcc()
    except MachineError as error:
        pytest.skip(str(error))
    made = tmp_path_factory.mktemp("plugin") / "libndp_plugin.so"
    target = ["-gencode", "arch=compute_87,code=sm_87"]
    fixed = ["-std=c++17", "-O1", "-shared", "-Xcompiler", "-fPIC,-fvisibility=hidden,-Wall"]
    link = ["-cudart", "static", "-Xlinker", "--no-undefined"]
    sources = [ROOT / "plugin" / "plugin.cpp", *(ROOT / "src" / name for name in KERNELS)]
    run(nvcc, *fixed, *link, *target, "-isystem", headers, *sources, "-o", made)
    return made


def test_the_library_needs_nothing_of_tensorrt(library: Path) -> None:
    if shutil.which("nm") is None:
        pytest.skip("no nm")
    lines = run("nm", "-D", "--undefined-only", library).splitlines()
    asked = [line.split()[-1] for line in lines if " U " in line]
    assert asked
    foreign = [name for name in asked if name.partition("@")[2].split("_")[0] not in LIBRARIES]
    assert foreign == []
    lines = run("nm", "-D", "--defined-only", library).splitlines()
    assert {line.split()[-1] for line in lines if " T " in line} == {
        "getCreators",
        "setLoggerFinder",
    }


def test_the_library_loads_without_a_gpu(library: Path) -> None:
    loaded, count = ctypes.CDLL(str(library)), ctypes.c_int32()
    loaded.getCreators.restype = ctypes.c_void_p
    assert loaded.getCreators(ctypes.byref(count)) and count.value == 2


RTX = """
import sys
from pathlib import Path
import onnx
import tensorrt_rtx_bindings as trt
from ndp_edge.export.plugin_pass import for_plugin
from ndp_edge.native.plugin import load_plugin

registry = trt.get_plugin_registry()
for _ in range(2):
    load_plugin(trt, Path(sys.argv[1]))
there = [creator.name for creator in registry.all_creators]
print("creators", sorted(name for name in there if name in ("RBFRM", "FFMSelect")))
print("made", registry.get_creator("FFMSelect", "1", "").create_plugin(
    "layer", trt.PluginFieldCollection([]), trt.TensorRTPhase.BUILD) is not None)
print("refused", registry.get_creator("RBFRM", "1", "").create_plugin(
    "layer", trt.PluginFieldCollection([]), trt.TensorRTPhase.BUILD) is None, flush=True)
logger = trt.Logger(trt.Logger.INFO)
builder = trt.Builder(logger)
model = for_plugin(onnx.load(sys.argv[2]))
network = builder.create_network(0)
trt.OnnxParser(network, logger).parse(model.SerializeToString())
"""


def test_nvidias_registry_and_parser_take_it(library: Path) -> None:
    """TensorRT-RTX has TensorRT's registry and parser, and needs no card for either.

    It has no way to run a plugin: once the parser has created one from the node's attributes,
    the process aborts. So this goes as far as that line in its log.
    """
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    net = Path(ndp_edge.__file__).parent / "data" / "nano_woven.onnx"
    done = subprocess.run(
        [sys.executable, "-c", RTX, str(library), str(net)],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    for line in ("creators ['FFMSelect', 'RBFRM']", "made True", "refused True"):
        assert line in done.stdout.splitlines(), done.stdout + done.stderr
    assert "Successfully created plugin: RBFRM" in done.stdout + done.stderr


def test_a_library_that_registers_itself_asks_for_the_registry_alone(
    headers: Path, tmp_path: Path
) -> None:
    objects = []
    for flags in ([], ["-DNDP_PLUGIN_REGISTER"]):
        objects.append(tmp_path / f"plugin{len(flags)}.o")
        includes = ["-isystem", headers, "-isystem", cuda_headers()]
        run("g++", "-std=c++17", "-O1", "-fPIC", *flags, *includes,
            "-c", ROOT / "plugin" / "plugin.cpp", "-o", objects[-1])  # fmt: skip
    plain, registering = (
        {line.split()[-1] for line in run("nm", "-u", path).split("\n") if line} for path in objects
    )
    assert registering - plain == {"getPluginRegistry"}


def test_tensorrts_calls_on_the_host_build(headers: Path, tmp_path: Path) -> None:
    """kernels/plugin/driver: creators, formats, shapes, workspace, serialising, and outputs that
    are those of the kernels called directly, under AddressSanitizer and UBSan."""
    plugin, program = ROOT / "plugin", tmp_path / "driver"
    warnings = ["-Wall", "-Wextra", "-Wshadow", "-Werror"]
    fixed = ["-std=c++17", "-O1", "-DNDP_HOST", "-pthread", "-I", ROOT / "host"]
    includes = ["-isystem", headers, "-isystem", cuda_headers()]
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    objects = []
    for source in [*(ROOT / "src" / name for name in KERNELS), ROOT / "host" / "runner.cpp"]:
        objects.append(tmp_path / f"{source.stem}.o")
        run("g++", *fixed, "-x", "c++", "-c", source, "-o", objects[-1])
    sources = [plugin / "plugin.cpp", *sorted((plugin / "driver").glob("*.cpp"))]
    run("g++", *fixed, *warnings, *sanitizers, *includes, *sources, *objects, "-o", program)
    said = run(program)
    major, minor = headers_version(headers) or (0, 0)
    last = said.strip().split("\n")[-1]
    assert last.startswith(f"TensorRT {major}.{minor}: ") and last.endswith(" checks passed")
    assert int(last.split()[2]) > 10_000


def test_cmake_finds_the_headers_and_builds_the_driver(headers: Path, tmp_path: Path) -> None:
    if not shutil.which("cmake"):
        pytest.skip("no cmake")
    cuda_headers()
    configure = ["cmake", "-S", ROOT / "plugin", "-B", tmp_path, "-DNDP_HOST=ON"]
    run(*configure, f"-DTENSORRT_INCLUDE_DIR={headers}")
    run("cmake", "--build", tmp_path)
    assert "checks passed" in run(tmp_path / "ndp_plugin_driver")


def test_cmake_says_which_headers_are_missing(tmp_path: Path) -> None:
    if not shutil.which("cmake"):
        pytest.skip("no cmake")
    done = subprocess.run(
        ["cmake", "-S", ROOT / "plugin", "-B", tmp_path, "-DNDP_HOST=ON",
         "-DTENSORRT_INCLUDE_DIR=TENSORRT_INCLUDE_DIR-NOTFOUND",
         "-DCMAKE_FIND_ROOT_PATH=/nonexistent", "-DCMAKE_FIND_ROOT_PATH_MODE_INCLUDE=ONLY"],
        capture_output=True, text=True, check=False,
        env={k: v for k, v in os.environ.items() if k != "TENSORRT_INCLUDE_DIR"},
    )  # fmt: skip
    assert done.returncode != 0
    assert "apt install libnvinfer-headers-dev" in " ".join(done.stderr.split())
