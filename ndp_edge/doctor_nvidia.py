"""What `doctor` finds of NVIDIA's: driver, cards, compiler, TensorRT's headers, the plugin.

The driver is asked in another process, through libcuda and ctypes: it may hang or crash there.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from ndp_edge import finding
from ndp_edge.errors import NdpError
from ndp_edge.finding import Finding

TENSORRT = "tensorrt tensorrt-cu12 tensorrt-cu13"
"""Distributions that bring the module `tensorrt`; JetPack's own is called tensorrt too."""

_ASK_DRIVER = """
import ctypes, json
cuda = ctypes.CDLL("libcuda.so.1")
def number(call, *arguments):
    value = ctypes.c_int()
    code = call(ctypes.byref(value), *arguments)
    return value.value if code == 0 else -code
def card(index):
    device, name, size = number(cuda.cuDeviceGet, index), ctypes.create_string_buffer(256), ctypes.c_size_t()
    cuda.cuDeviceGetName(name, 256, device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(size), device)
    major, minor = (number(cuda.cuDeviceGetAttribute, one, device) for one in (75, 76))
    return {"name": name.value.decode(errors="replace"), "memory": size.value, "sm": f"{major}.{minor}"}
code = cuda.cuInit(0)
count = number(cuda.cuDeviceGetCount) if code == 0 else 0
print(json.dumps({"init": code, "cuda": number(cuda.cuDriverGetVersion), "cards": [card(i) for i in range(count)]}))
"""  # noqa: E501


def nvidia() -> list[Finding]:
    """Driver, cards, nvcc, TensorRT's headers and the compiled plugin."""
    said = _ask_driver()
    return [_driver(said), *_cards(said), nvcc(), headers(), plugin(said)]


def _ask_driver() -> dict[str, Any]:
    """What libcuda answers; empty where there is none."""
    answer = finding.ask([sys.executable, "-c", _ASK_DRIVER])
    try:
        said = json.loads(answer)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _driver(said: dict[str, Any]) -> Finding:
    name = "nvidia driver"
    if not said:
        return Finding(name, False, "missing: no libcuda answers (NVIDIA's driver, not pip)")
    cuda = f"CUDA {said['cuda'] // 1000}.{said['cuda'] % 1000 // 10}"
    version = "".join(finding.lines("/sys/module/nvidia/version")[:1])
    board = " ".join(finding.lines("/etc/nv_tegra_release")[:1]).lstrip("# ").split(",")[:2]
    parts = [part.strip() for part in (version, cuda, *board) if part.strip()]
    if said["init"] != 0:
        parts.append(f"but cuInit fails with {said['init']}: reboot, or install the driver again")
    return Finding(name, said["init"] == 0, ", ".join(parts))


def _cards(said: dict[str, Any]) -> list[Finding]:
    name = "nvidia gpu"
    cards = said.get("cards", [])
    if not cards:
        return [Finding(name, False, "none" if said else "none: no driver")]
    return [
        Finding(
            name if len(cards) == 1 else f"{name} {i}",
            True,
            f"{card['name']}, SM {card['sm']}, {card['memory'] / 2**30:.1f} GiB",
        )
        for i, card in enumerate(cards)
    ]


def nvcc() -> Finding:
    """CUDA's compiler, which the plugin and the kernels want."""
    from ndp_edge.native.compile import find_nvcc

    try:
        compiler = find_nvcc()
    except NdpError:
        compiler = ""
    answer = finding.ask([compiler, "--version"]).splitlines() if compiler else []
    release = [line.rpartition("release ")[2] for line in answer if "release" in line]
    missing = "missing: install the CUDA toolkit (for the TensorRT plugin and the kernels only)"
    return Finding("nvcc", bool(release), f"{release[0]} ({compiler})" if release else missing)


def headers() -> Finding:
    """TensorRT's headers, of the TensorRT that is installed."""
    from ndp_edge.native.plugin import HEADERS_COMMAND, find_headers, headers_version

    name, version = "tensorrt headers", finding.first_version(TENSORRT)
    if version is None:
        return Finding(name, False, f"not looked for: no tensorrt ({HEADERS_COMMAND})")
    try:
        folder = find_headers(version)
    except NdpError as error:
        return Finding(name, False, f"missing: {error}")
    major, minor = headers_version(folder) or (0, 0)
    return Finding(name, True, f"{major}.{minor} ({folder})")


def plugin(said: dict[str, Any]) -> Finding:
    """The TensorRT plugin for this TensorRT and the first card: compiled, to be, or not to be had.

    Args:
        said: the driver's answer.
    """
    from ndp_edge.native.plugin import plugin_path

    name, version = "tensorrt plugin", finding.first_version(TENSORRT)
    cards = said.get("cards", [])
    if version is None or not cards:
        lacking = " and ".join(["tensorrt"] * (version is None) + ["card"] * (not cards))
        return Finding(name, False, f"not compiled here: no {lacking}")
    try:
        library = plugin_path(version, int(cards[0]["sm"].replace(".", "")))
    except NdpError as error:
        return Finding(name, False, f"cannot be compiled: {error}")
    if library.is_file():
        return Finding(name, True, str(library))
    return Finding(name, False, "not compiled yet: the first build for this card does it")
