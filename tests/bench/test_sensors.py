"""Sensors, on copies of the kernel's files: what is told is read right, what is not stays None."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest

from ndp_edge.bench import sensors
from ndp_edge.bench.sensors import Condition, Queue, Sensors, told


def write(root: Path, files: dict[str, object]) -> Path:
    for name, value in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    return root


def test_a_device_that_tells_nothing(tmp_path: Path) -> None:
    found = Sensors(tmp_path)
    assert found.meter is None
    assert found.condition() == Condition({}, {})
    assert told([found.condition()]) == {"clock_mhz": "not told", "celsius": "not told"}


def test_clocks_and_temperatures(tmp_path: Path) -> None:
    cpu = "devices/system/cpu/cpu{}/cpufreq/scaling_cur_freq"
    zone = "class/thermal/thermal_zone{}/{}"
    write(
        tmp_path,
        {
            cpu.format(0): 1_500_000,
            cpu.format(1): 2_500_000,
            zone.format(0, "type"): "cpu-thermal",
            zone.format(0, "temp"): 48_500,
            zone.format(1, "type"): "asleep",
            zone.format(1, "temp"): -256_000,
        },
    )
    found = Sensors(tmp_path)
    assert found.condition() == Condition({"cpu": 2000.0}, {"cpu-thermal": 48.5})
    write(tmp_path, {zone.format(0, "temp"): 61_000})
    looks = [Condition({"cpu": 2000.0}, {"cpu-thermal": 48.5}), found.condition()]
    assert told(looks) == {
        "clock_mhz": {"cpu": [2000.0, 2000.0]},
        "celsius": {"cpu-thermal": [48.5, 61.0]},
    }


def test_rapl_counts_through_its_wrap(tmp_path: Path) -> None:
    zone = "class/powercap/intel-rapl:0/"
    write(
        tmp_path,
        {
            zone + "name": "package-0",
            zone + "energy_uj": 9_000_000,
            zone + "max_energy_range_uj": 10_000_000,
            "class/powercap/intel-rapl:0:0/name": "core",
            "class/powercap/intel-rapl:0:0/energy_uj": 1,
        },
    )
    meter = Sensors(tmp_path).meter
    assert meter is not None
    assert "RAPL" in meter.source
    before = meter.joules()
    write(tmp_path, {zone + "energy_uj": 1_500_000})
    after = meter.joules()
    assert before is not None
    assert after is not None
    assert after - before == pytest.approx(2.5)
    (tmp_path / zone / "energy_uj").unlink()
    assert meter.joules() is None


INA = "bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/"
"""Where a Jetson Orin's first monitor is."""


@pytest.mark.parametrize(
    ("labels", "watts", "source"),
    [
        ({1: "VDD_IN", 2: "VDD_CPU_GPU_CV"}, 10.0, "VDD_IN"),
        ({1: "VDD_GPU_SOC", 2: "VDD_CPU_CV", 3: "sum of shunt voltages"}, 14.0, "VDD_CPU_CV"),
    ],
)
def test_a_jetsons_rails(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    labels: dict[int, str],
    watts: float,
    source: str,
) -> None:
    milli = {1: (5000, 2000), 2: (5000, 800), 3: (5000, 100)}
    for i, label in labels.items():
        volts, amperes = milli[i]
        write(
            tmp_path,
            {
                f"{INA}in{i}_label": label,
                f"{INA}in{i}_input": volts,
                f"{INA}curr{i}_input": amperes,
            },
        )
    now = [100.0]
    monkeypatch.setattr(sensors.time, "monotonic", lambda: now[0])
    meter = Sensors(tmp_path).meter
    assert meter is not None
    assert source in meter.source
    before = meter.joules()
    now[0] += 2.5
    after = meter.joules()
    assert before is not None
    assert after is not None
    assert after - before == pytest.approx(2.5 * watts)


class FakeNvml:
    """The calls of NVIDIA's library that are used; `broken` ones answer an error."""

    def __init__(self, broken: tuple[str, ...] = ()) -> None:
        self.broken = broken
        self.energy = 5000

    def __getattr__(self, name: str) -> Any:
        values = {
            "nvmlDeviceGetTotalEnergyConsumption": self.energy,
            "nvmlDeviceGetClockInfo": 1410,
            "nvmlDeviceGetTemperature": 55,
        }

        def call(*arguments: Any) -> int:
            if any(name.startswith(one) for one in self.broken):
                return 3
            if name in values:
                pointer = arguments[-1]
                pointer._obj.value = values[name]
                assert isinstance(pointer._obj, (ctypes.c_uint, ctypes.c_ulonglong))
            return 0

        return call


def test_a_card_through_nvml(tmp_path: Path) -> None:
    library = FakeNvml()
    found = Sensors(tmp_path, library)
    assert found.condition() == Condition({"gpu": 1410.0}, {"gpu": 55.0})
    assert found.meter is not None
    assert found.meter.joules() == 5.0
    library.energy = 7500
    assert found.meter.joules() == 7.5


@pytest.mark.parametrize("broken", ["nvmlInit", "nvmlDeviceGetHandle"])
def test_a_library_without_a_card(tmp_path: Path, broken: str) -> None:
    found = Sensors(tmp_path, FakeNvml((broken,)))
    assert found.meter is None
    assert found.condition() == Condition({}, {})


def test_a_card_that_does_not_tell_energy(tmp_path: Path) -> None:
    found = Sensors(tmp_path, FakeNvml(("nvmlDeviceGetTotalEnergy",)))
    assert found.meter is None
    assert found.condition().clock_mhz == {"gpu": 1410.0}


def test_waiting_is_told_per_look(tmp_path: Path) -> None:
    write(tmp_path, {"1/schedstat": "1000 0 5", "2/schedstat": "500 500 5"})
    queue = Queue(tmp_path)
    write(tmp_path, {"1/schedstat": "4000 1000 9", "3/schedstat": "1000 1000 1"})
    (tmp_path / "2" / "schedstat").unlink()  # a thread that has ended
    assert queue.waited() == pytest.approx(2000 / 6000)
    assert queue.waited() is None  # nothing ran since
    assert Queue(tmp_path / "absent").waited() is None


def test_linux_tells_this_process() -> None:
    queue = Queue()
    sum(range(2_000_000))
    waited = queue.waited()
    assert waited is None or 0 <= waited <= 1
