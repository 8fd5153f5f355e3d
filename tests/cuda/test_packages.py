"""pycuda and cuda-python themselves, on a driver of host memory: names, signatures, handles.

Each test runs the package in its own process with tests/cuda/fake_driver.c as libcuda.so.1. A
package that is not installed skips (docs/pycuda.md says how to compile pycuda without a card).
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ndp_edge.cuda import BACKENDS

HERE = Path(__file__).resolve().parent


def _has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _installed(package: str) -> bool:
    modules = {"cuda-python": ("cuda.bindings.driver", "cuda.cuda"), "pycuda": ("pycuda",)}
    return any(_has(module) for module in modules[package])


@pytest.fixture(scope="session")
def whole_driver(fake_driver: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fake driver, and every name that pycuda links to beside it (they refuse)."""
    found = importlib.util.find_spec("pycuda")
    assert found is not None and found.submodule_search_locations
    (extension,) = Path(found.submodule_search_locations[0]).glob("_driver*.so")
    have = _names("--defined-only", fake_driver / "libcuda.so.1")
    rest = sorted(n for n in _names("--undefined-only", extension) - have if n.startswith("cu"))
    folder = tmp_path_factory.mktemp("whole")
    source = folder / "rest.c"
    source.write_text("".join(f"int {name}(void) {{ return 801; }}\n" for name in rest))
    out = ["-o", str(folder / "libcuda.so.1"), "-Wl,-soname,libcuda.so.1"]
    files = [str(HERE / "fake_driver.c"), str(source), "-ldl"]
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", *out, *files], check=True)
    return folder


def _names(which: str, library: Path) -> set[str]:
    command = ["nm", "-D", which, str(library)]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {line.split()[-1].partition("@")[0] for line in listed.splitlines() if line.strip()}


@pytest.fixture(params=BACKENDS)
def package(request: pytest.FixtureRequest) -> str:
    """Each package that is installed here."""
    if not _installed(request.param):
        pytest.skip(f"{request.param} is not installed here")
    return str(request.param)


@pytest.fixture
def drive(package: str, request: pytest.FixtureRequest) -> Any:
    """Runs driven.py with the package; returns what it printed."""
    fixture = "whole_driver" if package == "pycuda" else "fake_driver"
    driver: Path = request.getfixturevalue(fixture)

    def run(what: str, **more: str) -> dict[str, Any]:
        command = [sys.executable, "-W", "error", str(HERE / "driven.py"), package, what]
        # Preloaded too, for a pycuda that was linked without naming its libcuda.
        library = {"LD_PRELOAD": str(driver / "libcuda.so.1"), "LD_LIBRARY_PATH": str(driver)}
        env = {**os.environ, **library, **more}
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=env, cwd="/"
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    return run


def test_copies_events_and_graphs(drive: Any, package: str) -> None:
    seen = drive("copies")
    assert seen["half"] == [48, 49, 0xDB, 0xDB]
    assert seen["ms"] == 1.5
    assert seen["numbers"] == ["int", "int"]
    if package == "pycuda":
        assert "no graph API" in seen["no_graph"]
    else:
        assert (seen["before"], seen["after"]) == (0xDB, 7)
    assert seen["alive"] == 6
    assert seen["left"] == [0, 0, 0]


def test_the_card_is_described(drive: Any, package: str) -> None:
    seen = drive("misuse")
    assert seen["package"] == package
    assert seen["version"]
    card = {key: seen[key] for key in ("driver", "device", "sm", "memory")}
    assert card == {"driver": "12.6", "device": "Fake GPU 0", "sm": 87, "memory": 8 << 30}


def test_misuse_is_refused(drive: Any) -> None:
    seen = drive("misuse")
    assert (seen["long"], seen["freed"]) == ("refused", "refused")
    assert seen["left"] == [0, 0, 0]


def test_a_capture_that_fails_leaves_the_stream_usable(drive: Any, package: str) -> None:
    seen = drive("broken_capture")
    if package != "pycuda":
        assert seen["sync"] == "CannotCaptureError"
        assert seen["bug"] == "KeyError"
    assert seen["left"] == [0, 0, 0]


def test_threads_push_and_pop(drive: Any) -> None:
    seen = drive("threads")
    assert seen["alone"][1] in (201, None)
    assert seen["alone"][0].startswith(("cuMemAlloc", "explicit_context"))
    assert seen["depth"] == 0
    assert seen["left"] == [0, 0, 0]


@pytest.mark.parametrize("call", ["cuMemAlloc_v2", "cuMemHostAlloc", "cuStreamCreate"])
def test_errors_carry_the_call_and_its_code(drive: Any, call: str) -> None:
    seen = drive("copies", NDP_FAKE_FAIL=f"{call}:2")
    assert seen["raised"] == "CudaError"
    assert seen["call"] == call.removesuffix("_v2")
    assert seen["code"] == 2
    assert f"{seen['call']} failed" in seen["said"]
    assert "\n" not in seen["said"]
    assert seen["left"] == [0, 0, 0]


def test_no_card_and_no_such_card(drive: Any) -> None:
    seen = drive("copies", NDP_FAKE_DEVICES="0")
    assert seen["raised"] == "MachineError"
    assert "no CUDA device" in seen["said"]
    assert "nvidia-smi" in seen["said"]


def test_no_driver(package: str) -> None:
    code = (
        "from ndp_edge.cuda import open_cuda\nfrom ndp_edge.errors import MachineError\n"
        f"try:\n    open_cuda({package!r})\nexcept MachineError as error:\n    print(error)\n"
    )
    with contextlib.suppress(OSError):
        ctypes.CDLL("libcuda.so.1")
        pytest.skip("this machine has a driver")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.stdout.startswith("no NVIDIA driver answers here"), done.stderr
    assert done.stdout.count("\n") == 1
    assert "nvidia-smi" in done.stdout
