"""Devices to predict for: peaks and memory bandwidths as their vendor states them.

From memory of the datasheets: the sheets themselves could not be opened where this was
written. `sure` is False where the value is derived from another or remembered with doubt, and
`note` says how. All peaks are dense (vendors often print twice as much, "with sparsity"), of
the GPU alone (no DLA), at the largest power mode. Bandwidth is the memory's, in GB/s.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """One device's ceilings.

    Attributes:
        name: as tables show it.
        fp32: TFLOPS of the ordinary cores; None where no prediction needs it.
        fp16: dense TFLOPS of the matrix units.
        int8: dense TOPS.
        bandwidth: GB/s.
        sure: whether every figure is the datasheet's own, as remembered without doubt.
        note: where they come from.
    """

    name: str
    fp32: float | None
    fp16: float
    int8: float
    bandwidth: float
    sure: bool
    note: str


ORIN = "32 tensor cores at 1024 INT8 operations a cycle each"

DEVICES = (
    Device(
        "Jetson Orin Nano 8 GB (Super)", None, 16.7, 33.5, 102, True,
        "67 TOPS sparse at 1.02 GHz (MAXN SUPER); without Super 40 sparse, 68 GB/s; FP16 is half",
    ),
    Device(
        "Jetson Orin NX 16 GB", None, 15.0, 30.0, 102.4, False,
        f"100 TOPS sparse with DLA, 60 of them the GPU's: {ORIN} at 918 MHz; FP16 is half",
    ),
    Device(
        "Jetson AGX Orin 64 GB", None, 42.5, 85.0, 204.8, True,
        "275 TOPS sparse with DLA, 170 of them the GPU's; FP16 is half of INT8",
    ),
    Device(
        "Jetson AGX Thor (T5000)", None, 258.0, 517.0, 273, False,
        "2070 TFLOPS FP4 sparse, so 517 FP8 dense; INT8 taken to equal FP8, FP16 to be half",
    ),
    Device("T4", 8.1, 65.0, 130.0, 320, True, "datasheet; 70 W: clocks fall under long load"),
    Device("L4", 30.3, 121.0, 242.5, 300, True, "242 TFLOPS and 485 TOPS sparse"),
    Device("A2", 4.5, 18.0, 36.0, 200, True, "datasheet"),
    Device(
        "RTX A2000", 8.0, 31.9, 63.9, 288, False,
        "63.9 TFLOPS FP16 sparse; INT8 taken to be twice dense FP16",
    ),
    Device(
        "RTX 4000 Ada", 26.7, 81.9, 163.8, 360, False,
        "327.6 TFLOPS FP8 sparse as remembered; its FP32 figure would allow a third more",
    ),
    Device(
        "V100 (SXM2)", 15.7, 125.0, 62.8, 900, True,
        "datasheet; it has no INT8 matrix unit: INT8 is four times FP32 (DP4A), derived",
    ),
    Device("H200", 67.0, 989.5, 1979.0, 4800, True, "datasheet, SXM; half of the sparse figures"),
)  # fmt: skip

V100 = next(device for device in DEVICES if device.name.startswith("V100"))
