"""The way back of a build: what INT8 costs layer by layer, and INT8 with the worst in float.

The order of the layers comes from good pictures and artificial defects of the tune split; the
gate says of each attempt whether it is enough (`calib.fallback` has the reasons).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ndp_edge import build_gate
from ndp_edge.build_inputs import Judged
from ndp_edge.build_measure import Measured, again, measure
from ndp_edge.build_pictures import judge_pictures
from ndp_edge.console import counted, info
from ndp_edge.data.splits import Splits
from ndp_edge.engines import RUNNABLE, open_engine
from ndp_edge.files import write_atomic
from ndp_edge.scoring import answer

if TYPE_CHECKING:
    from ndp_edge.calib.artificial import TuneSet

TIMED = 24
"""Pictures on which FP32, INT8 and INT8 with layers in float take turns."""

Realise = Callable[[Path, Path | None], Path]
"""(int8 ONNX, folder) -> the file that the backend opens; built in that folder, or in the bundle
for None. Backends that run the ONNX itself give it back."""


def as_it_is(int8: Path, folder: Path | None) -> Path:
    """`Realise` for backends that run ONNX."""
    return int8


@dataclass(frozen=True)
class Course:
    """What the attempts need: files, the backend that judges, pictures, limits.

    Attributes:
        onnx: precision -> ONNX file, "fp32" and "int8" among them; the latter is overwritten
            where an attempt passes.
        backend: of `open_engine`.
        splits, judged: whose pictures do what.
        rate: the false-reject rate to aim at.
        max_drop: the gate's limit.
        calibration: of `build_calibrate.quantise`; empty without INT8.
        realise: see `Realise`.
    """

    onnx: Mapping[str, Path]
    backend: str
    splits: Splits
    judged: Judged
    rate: float
    max_drop: float
    calibration: Mapping[str, Any]
    realise: Realise = as_it_is

    def judge(self, measured: Measured, precision: str = "int8") -> dict[str, Any]:
        """The gate's verdict on one precision."""
        seed = self.splits.seed
        verdict = build_gate.judge(measured, self.judged, self.max_drop, precision, seed)
        if precision != "int8":
            return verdict
        pictures = judge_pictures(self.calibration, measured.thresholds["fp32"])
        return build_gate.with_pictures(verdict, pictures)


@dataclass(frozen=True)
class WayBack:
    """What was found, and the engines that the build goes on with.

    Attributes:
        measured, gate: of the int8 model that now lies in the bundle.
        sensitivity: of `calib.sensitivity.sensitivity`; empty where nothing was asked.
        fallback: reason (what fell short with every layer in int8), attempts (layers: how to say
            the groups in float; convolutions: how many; passed; reason), float (the convolutions
            of the model that passed, else []), layers (how to say them), and where one passed
            fp32_ms, whole_ms and ms (median of a picture in FP32, in INT8 throughout, and with
            these layers in float; one pass); empty where none was needed.
        note: one line for the reader, or "".
    """

    measured: Measured
    gate: dict[str, Any]
    sensitivity: dict[str, Any] = field(default_factory=dict)
    fallback: dict[str, Any] = field(default_factory=dict)
    note: str = ""


def way_back(
    course: Course, runnable: Mapping[str, Path], measured: Measured, gate: dict[str, Any]
) -> WayBack:
    """Turn each layer off in turn; where the gate failed, leave the worst in float until it passes.

    Where an attempt passes, the int8 ONNX is the mixed model; where none does, it is as it was.

    Args:
        runnable: precision -> what the backend opens; int8 with every layer in int8.
        measured, gate: of these.
    """
    small = _small_tune_set(course)
    if small is None:
        told = "too few good pictures to find the layers that INT8 costs most in"
        return WayBack(measured, gate, note=told)
    from ndp_edge.calib.sensitivity import sensitivity

    info("INT8 layer by layer: each back to float in turn, on the tune split")
    judge = course.backend if course.backend in RUNNABLE else "onnxruntime"
    found = sensitivity(course.onnx["fp32"], course.onnx["int8"], small, judge)
    if gate["passed"]:
        return WayBack(measured, gate, found)
    with tempfile.TemporaryDirectory(prefix="ndp-edge-back-") as folder:
        return _fall_back(course, runnable, WayBack(measured, gate, found), Path(folder))


def _fall_back(
    course: Course, runnable: Mapping[str, Path], start: WayBack, folder: Path
) -> WayBack:
    from ndp_edge.calib.fallback import attempts, say
    from ndp_edge.calib.partial import Quantised

    failed = {"reason": start.gate["reason"]}
    pure = course.onnx["int8"].read_bytes()
    quantised = Quantised.read(course.onnx["fp32"], course.onnx["int8"])
    tried: list[dict[str, Any]] = []
    for number, groups in enumerate(attempts(start.sensitivity["layers"])):
        names = [name for group in groups for name in group["convolutions"]]
        layers = [say(group) for group in groups]
        info(f"INT8 fell short; trying with {counted(len(names), 'convolution')} in float")
        room = folder / str(number)
        room.mkdir()
        mixed = room / "model.int8.onnx"
        quantised.leave_float(names, mixed)
        engine = course.realise(mixed, room)
        measured = again(start.measured, course.backend, engine, course.judged, "int8")
        gate = course.judge(measured)
        if gate["passed"]:
            cost = _cost(course, {**runnable, "whole": runnable["int8"], "int8": engine})
            measured, gate = _adopt(course, runnable, mixed)
        tried.append({"layers": layers, "convolutions": len(names), "passed": gate["passed"]})
        tried[-1]["reason"] = gate["reason"]
        if gate["passed"]:
            record = {**failed, "attempts": tried, "float": names, "layers": layers, **cost}
            return WayBack(measured, gate, start.sensitivity, record, _told(record))
    write_atomic(course.onnx["int8"], pure)
    record = {**failed, "attempts": tried, "float": [], "layers": []}
    worst = say(start.sensitivity["layers"][0])
    note = f"INT8 costs most in {worst}; leaving layers in float did not pass the gate either"
    return WayBack(start.measured, start.gate, start.sensitivity, record, note)


def _adopt(
    course: Course, runnable: Mapping[str, Path], mixed: Path
) -> tuple[Measured, dict[str, Any]]:
    """Put the mixed model into the bundle, and measure everything anew: times, threshold, maps."""
    write_atomic(course.onnx["int8"], mixed.read_bytes())
    engines = {**runnable, "int8": course.realise(course.onnx["int8"], None)}
    measured = measure(course.backend, engines, course.splits, course.judged, course.rate)
    return measured, course.judge(measured)


def _told(record: Mapping[str, Any]) -> str:
    slower = record["ms"] / record["whole_ms"]
    return (
        f"INT8 passed with {counted(len(record['float']), 'convolution')} in float, reading "
        f"{', '.join(record['layers'])}: {record['whole_ms']:.2f} to {record['ms']:.2f} ms a "
        f"picture ({slower:.2f} times the time of INT8 throughout; FP32 {record['fp32_ms']:.2f})"
    )


def _cost(course: Course, models: Mapping[str, Path]) -> dict[str, float]:
    """Median ms of a picture in FP32, in INT8 throughout and with layers in float, in turns."""
    wanted = {"fp32_ms": "fp32", "whole_ms": "whole", "ms": "int8"}
    with ExitStack() as stack:
        engines = {
            key: stack.enter_context(
                open_engine(
                    course.backend, models[name], precision="fp32" if name == "fp32" else "int8"
                )
            )
            for key, name in wanted.items()
        }
        told = answer(engines, course.judged.images[:TIMED], "speed")
    return {key: float(np.median(answers.ms)) for key, answers in told.items()}


def _small_tune_set(course: Course) -> TuneSet | None:
    """A dozen pictures of the tune split; None without one."""
    if not course.splits.tune:
        return None
    from ndp_edge.build_calibrate import tune_set
    from ndp_edge.calib.sensitivity import GOOD_PICTURES

    return tune_set(course.splits, course.judged.images.shape[1], GOOD_PICTURES)
