"""bench/gpu/verify.sh without a GPU: the dry run, what it never claims, faults that it finds."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ndp_edge.bench.gpu import run_checks
from ndp_edge.bench.gpu.checks import cases
from ndp_edge.bench.gpu.rig import Rig
from ndp_edge.bench.gpu.words import NOT_MEASURED
from ndp_edge.native.compile import build_host, kernels_folder
from ndp_edge.native.library import Library

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "bench" / "gpu" / "verify.sh"

BARE = """
import sys
for name in {names}:
    sys.modules[name] = None
"""
ABSENT = ("pytest", "hypothesis", "onnx", "onnxruntime", "openvino", "cv2", "safetensors", "tqdm")


def run_script(
    folder: Path, *options: str, absent: tuple[str, ...] = ABSENT, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The script in a folder of its own, on a machine that lacks some packages."""
    (folder / "sitecustomize.py").write_text(BARE.format(names=absent))
    return subprocess.run(
        ["bash", str(SCRIPT), *options],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=os.environ | {"PYTHON": sys.executable, "PYTHONPATH": str(folder)} | environment,
    )


@pytest.fixture(scope="module", autouse=True)
def _compiler() -> None:
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("no C++ compiler: apt install g++")


@pytest.fixture(scope="module")
def dry(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """The report of one dry run, and what it printed."""
    folder = tmp_path_factory.mktemp("dry")
    done = run_script(folder, "--dry-run", "--out", "report.json")
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report, done.stdout


def leaves(value: Any) -> Iterator[Any]:
    """What is inside, however deep."""
    if isinstance(value, dict):
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def test_a_dry_run_goes_all_the_way(dry: tuple[dict[str, Any], str]) -> None:
    report, printed = dry
    assert [step["step"] for step in report["steps"]] == [
        "build", "checks", "timing", "memcheck", "racecheck",
    ]  # fmt: skip
    assert [step["outcome"] for step in report["steps"][:3]] == ["exit 0"] * 3
    names = [check["name"] for check in report["checks"]]
    assert names == [case.name for case in cases(small=True)]
    assert len(set(names)) == len(names) > 100
    passed = {check["passed"] for check in report["checks"]}
    assert passed == {True, None}
    timed = {row["name"] for row in report["timings"]}
    assert timed == {"rates", "rbfrm", "ffm_select", "smooth_max", "network"}
    assert not any("failures" in row for row in report["timings"])
    assert {"python", "torch", "numpy", "date", "commit", "ndp_edge"} <= report.keys()
    assert "0 failed, 5 need a GPU" in printed


def test_a_dry_run_claims_no_measurement(dry: tuple[dict[str, Any], str]) -> None:
    report, printed = dry
    assert report["dry_run"] is True
    assert "dry run" in report["device"]
    assert not {"sm", "driver", "multiprocessors"} & report.keys()
    found = [
        *leaves([row["measured"] for row in report["timings"]]),
        *leaves([check.get("figures", NOT_MEASURED) for check in report["checks"]]),
        *(step["seconds"] for step in report["steps"]),
        *(target["value"] for target in report["targets"]),
        *(tool["status"] for tool in report["sanitizer"].values()),
    ]
    assert len(found) > 150
    assert set(found) == {NOT_MEASURED}
    assert {target["met"] for target in report["targets"]} == {None}
    assert len(report["targets"]) == 5
    # Beside the head with its versions and the wanted values, no fraction is printed at all.
    body = printed.split("\n", 1)[1].replace("at least 0.7", "")
    assert not re.search(r"\d\.\d", body)
    assert "met" not in body.split()


def test_without_a_gpu_the_real_run_is_one_line_and_exit_3(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    done = run_script(tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.count("\n") == 1
    assert "no CUDA device" in done.stderr


@pytest.mark.parametrize(
    ("options", "environment", "code", "message"),
    [
        (["--out", "no/such/report.json"], {}, 2, "no such folder"),
        ([], {"CXX": "/nowhere/g++"}, 3, "CXX=/nowhere/g++"),
        ([], {"NDP_KERNELS": "/nowhere"}, 3, "no kernel sources in /nowhere"),
        ([], {"PYTHON": "/nowhere/python"}, 3, "needs python3"),
    ],
)
def test_what_cannot_run_is_one_line(
    tmp_path: Path, options: list[str], environment: dict[str, str], code: int, message: str
) -> None:
    done = run_script(tmp_path, "--dry-run", *options, **environment)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


def test_a_machine_without_torch_is_told_so(tmp_path: Path) -> None:
    done = run_script(tmp_path, "--dry-run", absent=("torch",))
    assert done.returncode == 3
    assert "pip install torch" in done.stderr


# --- faults -------------------------------------------------------------------------------------

FAULTS = r"""
#include <cstdlib>
static bool fault(const char* name) {
  const char* given = std::getenv("NDP_FAULT");
  return given && !std::strcmp(given, name);
}
static size_t bytes(int dtype, int n, int c, int h, int w) {
  return size_t{1} * n * c * h * w * (dtype ? 2 : 4);
}
"""

WRAPPED = {
    "rbfrm": r"""
extern "C" const char* ndp_rbfrm(const NdpRbfrm* given, void* stream) {
  NdpRbfrm a = *given;
  if (fault("scale")) a.softmax_scale *= 1.01f;
  if (fault("swapped")) std::swap(a.rep2, a.rep4);
  const char* said = ndp_rbfrm_right(&a, stream);
  if (said) return said;
  static int calls = 0;
  if (fault("unsteady")) static_cast<unsigned char*>(a.rep2)[0] ^= ++calls % 2;
  if (fault("fused")) std::memcpy(a.fused, a.rep2,
      bytes(a.dtype, a.images, a.channels, a.height, a.width));
  return nullptr;
}
""",
    "ffm_select": r"""
extern "C" const char* ndp_ffm_select(const NdpFfmSelect* given, void* stream) {
  NdpFfmSelect a = *given;
  if (fault("branches")) std::swap(a.rep2, a.rep4);
  if (fault("polite") && a.channels % 8) return nullptr;
  if (fault("vague") && a.channels % 8) return "ffm_select: something is wrong";
  const char* said = ndp_ffm_select_right(&a, stream);
  if (said) return said;
  const size_t size = bytes(a.dtype, a.images, a.channels, a.height, a.width);
  if (fault("beside")) static_cast<unsigned char*>(a.selected)[size] = 0;
  if (fault("before")) static_cast<unsigned char*>(a.selected)[-1] = 0;
  if (fault("unwritten")) std::memset(static_cast<char*>(a.selected) + size - 4, 0xff, 4);
  return nullptr;
}
""",
    "smooth_max": r"""
extern "C" const char* ndp_smooth_max(const NdpSmoothMax* given, void* stream) {
  const char* said = ndp_smooth_max_right(given, stream);
  if (said) return said;
  for (int i = 0; i < given->images; ++i)
    if (fault("nan") && given->peaks[i] != given->peaks[i]) given->peaks[i] = 0;
  if (fault("peak")) given->peaks[0] *= 0.9999f;
  return nullptr;
}
""",
}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernels' sources with faults that NDP_FAULT switches on, one by its name."""
    folder = tmp_path_factory.mktemp("faulty") / "kernels"
    shutil.copytree(kernels_folder(), folder)
    for name, wrapper in WRAPPED.items():
        source = folder / "src" / f"{name}.cu"
        head = f"#include <cstring>\n#include <utility>\n#define ndp_{name} ndp_{name}_right\n"
        source.write_text(f"{head}{source.read_text()}\n#undef ndp_{name}\n{FAULTS}{wrapper}")
    return folder


@pytest.fixture(scope="module")
def faulty_rig(faulty: Path) -> Rig:
    """Those sources, compiled, on CPU tensors."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NDP_KERNELS", str(faulty))
        return Rig(Library(build_host()), torch.device("cpu"))


@pytest.mark.parametrize(
    ("fault", "name", "why"),
    [
        ("scale", "rbfrm 32x16x16 fp32 nhwc scale 1", "r2: .* error"),
        ("swapped", "rbfrm 32x16x16 fp16 nchw scale 10", "r2: .* error"),
        ("fused", "rbfrm 32x16x16 fp16 nhwc scale 1", "u: .* error"),
        ("unsteady", "rbfrm twice the same", "two runs"),
        ("branches", "ffm_select 3x40x12x12 fp16 nchw", "spread1: .* error"),
        ("beside", "ffm_select 3x40x12x12 fp32 nhwc", "outside its output"),
        ("before", "ffm_select 3x40x12x12 fp32 nchw", "outside its output"),
        ("unwritten", "ffm_select 3x40x12x12 fp16 nhwc", "not finite or were not written"),
        ("polite", "refuses 9 channels to select", "was not refused"),
        ("vague", "refuses 9 channels to select", "does not name channels"),
        ("nan", "smooth_max NaN", "peaks"),
        ("peak", "smooth_max 2x5x7", "peaks"),
    ],
)
def test_a_fault_is_found(
    faulty_rig: Rig, monkeypatch: pytest.MonkeyPatch, fault: str, name: str, why: str
) -> None:
    (case,) = (case for case in cases(small=True) if case.name == name)
    assert run_checks.run_case(case, faulty_rig)["passed"] is True
    monkeypatch.setenv("NDP_FAULT", fault)
    found = run_checks.run_case(case, faulty_rig)
    assert found["passed"] is False
    assert re.search(why, found["why"]), found["why"]


def test_a_fault_fails_the_step(
    faulty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a process it is in the slow test below; the report's exit code: test_gpu_judgement."""
    monkeypatch.setenv("NDP_KERNELS", str(faulty))
    monkeypatch.setenv("NDP_FAULT", "branches")
    out = tmp_path / "checks.jsonl"
    monkeypatch.setattr(
        run_checks, "cases", lambda small: [c for c in cases(small) if "select" in c.name]
    )
    assert run_checks.main([str(out), "--host", "--small"]) == 1
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert {line["passed"] for line in lines if line["name"].startswith("ffm_select")} == {False}
    assert {line["passed"] for line in lines if line["name"].startswith("refuses")} == {True}


@pytest.mark.slow
def test_a_fault_fails_the_dry_run(faulty: Path, tmp_path: Path) -> None:
    environment = {"NDP_KERNELS": str(faulty), "NDP_FAULT": "branches"}
    done = run_script(tmp_path, "--dry-run", "--out", "-", **environment)
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    failed = [check["name"] for check in report["checks"] if check["passed"] is False]
    assert failed
    assert all(name.startswith("ffm_select") for name in failed)


def test_a_check_that_crashes_has_failed_and_ends_nothing_else(faulty_rig: Rig) -> None:
    def crash(rig: Rig) -> dict[str, float]:
        return {"never": float(ctypes.sizeof(None))}  # type: ignore[arg-type]

    found = run_checks.run_case(run_checks.Case("crash", crash), faulty_rig)
    assert found["passed"] is False
    assert found["why"].startswith("TypeError")
