"""What a build knows when its work is done, and the clock it works by."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from ndp_edge.build_choice import gate_of, lines
from ndp_edge.build_inputs import Judged, Net
from ndp_edge.build_measure import Measured
from ndp_edge.build_trt import BuiltEngine
from ndp_edge.data.splits import Splits
from ndp_edge.types import Layer


@dataclass(frozen=True)
class Work:
    """Everything that one build has found out, for the report and the manifest.

    Attributes:
        net, data: the graph, and the name of the photographs' folder.
        splits, judged: which pictures did what.
        backend, why: the backend that was measured, and why the one asked for was taken.
        calibration: how INT8 was calibrated; empty without INT8.
        measured, gates: the engines' answers, and the gate's verdict on each precision below FP32.
        emitted: the precision that the bundle runs.
        notes: what the reader must know.
        layers: the emitted engine's executed graph; empty where the backend does not tell.
        batches: times at other batch sizes than 1, where asked for.
        seconds: wall-clock time per step.
        sensitivity, fallback: of `build_fallback.WayBack`; empty where not asked or not needed.
        built: engines for NVIDIA cards: what was measured (TensorRT), or what was built for
            cards that are not here (TensorRT-RTX), and then `backend` is another.
    """

    net: Net
    data: str
    splits: Splits
    judged: Judged
    backend: str
    why: str
    calibration: dict[str, Any]
    measured: Measured
    gates: dict[str, dict[str, Any]]
    emitted: str
    notes: list[str]
    layers: list[Layer]
    batches: list[dict[str, Any]]
    seconds: dict[str, float]
    built: list[BuiltEngine] = field(default_factory=list)
    sensitivity: dict[str, Any] = field(default_factory=dict)
    fallback: dict[str, Any] = field(default_factory=dict)

    @property
    def gate(self) -> dict[str, Any]:
        """The verdict on what is emitted, or on what FP32 was kept for."""
        return gate_of(self.emitted, self.gates)

    def choices(self) -> list[dict[str, Any]]:
        """A line per precision: ms, speed, gate (`build_choice.lines`)."""
        return lines(self.measured.metrics, self.gates, self.emitted, self.fallback)

    def int8_share(self) -> float | None:
        """Share of the convolutions' time that runs in int8 kernels, as executed; None if unknown.

        That of the measured engine; of engines for cards the report counts the convolutions.
        """
        if self.emitted != "int8" or not self.layers:
            return None
        from ndp_edge.engines.executed import int8_share

        return int8_share(self.layers)

    @property
    def runs_on(self) -> str:
        """The backend that the bundle is for."""
        return self.built[0].sidecar.backend if self.built else self.backend

    @property
    def judged_on(self) -> str | None:
        """The backend that stood in for the one that the bundle is for; None where none did."""
        return self.backend if self.runs_on != self.backend else None


class Clock:
    """Wall-clock seconds per step of the build, in order."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, step: str) -> None:
        """The time since the last lap belongs to `step`."""
        now = time.monotonic()
        self.seconds[step] = round(now - self._last, 3)
        self._last = now
