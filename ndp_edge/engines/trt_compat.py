"""What differs between TensorRT 10.3, 10.13, 10.16, 11.x and TensorRT-RTX, and nothing else.

Every other file may use only the names that all of them have (tests/test_trt_contract.py reads
the sources and the four versions' names). Here a name that some version lacks is looked up with
`find`, and its absence is answered for.
"""

from __future__ import annotations

import importlib
import importlib.util
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ndp_edge.errors import InputError, MachineError

MODULES = {
    "tensorrt": ("tensorrt",),
    # The first comes with the meta package, the second with the wheels of bindings alone.
    "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
"""Backend -> the modules that may bring it."""

TARGETS = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")
"""Cards that TensorRT-RTX builds for: no Jetson (sm87, sm101, sm110), no Hopper (sm90)."""

RTX_NAMES = (
    "ComputeCapability",
    "IBuilderConfig.num_compute_capabilities",
    "IBuilderConfig.set_compute_capability",
    "Runtime.get_engine_validity",
    "ICudaEngine.create_runtime_config",
    "IRuntimeConfig.create_runtime_cache",
    "CudaGraphStrategy.WHOLE_GRAPH_CAPTURE",
    "DynamicShapesKernelSpecializationStrategy.EAGER",
)
"""Names that `find` may be asked for and that only TensorRT-RTX is certain to have."""

_TEGRA = Path("/etc/nv_tegra_release")


def module_name(backend: str) -> str | None:
    """The importable module behind a backend; None where none is installed. Imports nothing."""
    return next((n for n in MODULES[backend] if importlib.util.find_spec(n) is not None), None)


def load(backend: str) -> Any:
    """The module of "tensorrt" or "tensorrt-rtx".

    Raises:
        MachineError: not installed here, or its libraries do not load; the line has the command.
    """
    name = module_name(backend)
    if name is None:
        raise MachineError(f"{backend} is not installed here; install it with: {install(backend)}")
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, AssertionError) as error:
        line = " ".join(str(error).split())[:200]
        raise MachineError(
            f"{backend} is installed but does not load ({line}); {install(backend)}"
        ) from error


def install(backend: str) -> str:
    """The command that installs a backend on this platform."""
    jetson = _TEGRA.is_file()
    if backend == "tensorrt":
        if jetson:
            return "sudo apt-get install python3-libnvinfer (venvs need --system-site-packages)"
        return "pip install 'ndp-edge[tensorrt]'"
    if jetson:
        return "nothing: not made for Jetson; here --engine tensorrt builds on the device"
    return "pip install 'ndp-edge[rtx]'"


def find(trt: Any, path: str) -> Any:
    """`trt.path` where this version has it, else None. The only door to names that vary."""
    found = trt
    for part in path.split("."):
        found = getattr(found, part, None)
    return found


def is_rtx(trt: Any) -> bool:
    """Whether this module is TensorRT-RTX: it alone builds for cards that are not here."""
    return find(trt, "ComputeCapability") is not None


def version(trt: Any) -> tuple[int, ...]:
    """The version as numbers: (10, 3, 0)."""
    return tuple(int(part) for part in str(trt.__version__).split(".") if part.isdigit())


def set_target(trt: Any, config: Any, target: str) -> None:
    """Build for one card that need not be here.

    Raises:
        InputError: no such card, or this is not TensorRT-RTX.
    """
    capability = find(trt, f"ComputeCapability.{target.upper()}")
    if target not in TARGETS or capability is None:
        raise InputError(
            f"cannot build for {target!r}; tensorrt-rtx builds for {', '.join(TARGETS)}, "
            "tensorrt for the machine that it runs on"
        )
    config.num_compute_capabilities = 1
    config.set_compute_capability(capability, 0)


def can_inspect(trt: Any) -> bool:
    """Whether an engine can be read back where it was built: RTX builds without a card."""
    return not is_rtx(trt)


def keeps_timing_cache(trt: Any) -> bool:
    """TensorRT-RTX times nothing when it builds: its timing cache does nothing, and warns."""
    return not is_rtx(trt)


def may_be_weak(trt: Any) -> bool:
    """Whether the fall-back to weak typing is for this version: 10.0 to 10.6 (JetPack 6)."""
    return not is_rtx(trt) and (10, 0) <= version(trt)[:2] < (10, 7)


def allow_low_precision(trt: Any, config: Any, precision: str) -> None:
    """Weak typing: let the builder choose FP16, and INT8 where there is Q/DQ.

    Raises:
        MachineError: this version has no such flags (11 and RTX are strongly typed).
    """
    wanted = {"fp32": (), "fp16": ("FP16",), "int8": ("FP16", "INT8")}[precision]
    for name in wanted:
        flag = find(trt, f"BuilderFlag.{name}")
        if flag is None:
            raise MachineError(
                f"TensorRT {trt.__version__} has no {name} flag: it takes typed graphs only"
            )
        config.set_flag(flag)


def calibration_cache(scales: Mapping[str, float], trt_version: tuple[int, ...]) -> bytes:
    """The text that TensorRT 10.x's entropy calibrator writes, from scales that we found.

    Args:
        scales: tensor -> scale (largest magnitude / 127), finite and above 0.
        trt_version: (major, minor, patch), as `version` gives.
    """
    number = sum(part * base for part, base in zip(trt_version, (10000, 100, 1), strict=False))
    lines = [f"TRT-{number}-EntropyCalibration2"]
    lines += [f"{n}: {struct.pack('>f', s).hex()}" for n, s in sorted(scales.items())]
    return ("\n".join(lines) + "\n").encode()


def use_calibrator(trt: Any, config: Any, scales: Mapping[str, float]) -> None:
    """10.x without Q/DQ: hand the builder our own scales as a finished calibration cache.

    Raises:
        MachineError: this version has no calibrators.
    """
    base = find(trt, "IInt8EntropyCalibrator2")
    if base is None or find(trt, "IBuilderConfig.int8_calibrator") is None:
        raise MachineError(
            f"TensorRT {trt.__version__} has no calibrators: build from the Q/DQ graph instead"
        )
    config.int8_calibrator = _calibrator(base, calibration_cache(scales, version(trt)))


def _calibrator(base: Any, cache: bytes) -> Any:
    class FromScales(base):  # type: ignore[misc]
        """Shows no image: everything it would measure stands in the cache."""

        def __init__(self) -> None:
            base.__init__(self)  # pybind11 wants its own base called by name

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: list[str]) -> None:
            return None

        def read_calibration_cache(self) -> bytes:
            return cache

        def write_calibration_cache(self, written: bytes) -> None:
            return None

    return FromScales()


def make_logger(trt: Any) -> Any:
    """A logger that keeps what the library says: `.errors` and `.verbose`, lists of str."""

    class Kept(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.verbose: list[str] = []

        def log(self, severity: Any, text: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.errors.append(text)
            elif severity == trt.ILogger.VERBOSE and "LayerType:" in text:
                self.verbose.append(text)

    return Kept()
