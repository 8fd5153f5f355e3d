"""A roofline: the least time a net can take, and what share of it a runtime reaches.

A layer takes at least max(operations / peak, bytes / bandwidth), and at least what starting it
costs. The sum over the layers is the ideal; a runtime's efficiency is ideal over measured. The
prediction for another device is its own ideal over that efficiency.

What that can say: the order of devices and the size of the answer. What it cannot: how well a
GPU's libraries suit these shapes. The efficiency comes from a CPU, where peak means the best
matrix product measured beside it; a datasheet's peak is never reached even by one, so that the
predictions lean to the fast side. Small maps do not fill a large card at batch 1, which no
term here knows. Clocks that fall with heat, copies to the card and everything outside the net
are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from ndp_edge.bench.cost import Cost, Group
from ndp_edge.bench.devices import Device
from ndp_edge.errors import InputError

LAUNCH_US = 3.0
"""What starting a layer costs at least on a card, even inside a CUDA graph. An assumption."""


@dataclass(frozen=True)
class Ceilings:
    """What a device can do at most at one precision.

    Attributes:
        tops: peak of the matrix units, 10^12 operations a second.
        bandwidth: of the memory, GB/s.
        precision: "fp32", "fp16" or "int8": of weights and of tensors between convolutions.
        wide: what the other tensors are in when `precision` is "int8".
        launch_us: least time of a layer, microseconds.
    """

    tops: float
    bandwidth: float
    precision: str
    wide: str = "fp16"
    launch_us: float = 0.0


def of_device(device: Device, precision: str) -> Ceilings:
    """A card's ceilings.

    Raises:
        InputError: its peak at this precision is not known.
    """
    tops = {"fp32": device.fp32, "fp16": device.fp16, "int8": device.int8}[precision]
    if tops is None:
        raise InputError(f"no {precision} peak of {device.name} is known")
    return Ceilings(tops, device.bandwidth, precision, launch_us=LAUNCH_US)


def layer_ms(group: Group, ceilings: Ceilings) -> tuple[float, str]:
    """The least milliseconds of one layer, and what holds it: "compute", "memory", "launch"."""
    each = {
        "compute": group.flops / (ceilings.tops * 1e9),
        "memory": group.traffic(ceilings.precision, ceilings.wide) / (ceilings.bandwidth * 1e6),
        "launch": ceilings.launch_us / 1e3,
    }
    held = max(each, key=lambda name: each[name])
    return each[held], held


def ideal_ms(cost: Cost, ceilings: Ceilings) -> float:
    """The least milliseconds of the whole net."""
    return sum(layer_ms(group, ceilings)[0] for group in cost.groups)


def shares(cost: Cost, ceilings: Ceilings) -> dict[str, float]:
    """Which part of the ideal time is held by compute, by memory and by starting layers."""
    total = ideal_ms(cost, ceilings)
    found = {"compute": 0.0, "memory": 0.0, "launch": 0.0}
    for group in cost.groups:
        ms, held = layer_ms(group, ceilings)
        found[held] += ms / total
    return found
