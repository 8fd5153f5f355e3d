"""The doctor tells what is there and never falls ill itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ndp_edge import doctor, doctor_nvidia, engines, finding


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking OpenVINO for its devices starts a process that takes seconds."""
    there = finding.Finding("openvino devices", True, "CPU")
    monkeypatch.setattr(doctor, "openvino_devices", lambda: there)


def test_the_table_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main([]) == 0
    text = capsys.readouterr().out
    nvidia = ["nvidia driver", "nvidia gpu", "nvcc", "tensorrt headers", "tensorrt plugin"]
    for name in [*doctor.PACKAGES, *nvidia, "python", "cpu", "memory", "engine auto"]:
        assert any(line[2:].startswith(name) for line in text.splitlines()), name


def test_json_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    assert doctor.main(["--json", str(path)]) == 0
    found = json.loads(path.read_text())
    assert set(found) == {"machine", "packages", "devices", "choice"}
    packages = {entry["name"]: entry for entry in found["packages"]}
    assert packages["numpy"]["found"]
    assert packages["numpy"]["detail"].split(".")[0].isdigit()
    assert {"tensorrt", "tensorrt-rtx", "pycuda", "cuda-python", "openvino"} <= set(packages)
    for entry in packages.values():
        assert entry["found"] != entry["detail"].startswith("missing: install with pip install")


def test_a_machine_with_nothing_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(finding, "version", lambda _name: None)
    monkeypatch.setattr(finding, "lines", lambda _path: [])
    monkeypatch.setattr(engines, "available", lambda: dict.fromkeys(engines.BACKENDS))
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setenv("NDP_NVCC", "/nonexistent/nvcc")
    assert doctor.main([]) == 0
    text = capsys.readouterr().out
    assert "- openvino " in text
    assert "pip install openvino" in text
    assert "- engine auto" in text


def test_broken_engines_are_told_not_thrown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_backend: str) -> tuple[str, str]:
        raise ImportError("libtbb.so.12:\n cannot open")

    monkeypatch.setattr(engines, "choose", broken)
    assert doctor.main([]) == 0
    assert "libtbb.so.12: cannot open" in capsys.readouterr().out


def test_a_tool_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_arguments: object, **_options: object) -> None:
        raise subprocess.TimeoutExpired("python", 10)

    monkeypatch.setattr("subprocess.run", hang)
    monkeypatch.setattr(finding, "lines", lambda _path: [])
    assert not any(one.found for one in doctor_nvidia.nvidia())


def test_processor_flags_of_both_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "lines", lambda _path: ["Features\t: fp asimd asimddp", ""])
    assert {"asimd", "asimddp"} <= doctor.cpu_flags()
    monkeypatch.setattr(finding, "lines", lambda _path: ["flags\t\t: fpu avx2 avx512_vnni"])
    assert {"avx2", "avx512_vnni"} <= doctor.cpu_flags()


def test_nothing_heavy_is_imported() -> None:
    check = (
        "import sys\nfrom ndp_edge import doctor\ndoctor.openvino_devices = lambda: "
        "doctor.Finding('x', True, '')\ndoctor.main([])\n"
        "heavy = {'torch', 'openvino', 'onnxruntime', 'cv2', 'onnx'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    command = [sys.executable, "-c", check]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
