"""`python -m ndp_edge.build`: photographs and a net to a proven bundle.

With no options: the net that ships with the package, and the built-in surface.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ndp_edge import build_calibrate, build_card, build_inputs, build_report, build_trt
from ndp_edge.build_batches import parse_batches, try_batches
from ndp_edge.build_choice import passed, pick_precision
from ndp_edge.build_fallback import Course, WayBack, way_back
from ndp_edge.build_inputs import Judged, Net
from ndp_edge.build_measure import lower, measure, speed_up
from ndp_edge.build_options import RTX, TRT, check_options, parser
from ndp_edge.build_table import summary_table
from ndp_edge.build_work import Clock, Work
from ndp_edge.bundle import BundleWriter
from ndp_edge.console import emit_json, info, run_verb, text_stream
from ndp_edge.data.splits import Splits
from ndp_edge.engines.tensorrt_rtx import parse_targets
from ndp_edge.errors import GateError
from ndp_edge.golden import Golden, engine_key, write_golden
from ndp_edge.threshold import DEFAULT_RATE, choose_rate
from ndp_edge.types import Layer


def prepare(args: argparse.Namespace, writer: BundleWriter) -> tuple[Net, str, Splits, float]:
    """Net, name of the data, splits and the false-reject rate to aim at."""
    dataset = build_inputs.load_dataset(args.data)
    net = build_inputs.load_net(args.checkpoint, dataset, writer.path("model.onnx"))
    splits = build_inputs.split_dataset(dataset, net, args.seed)
    rate = choose_rate(args.target_false_reject, len(splits.threshold))
    if args.sensitivity:
        build_calibrate.require_tune(splits)
    info(
        f"{net.config.preset}, {net.config.image_size} px; good images: {len(splits.train)} train, "
        f"{len(splits.calibration)} calibration, {len(splits.tune)} tune, "
        f"{len(splits.threshold)} threshold; {len(splits.test)} test images"
    )
    return net, dataset.root.name, splits, rate


def make_models(
    args: argparse.Namespace, net: Net, splits: Splits, writer: BundleWriter, backend: str
) -> tuple[dict[str, Path], dict[str, Any]]:
    """Precision -> ONNX, FP32's and the lower one asked for; and how that was calibrated.

    `backend` is the one that judges.
    """
    models = {"fp32": net.model}
    calibration: dict[str, Any] = {}
    if args.precision == "fp16" or (args.precision == "auto" and backend == TRT):
        models["fp16"] = writer.path("model.fp16.onnx")
        build_trt.write_fp16(net.model, models["fp16"])
    if args.precision in ("int8", "auto"):
        models["int8"] = writer.path("model.int8.onnx")
        calibration = build_calibrate.quantise(
            net,
            splits,
            models["int8"],
            method=args.calib_method,
            wanted=args.calib_images,
            backend=backend,
        )
    return models, calibration


def run_build(args: argparse.Namespace, writer: BundleWriter, backend: str, why: str) -> Work:
    """All the work; leaves the models in the writer and commits nothing."""
    clock, batches = Clock(), parse_batches(args.batch)
    net, data, splits, rate = prepare(args, writer)
    judged = build_inputs.judged_images(splits, net.config.image_size)
    clock.lap("prepare")
    judge_on = build_trt.judge_backend(backend, args.precision)
    models, calibration = make_models(args, net, splits, writer, judge_on)
    clock.lap("calibrate")
    card = build_card.OnCard(writer.path, models, batches, args.variant)
    course = Course(models, judge_on, splits, judged, rate, args.max_drop, calibration)
    if backend == TRT:
        card.build()
        course = replace(course, realise=card.realise)
        clock.lap("build")
    runnable = card.runnable()
    info(f"measuring {' and '.join(models)} with {judge_on} ({why})")
    found, gates = ask_the_gate(course, runnable, layers=args.sensitivity)
    measured, built = found.measured, card.built
    speeds = {p: speed_up(measured, p) for p in gates if judge_on == backend}
    emitted, told = pick_precision(args.precision, gates, speeds)
    notes = [*card.notes, *told, *[found.note] * bool(found.note)]
    notes += build_report.notes(net, judged, rate, DEFAULT_RATE, args.target_false_reject)
    notes += build_report.outlier_notes(measured, splits, emitted)
    tried = try_batches(
        judge_on,
        runnable[emitted],
        emitted,
        judged.images,
        measured.answers[emitted].scores,
        batches=batches,
        tolerance=measured.tolerances[engine_key(judge_on, emitted)]["max_abs"],
    )
    clock.lap("measure")
    if backend == RTX and (emitted != args.precision or passed(gates, emitted)):
        built = build_trt.cross_build(
            writer.path,
            build_trt.Models.of(models),
            emitted,
            targets=parse_targets(args.target),
            batches=batches,
        )
        clock.lap("build")
    notes += build_trt.notes(built, judge_on if judge_on != backend else None, models.get("int8"))
    layers = look_inside(judge_on, runnable[emitted], judged, emitted)
    return Work(
        net, data, splits, judged, judge_on, why, calibration, measured, gates, emitted, notes,
        layers, tried, clock.seconds, built, found.sensitivity, found.fallback,
    )  # fmt: skip


def ask_the_gate(
    course: Course, runnable: Mapping[str, Path], *, layers: bool
) -> tuple[WayBack, dict[str, dict[str, Any]]]:
    """Measure and judge; where INT8 falls short, go back layer by layer.

    Args:
        runnable: precision -> what the backend opens.
        layers: ask for the layers' sensitivity though the gate passes.

    Returns:
        What was found, its `gate` that of INT8; and precision below FP32 -> verdict.
    """
    measured = measure(course.backend, runnable, course.splits, course.judged, course.rate)
    gates = {precision: course.judge(measured, precision) for precision in lower(measured)}
    gate = gates.get("int8")
    # No layer in float makes good product of what calibrated.
    if gate is None or (gate["passed"] and not layers) or not gate["calibration"]["passed"]:
        return WayBack(measured, gate or {}), gates
    found = way_back(course, runnable, measured, gate)
    return found, {**gates, "int8": found.gate}


def look_inside(backend: str, model: Path, judged: Judged, precision: str) -> list[Layer]:
    """The executed graph's layers, where the backend tells them (OpenVINO does)."""
    if backend != "openvino":
        return []
    from ndp_edge.engines.executed import executed_layers

    return executed_layers(model, judged.images[:1], precision=precision, runs=9)


def keep(work: Work, writer: BundleWriter, *, force: bool) -> Path:
    """Golden file, report and manifest into the bundle; commit it.

    What is below FP32 stays only if it was emitted.
    """
    precisions = ["fp32"] if work.emitted == "fp32" else ["fp32", work.emitted]
    for precision, file in build_report.FILES.items():
        if precision not in precisions:
            writer.path(file).unlink(missing_ok=True)
    for engine in work.built:
        if engine.sidecar.precision not in precisions:
            build_trt.remove(writer.path, engine)
    keys = [engine_key(work.backend, p) for p in precisions]
    maps = {key: work.measured.golden.maps[key] for key in keys}
    write_golden(writer.path("golden.npz"), Golden(work.measured.golden.images, maps))
    build_report.write(work, writer.path("report.html"), writer.path("report.json"))
    return writer.commit(build_report.manifest(work, precisions), force=force)


def keep_report(work: Work, out: Path) -> Path:
    """A failed build keeps its report, beside where the bundle would be."""
    with BundleWriter(out.with_name(f"{out.name}.failed")) as writer:
        build_report.write(work, writer.path("report.html"), writer.path("report.json"))
        return writer.commit_plain()


def build(args: argparse.Namespace) -> int:
    """Build as asked.

    Raises:
        GateError: INT8 (or FP16) was asked for and lost too much; no bundle, the report is kept.
    """
    if args.rebuild is not None:
        from ndp_edge.build_rebuild import rebuild

        return rebuild(args)
    began = time.monotonic()
    backend, why = check_options(args)
    out = args.out.resolve()
    with BundleWriter(out) as writer:
        work = run_build(args, writer, backend, why)
        failed = args.precision == work.emitted and not work.gate["passed"]
        if not failed:
            keep(work, writer, force=args.force)
    where = keep_report(work, out) if failed else out
    stream = text_stream(args.json)
    print(summary_table(work), file=stream)
    for note in work.notes:
        print(f"note: {note}", file=stream)
    print(f"report: {where / 'report.html'}", file=stream)
    emit_json(args.json, build_report.report(work))
    if failed:
        name = args.precision.upper()
        raise GateError(f"{name} did not pass, no bundle was written: {work.gate['reason']}")
    print(
        f"bundle: {out} ({backend} {work.emitted}, {time.monotonic() - began:.0f} s)", file=stream
    )
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point; exit codes as in DESIGN section 8."""
    args = parser().parse_args(argv)
    return run_verb(lambda: build(args))


if __name__ == "__main__":
    raise SystemExit(main())
