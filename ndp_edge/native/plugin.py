"""The TensorRT plugin library: where it comes from on this machine, and how TensorRT gets it.

It is compiled where it is used, because it belongs to one TensorRT, one GPU architecture and
one C library; the wheel carries the sources. Nothing here imports tensorrt: the caller hands
its module in.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
from pathlib import Path
from typing import Any

from ndp_edge.errors import MachineError
from ndp_edge.native import compile as compiling
from ndp_edge.native.compile import kernels_folder

PLUGINS = ("RBFRM", "FFMSelect")
"""What the library registers, version "1" in namespace ""."""

HEADERS_COMMAND = "apt install libnvinfer-headers-dev"
"""Brings TensorRT's headers where NVIDIA's packages are set up, as JetPack does."""

_loaded: set[Path] = set()
"""What this process has loaded: a second library with the same plugins cannot join it."""


def plugin_hash() -> str:
    """SHA-256 of every source that the library is made of; the same on every machine.

    A sidecar keeps it, so that an engine is not run with another plugin than it was built with.

    Raises:
        MachineError: the package's kernel sources are not there.
    """
    root = kernels_folder()
    digest = hashlib.sha256()
    files = [*(root / "plugin").glob("*.*"), *(root / "src").glob("*.*")]
    for path in sorted(files):
        if path.suffix in {".cpp", ".h", ".cu", ".cuh"}:
            content = path.read_bytes()
            digest.update(f"{path.relative_to(root)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def plugin_library(version: str, sm: int) -> Path:
    """The compiled library, made on first use and kept in the user's cache.

    Args:
        version: the TensorRT that will load it, `tensorrt.__version__` (10.3 to 11.x).
        sm: the GPU's compute capability without its dot, such as 87.

    Raises:
        MachineError: no headers of that TensorRT, no nvcc, or it cannot compile them. The
            message says what to install; a build without the plugin needs neither.
    """
    try:
        return compiling.plugin_library(sm, find_headers(version), _label(version, sm))
    except MachineError:
        # A camera may have had its compiler and headers taken away since: what they made of these
        # very sources, for this TensorRT and this card, still serves.
        kept = sorted(compiling.cache_folder().glob(f"libndp_plugin-{_label(version, sm)}-*.so"))
        if kept:
            return kept[-1]
        raise


def plugin_path(version: str, sm: int) -> Path:
    """Where `plugin_library` finds the file or will put it; compiles nothing.

    Raises:
        MachineError: as `plugin_library`, as far as can be said without compiling.
    """
    return compiling.plugin_library(sm, find_headers(version), _label(version, sm), build=False)


def _label(version: str, sm: int) -> str:
    return f"trt{version}-sm_{sm}-{plugin_hash()[:12]}"


def find_headers(version: str) -> Path:
    """TensorRT's include folder: `TENSORRT_INCLUDE_DIR`, else the system's.

    The headers may be older than the library of the same major version, which stays compatible
    with them, and not newer.

    Raises:
        MachineError: none there, or of another TensorRT; names the command that installs them.
    """
    named = os.environ.get("TENSORRT_INCLUDE_DIR")
    wanted = _numbers(version)
    mend = (
        f"{HEADERS_COMMAND}, or set TENSORRT_INCLUDE_DIR to the include folder of "
        f"TensorRT {'.'.join(map(str, wanted))}"
    )
    others = []
    for folder in [Path(named)] if named else system_folders():
        found = headers_version(folder)
        if found is not None and found[0] == wanted[0] and found <= wanted:
            return folder
        if found is not None:
            others.append(f"{folder} has those of {found[0]}.{found[1]}")
    if named and not others:
        others.append(f"TENSORRT_INCLUDE_DIR={named} has none")
    why = f" ({'; '.join(others)})" if others else ""
    raise MachineError(f"the plugin needs the headers of TensorRT {version}{why}: {mend}")


def headers_version(folder: Path) -> tuple[int, int] | None:
    """(major, minor) of the TensorRT headers in a folder, None where there are none."""
    try:
        text = (folder / "NvInferVersion.h").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # Until 10.12 NV_TENSORRT_MAJOR is the number itself, later a name defined above it.
    words: dict[str, str] = dict(re.findall(r"^#define\s+(\w+)\s+(\w+)", text, re.MULTILINE))
    numbers = []
    for name in ("NV_TENSORRT_MAJOR", "NV_TENSORRT_MINOR"):
        value = words.get(name, "")
        value = words.get(value, value)
        if not value.isdigit():
            return None
        numbers.append(int(value))
    return numbers[0], numbers[1]


def _numbers(version: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", version)
    if match is None:
        raise MachineError(f"TensorRT calls its version {version!r}; reinstall it")
    return int(match[1]), int(match[2])


def system_folders() -> list[Path]:
    """Where packages put TensorRT's headers."""
    machine = platform.machine()
    places = (f"/usr/include/{machine}-linux-gnu", "/usr/include", "/usr/local/tensorrt/include")
    return [Path(place) for place in (*places, "/opt/tensorrt/include")]


def load_plugin(trt: Any, path: Path) -> None:
    """Let TensorRT load the library; what it has loaded already is not loaded again.

    Args:
        trt: the tensorrt module.
        path: what `plugin_library` gave.

    Raises:
        MachineError: TensorRT refuses it, or the process holds another library's plugins.
    """
    registry = trt.get_plugin_registry()
    if _registered(registry):
        if path in _loaded:
            return
        raise MachineError(
            f"this process has other plugins of the names {' and '.join(PLUGINS)} loaded; "
            "start a new one"
        )
    handle = registry.load_library(str(path))
    if handle is None or not _registered(registry):
        raise MachineError(
            f"TensorRT {trt.__version__} does not load {path}; delete the file, and it is "
            "compiled again"
        )
    _loaded.add(path)


def _registered(registry: Any) -> bool:
    """Whether the registry has one of our plugins. Its list is asked: a look-up by name that
    finds nothing would write an error into TensorRT's log."""
    return any(
        creator.name in PLUGINS and creator.plugin_version == "1" and creator.plugin_namespace == ""
        for creator in registry.all_creators
    )
