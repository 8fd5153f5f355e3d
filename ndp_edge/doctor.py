"""`python -m ndp_edge.doctor`: what this machine has, and which engine `auto` would take.

Reads versions from the packages' metadata and asks drivers in other processes; nothing heavy is
imported, and nothing that is missing or broken ends it.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict

from ndp_edge import __version__, finding
from ndp_edge.console import add_json_option, emit_json, run_verb, text_stream
from ndp_edge.doctor_nvidia import TENSORRT, nvidia
from ndp_edge.finding import Finding

FLAGS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx_vnni": "AVX-VNNI",
    "amx_int8": "AMX int8",
    "asimd": "NEON",
    "asimddp": "dot product",
    "i8mm": "int8 matrix",
}
"""Linux's names for what int8 speed hangs on, and what people call them."""

PACKAGES = {
    "numpy": ("numpy", "numpy"),
    "onnx": ("onnx", "onnx"),
    "onnxruntime": ("onnxruntime onnxruntime-gpu", "onnxruntime"),
    "openvino": ("openvino", "openvino"),
    "opencv": (
        "opencv-python-headless opencv-python opencv-contrib-python",
        "opencv-python-headless",
    ),
    "torch": ("torch", "'ndp-edge[train]'   (training and export only)"),
    "tensorrt": (
        TENSORRT,
        "'ndp-edge[tensorrt]'   (needs an NVIDIA GPU; on a Jetson JetPack brings it)",
    ),
    "tensorrt-rtx": (
        "tensorrt-rtx-cu13-bindings tensorrt-rtx-cu12-bindings tensorrt-rtx tensorrt_rtx",
        "'ndp-edge[rtx]'   (x86-64)",
    ),
    "cuda-python": ("cuda-python cuda-bindings", "'ndp-edge[cuda]'"),
    "pycuda": ("pycuda", "'ndp-edge[pycuda]'   (compiled there: needs nvcc)"),
}
"""What it is called here -> (names of distributions that bring it, what pip installs)."""


def machine() -> list[Finding]:
    """Python, system, processor, memory."""
    named = isa()
    return [
        Finding("ndp-edge", True, __version__),
        Finding("python", True, f"{platform.python_version()} ({sys.executable})"),
        Finding("system", True, f"{system_name()}, {platform.release()}, {platform.machine()}"),
        Finding("cpu", True, f"{cpu_model()}, {usable_cores()} usable cores"),
        Finding("int8 help", bool(named), ", ".join(named) or "no vector unit named by the system"),
        Finding("memory", True, memory()),
    ]


def usable_cores() -> int | None:
    """Cores that this process may use; None where the system does not tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _field(path: str, *names: str) -> str:
    """The value behind the first of `names` in a file of "name : value" lines."""
    for line in finding.lines(path):
        name, _, value = line.replace("=", ":", 1).partition(":")
        if name.strip() in names and value.strip():
            return value.strip().strip('"')
    return ""


def cpu_model() -> str:
    """The processor's name; a Jetson gives its board instead."""
    board = "".join(finding.lines("/proc/device-tree/model")).strip("\0 ")
    return _field("/proc/cpuinfo", "model name", "Model") or board or platform.processor() or "?"


def cpu_flags() -> set[str]:
    """What Linux says that the processor can do ("flags" on x86, "Features" on ARM)."""
    return set(_field("/proc/cpuinfo", "flags", "Features").split())


def isa() -> list[str]:
    """What of FLAGS the processor has, by people's names, the plainest first."""
    flags = cpu_flags()
    return [name for flag, name in FLAGS.items() if flag in flags]


def system_name() -> str:
    """The distribution's own name."""
    return _field("/etc/os-release", "PRETTY_NAME") or platform.system()


def memory() -> str:
    """Total and available memory."""
    sizes = [_field("/proc/meminfo", name).split() for name in ("MemTotal", "MemAvailable")]
    if not all(sizes):
        return "unknown"
    total, free = (int(size[0]) / 2**20 for size in sizes)
    return f"{total:.1f} GiB, {free:.1f} available"


def packages() -> list[Finding]:
    """Python packages by their metadata, none of them imported."""
    found = []
    for name, (distributions, install) in PACKAGES.items():
        version = finding.first_version(distributions)
        detail = version or f"missing: install with pip install {install}"
        found.append(Finding(name, version is not None, detail))
    return found


_ASK_OPENVINO = """
from ndp_edge.ov_core import shared_core
core = shared_core()
named = (f"{d} ({core.get_property(d, 'FULL_DEVICE_NAME')})" for d in core.available_devices)
print(*named, sep="; ")
"""


def openvino_devices() -> Finding:
    """OpenVINO's devices, asked in another process: a broken driver there cannot end us."""
    name = "openvino devices"
    if finding.version("openvino") is None:
        return Finding(name, False, "no openvino")
    answer = finding.ask([sys.executable, "-c", _ASK_OPENVINO], seconds=6 * finding.QUICK)
    return Finding(
        name, bool(answer), answer or "none, or openvino does not start: pip install -U openvino"
    )


def auto_engine() -> Finding:
    """Which engine `auto` takes here, and why."""
    try:
        from ndp_edge.engines import choose

        backend, reason = choose("auto")
    except Exception as error:  # whatever is broken is what we are asked to tell
        return Finding("engine auto", False, " ".join(f"none: {error}".split()))
    return Finding("engine auto", True, f"{backend} ({reason})")


SECTIONS: dict[str, Callable[[], list[Finding]]] = {
    "machine": machine,
    "packages": packages,
    "devices": lambda: [openvino_devices(), *nvidia()],
    "choice": lambda: [auto_engine()],
}


def examine() -> dict[str, list[Finding]]:
    """Every finding by section."""
    return {name: section() for name, section in SECTIONS.items()}


def show(findings: dict[str, list[Finding]]) -> str:
    """The table for a terminal; what is missing has a dash in front."""
    width = max(len(f.name) for section in findings.values() for f in section)
    blocks = (
        "\n".join(f"{'+' if f.found else '-'} {f.name:<{width}}  {f.detail}" for f in section)
        for section in findings.values()
    )
    return "\n\n".join(blocks)


def run(args: argparse.Namespace) -> int:
    """The verb's body."""
    findings = examine()
    print(show(findings), file=text_stream(args.json))
    emit_json(args.json, {name: [asdict(f) for f in fs] for name, fs in findings.items()})
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point: exit 0 whatever is missing."""
    p = argparse.ArgumentParser(prog="python -m ndp_edge.doctor", description=__doc__)
    add_json_option(p)
    args = p.parse_args(argv)
    return run_verb(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
