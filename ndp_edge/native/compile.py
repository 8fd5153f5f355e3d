"""Build the kernels' shared library with the machine's own compiler, once, into a user cache.

The sources are `kernels/` beside the package in a checkout and `ndp_edge/kernels/` in a wheel
(`NDP_KERNELS` names another folder). A library's file name carries a hash of every source, the
compiler's own words about itself and the command, so that a stale one is never loaded.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from ndp_edge.console import info
from ndp_edge.errors import MachineError

KERNELS = ("rbfrm.cu", "ffm_select.cu", "smooth_max.cu")
"""The three translation units under `src/`."""

SUFFIXES = {".cu", ".cuh", ".h", ".hpp", ".cpp"}
"""What counts as a source: another file under `kernels/` changes no library."""

TIME_LIMIT = 600
"""Seconds after which a compiler counts as hung."""


def kernels_folder() -> Path:
    """Where the kernels' sources are: the folder that holds `src/` and `host/`.

    Raises:
        MachineError: there is none.
    """
    package = Path(__file__).absolute().parent.parent
    named = os.environ.get("NDP_KERNELS")
    places = (
        [Path(named).absolute()] if named else [package / "kernels", package.parent / "kernels"]
    )
    for place in places:
        if (place / "src" / "ndp_kernels.h").is_file():
            return place
    raise MachineError(
        f"no kernel sources in {' or '.join(map(str, places))}; "
        "reinstall with pip install --force-reinstall ndp-edge, or set NDP_KERNELS to the folder"
    )


def cache_folder() -> Path:
    """`$NDP_EDGE_CACHE/kernels`, else `ndp-edge/kernels` in the user's cache (XDG)."""
    named = os.environ.get("NDP_EDGE_CACHE")
    if named:
        return Path(named).absolute() / "kernels"
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(xdg) if Path(xdg).is_absolute() else Path.home() / ".cache"
    return base / "ndp-edge" / "kernels"


def build_host(flags: Sequence[str] = ("-O2",)) -> Path:
    """The library of the host build: the same sources, threads in the place of a GPU.

    Args:
        flags: further compiler options, such as those of a sanitizer.

    Raises:
        MachineError: no C++ compiler (`CXX` or g++), or it refuses the sources.
    """
    root = kernels_folder()
    compiler = _find("a C++ compiler", "CXX", [], ["g++", "c++"], "apt install g++")
    fixed = ["-std=c++17", "-DNDP_HOST", "-shared", "-fPIC", "-pthread", "-x", "c++"]
    runner = str(root / "host" / "runner.cpp")
    return _build(root, [compiler, *fixed, *flags, "-I", str(root / "host"), runner], "host")


def build_device(sm: int) -> Path:
    """The library for one GPU architecture.

    Args:
        sm: the compute capability without its dot, such as 90 for 9.0.

    Raises:
        MachineError: no nvcc, or it refuses the sources or the architecture.
    """
    # One architecture and no PTX: what runs is what was compiled, never a driver's translation.
    target = ["-gencode", f"arch=compute_{sm},code=sm_{sm}"]
    fixed = [
        "-std=c++17",
        "-O3",
        "-lineinfo",
        "-shared",
        "-Xcompiler",
        "-fPIC",
        "-cudart",
        "static",
    ]
    return _build(kernels_folder(), [find_nvcc(), *fixed, *target], f"sm_{sm}")


def plugin_library(sm: int, headers: Path, label: str, *, build: bool = True) -> Path:
    """The TensorRT plugin over the kernels, for one GPU architecture.

    Args:
        sm: as for `build_device`.
        headers: TensorRT's include folder.
        label: what the file is called by, before the hash of all that it depends on.
        build: False only says where the file is, or will be.

    Raises:
        MachineError: no nvcc, or it refuses the sources, the headers or the architecture.
    """
    root = kernels_folder()
    target = ["-gencode", f"arch=compute_{sm},code=sm_{sm}"]
    # --no-undefined: the library needs no symbol of TensorRT's, which hands itself in at load.
    linked = ["-shared", "-cudart", "static", "-Xlinker", "--no-undefined"]
    fixed = ["-std=c++17", "-O3", "-lineinfo", "-Xcompiler", "-fPIC,-fvisibility=hidden", *linked]
    source = str(root / "plugin" / "plugin.cpp")
    command = [find_nvcc(), *fixed, *target, "-isystem", str(headers), source]
    make = _build if build else _library
    return make(root, command, label, "ndp_plugin")


def find_nvcc() -> str:
    """The CUDA compiler: `NDP_NVCC`, `CUDA_HOME/bin`, the PATH, then /usr/local/cuda/bin.

    Raises:
        MachineError: there is none.
    """
    home = os.environ.get("CUDA_HOME")
    folders = [Path(home) / "bin"] if home else []
    hint = "install the CUDA toolkit, or set NDP_NVCC to its nvcc"
    return _find("nvcc", "NDP_NVCC", folders, ["nvcc", "/usr/local/cuda/bin/nvcc"], hint)


def _find(
    what: str, variable: str, folders: Sequence[Path], names: Sequence[str], hint: str
) -> str:
    """The compiler that `variable` names, else the first of `names` in `folders` or on the PATH."""
    named = os.environ.get(variable)
    candidates = [str(folder / names[0]) for folder in folders] + list(names)
    for candidate in [named] if named else candidates:
        if found := shutil.which(candidate):
            return found
    said = f"{variable}={named} is no such program" if named else f"{what} was not found"
    raise MachineError(f"the kernels cannot be compiled: {said}; {hint}")


def _build(root: Path, command: Sequence[str], target: str, name: str = "ndp_kernels") -> Path:
    """The library that `command` makes of the sources, from the cache when it is there."""
    sources = [str(root / "src" / unit) for unit in KERNELS]
    library = _library(root, command, target, name)
    if library.is_file():
        return library
    info(f"compiling {library.name} with {Path(command[0]).name}, once for this machine ...")
    began = time.monotonic()
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        # Beside its place: a rename within one file system is atomic, so that of two processes
        # that compile at once each loads a whole library.
        with tempfile.TemporaryDirectory(prefix=".build-", dir=library.parent) as folder:
            made = Path(folder) / library.name
            _compile([*command, *sources, "-o", str(made)])
            made.replace(library)
        info(f"compiled in {time.monotonic() - began:.0f} s, kept in {library.parent}")
    except OSError as error:
        raise MachineError(
            f"{library.parent} cannot be written ({error.strerror}); "
            "set NDP_EDGE_CACHE to a folder that can"
        ) from None
    return library


def _library(root: Path, command: Sequence[str], target: str, name: str) -> Path:
    return cache_folder() / f"lib{name}-{target}-{_key(root, command)}.so"


def _key(root: Path, command: Sequence[str]) -> str:
    """What a library depends on, as a short hash: sources, command, compiler."""
    digest = hashlib.sha256()
    version = _run([command[0], "--version"])
    parts = [*(word.replace(str(root), "") for word in command), version.stdout]
    digest.update("\0".join(parts).encode())
    for path in sorted(root.rglob("*")):
        if path.suffix in SUFFIXES and path.is_file():
            content = path.read_bytes()
            digest.update(f"\0{path.relative_to(root)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:20]


def _compile(command: Sequence[str]) -> None:
    """Run the compiler; a refusal becomes its first line that speaks of an error."""
    done = _run(command)
    if done.returncode == 0:
        return
    lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    wrong = [line for line in lines if "error" in line.lower() or "fatal" in line.lower()]
    first = (wrong or lines or [f"it ended with {done.returncode} and said nothing"])[0]
    raise MachineError(f"{Path(command[0]).name} cannot compile the kernels: {first}")


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=TIME_LIMIT
        )
    except subprocess.TimeoutExpired:
        raise MachineError(
            f"{command[0]} did not answer within {TIME_LIMIT} s; run it by hand to see why"
        ) from None
    except OSError as error:
        raise MachineError(f"{command[0]} cannot be run ({error.strerror})") from None
