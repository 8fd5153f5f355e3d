"""What the device tells of itself: clock, temperature, energy. What it does not tell stays None.

Everything is read from files of the kernel's, or from NVIDIA's management library where there
is one; nothing needs root but RAPL's counter on most systems, and what cannot be read counts
as not told.
"""

from __future__ import annotations

import ctypes
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

SYS = Path("/sys")
TASKS = Path("/proc/self/task")


@dataclass(frozen=True)
class Condition:
    """One look at the device.

    Attributes:
        clock_mhz: mean of the cores' clocks, and of the GPU under "gpu"; empty: not told.
        celsius: temperature by sensor; empty: not told.
    """

    clock_mhz: dict[str, float]
    celsius: dict[str, float]


class Meter(Protocol):
    """Something that tells energy.

    Attributes:
        source: where the figure comes from, for the reader.
    """

    source: str

    def joules(self) -> float | None:
        """Joules since some fixed moment; None where this reading failed."""


class Rapl:
    """The processor package's own counter (Intel and AMD), microjoules, wraps."""

    source = "RAPL, processor package"

    def __init__(self, zones: list[Path]) -> None:
        self._zones = zones
        self._last = [0.0] * len(zones)
        self._turns = [0.0] * len(zones)

    def joules(self) -> float | None:
        total = 0.0
        for i, zone in enumerate(self._zones):
            now = number(zone / "energy_uj")
            if now is None:
                return None
            if now < self._last[i]:
                self._turns[i] += number(zone / "max_energy_range_uj") or 0.0
            self._last[i] = now
            total += self._turns[i] + now
        return 1e-6 * total


class Nvml:
    """The card's counter of millijoules since the driver was loaded (Volta and later)."""

    source = "NVML, whole card"

    def __init__(self, library: Any) -> None:
        self._library = library
        self._card = ctypes.c_void_p()
        found = library.nvmlInit_v2() == 0
        found = found and library.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(self._card)) == 0
        self.found = bool(found)

    def joules(self) -> float | None:
        told = ctypes.c_ulonglong()
        ask = self._library.nvmlDeviceGetTotalEnergyConsumption
        return 1e-3 * told.value if ask(self._card, ctypes.byref(told)) == 0 else None

    def condition(self) -> Condition:
        """The card's SM clock and temperature (NVML's numbers 1 and 0 for them)."""
        clock, degrees = ctypes.c_uint(), ctypes.c_uint()
        lib, card = self._library, self._card
        clocked = lib.nvmlDeviceGetClockInfo(card, 1, ctypes.byref(clock)) == 0
        heated = lib.nvmlDeviceGetTemperature(card, 0, ctypes.byref(degrees)) == 0
        return Condition(
            {"gpu": float(clock.value)} if clocked else {},
            {"gpu": float(degrees.value)} if heated else {},
        )


class Ina:
    """A Jetson's own power monitor (INA3221): joules are its watts over the time between looks."""

    def __init__(self, rails: dict[str, tuple[Path, Path]]) -> None:
        """`rails`: label -> files of millivolts and milliamperes."""
        self._rails = rails
        self.source = f"INA3221, sampled: {' + '.join(rails)}"
        self._joules = self._when = 0.0
        self._watts: float | None = None

    def joules(self) -> float | None:
        watts = 0.0
        for volts, amperes in self._rails.values():
            mv, ma = number(volts), number(amperes)
            if mv is None or ma is None:
                return None
            watts += 1e-6 * mv * ma
        now = time.monotonic()
        if self._watts is not None:
            self._joules += 0.5 * (watts + self._watts) * (now - self._when)
        self._watts, self._when = watts, now
        return self._joules


class Sensors:
    """All that this device tells.

    Attributes:
        meter: the energy meter; None where there is none.
    """

    def __init__(self, root: Path = SYS, nvml: Any = None) -> None:
        """Look for sensors below `root` (/sys, or a copy of it), and in NVML's library."""
        self._root = root
        library = _nvml_library() if nvml is None and root == SYS else nvml
        card = Nvml(library) if library is not None else None
        self._card = card if card is not None and card.found else None
        found = [self._card, _ina(root), _rapl(root)]
        # The first that gives a figure: a card draws more than the processor beside it.
        self.meter: Meter | None = next(
            (one for one in found if one is not None and one.joules() is not None), None
        )

    def condition(self) -> Condition:
        """Clocks and temperatures as they are now."""
        cores = sorted(self._root.glob("devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq"))
        khz = [v for path in cores if (v := number(path)) is not None]
        clocks = {"cpu": sum(khz) / len(khz) / 1e3} if khz else {}
        heat = {}
        for zone in sorted(self._root.glob("class/thermal/thermal_zone*")):
            value = number(zone / "temp")
            if value is not None and value > 0:  # a sensor that sleeps answers 0 or less
                heat[text(zone / "type") or zone.name] = value / 1e3
        card = self._card.condition() if self._card else Condition({}, {})
        return Condition(clocks | card.clock_mhz, heat | card.celsius)


class Queue:
    """How long this process's threads waited for a core that others had.

    Linux counts both per thread, in nanoseconds (schedstat): time on a core, and time ready
    to run but waiting for one. On a quiet device the second is next to nothing.
    """

    def __init__(self, tasks: Path = TASKS) -> None:
        """Start counting; `tasks` is /proc/self/task or a copy of it."""
        self._tasks = tasks
        self._last = self._look()

    def waited(self) -> float | None:
        """The share of waiting since the last call, 0 to 1; None where Linux does not tell."""
        now, before = self._look(), self._last
        self._last = now
        ran = queued = 0.0
        for thread, (run, wait) in now.items():
            run_before, wait_before = before.get(thread, (0.0, 0.0))
            ran, queued = ran + run - run_before, queued + wait - wait_before
        return min(max(queued / (ran + queued), 0.0), 1.0) if ran + queued > 0 else None

    def _look(self) -> dict[str, tuple[float, float]]:
        found = {}
        for path in self._tasks.glob("*/schedstat"):
            words = (text(path) or "").split()
            if len(words) == 3:
                found[path.parent.name] = float(words[0]), float(words[1])
        return found


def told(looks: list[Condition]) -> dict[str, Any]:
    """Lowest and highest of each sensor over a run; "not told" where there is none."""
    return {key: _range([getattr(look, key) for look in looks]) for key in ("clock_mhz", "celsius")}


def _range(looks: list[dict[str, float]]) -> dict[str, list[float]] | str:
    names = dict.fromkeys(name for look in looks for name in look)
    ranges = {}
    for name in names:
        values = [look[name] for look in looks if name in look]
        ranges[name] = [round(min(values), 1), round(max(values), 1)]
    return ranges or "not told"


def number(path: Path) -> float | None:
    """The number that a file of the kernel's holds; None where it cannot be read."""
    try:
        return float(text(path) or "")
    except ValueError:
        return None


def text(path: Path) -> str | None:
    """A file's first line without spaces around it; None where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _rapl(root: Path) -> Rapl | None:
    zones = [
        zone
        for zone in sorted(root.glob("class/powercap/*-rapl:*"))
        if (text(zone / "name") or "").startswith("package")
    ]
    return Rapl(zones) if zones else None


def _ina(root: Path) -> Ina | None:
    """The board's input (VDD_IN: Orin Nano and NX); without one all rails, as on an AGX Orin."""
    rails = {}
    for label in sorted(root.glob("bus/i2c/drivers/ina3221/*/hwmon/hwmon*/in*_label")):
        index = label.name.removeprefix("in").removesuffix("_label")
        name = text(label) or label.name
        files = label.with_name(f"in{index}_input"), label.with_name(f"curr{index}_input")
        if name.startswith("V") and all(number(file) is not None for file in files):
            rails[name] = files
    whole = {name: files for name, files in rails.items() if name == "VDD_IN"}
    return Ina(whole or rails) if rails else None


def _nvml_library() -> Any:
    try:
        return ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
