"""`python -m ndp_edge.build`: photographs and a net to a proven bundle.

With no options: the net that ships with the package, and the built-in surface.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from ndp_edge import build_inputs, build_report
from ndp_edge.build_batches import parse_batches, try_batches
from ndp_edge.build_inputs import Judged, Net
from ndp_edge.build_measure import judge, measure, speed_up
from ndp_edge.build_work import Clock, Work
from ndp_edge.bundle import BundleWriter, refuse_existing
from ndp_edge.console import add_json_option, emit_json, info, run_verb, text_stream
from ndp_edge.data.folder import load_images
from ndp_edge.data.splits import Splits
from ndp_edge.engines import choose
from ndp_edge.errors import GateError, InputError
from ndp_edge.golden import Golden, engine_key, write_golden
from ndp_edge.threshold import DEFAULT_RATE, choose_rate
from ndp_edge.types import Layer

PRECISIONS = ("int8", "fp32", "fp16", "auto")
ENGINES = ("auto", "openvino", "onnxruntime", "tensorrt", "tensorrt-rtx")
METHODS = ("minmax", "entropy", "percentile")


def parser() -> argparse.ArgumentParser:
    """The command line of DESIGN section 8."""
    p = argparse.ArgumentParser(prog="python -m ndp_edge.build", description=__doc__)
    p.add_argument(
        "--checkpoint",
        type=Path,
        metavar="F",
        help="training run, safetensors or exported ONNX; default: the shipped net",
    )
    p.add_argument(
        "--data",
        type=Path,
        metavar="ROOT",
        help="MVTec-style folder; default: the built-in surface",
    )
    group = p.add_mutually_exclusive_group()
    for name, text in {
        "int8": "INT8, behind the gate: exit 1 when it falls short",
        "fp32": "FP32 only",
        "fp16": "for backends that compute in FP16",
        "auto": "the default: the fastest precision that passes the gate",
    }.items():
        group.add_argument(
            f"--{name}", dest="precision", action="store_const", const=name, help=text
        )
    p.add_argument("--engine", default="auto", choices=ENGINES)
    p.add_argument("--calib-method", default="minmax", choices=METHODS)
    p.add_argument(
        "--calib-images", type=int, metavar="N", help="default: the whole calibration split"
    )
    p.add_argument("--max-drop", type=float, default=0.005, help="of any metric, INT8 against FP32")
    p.add_argument(
        "--target-false-reject",
        type=float,
        metavar="RATE",
        help="default: 0.01, or the smallest that the good images carry",
    )
    p.add_argument(
        "--batch",
        default="1",
        metavar="1,8",
        help="batch sizes to prove and time; batch 1 always is",
    )
    p.add_argument("--target", metavar="sm86,sm89", help="cards to build for (tensorrt-rtx only)")
    p.add_argument("--seed", type=int, help="of the split and calibration; default: the net's own")
    p.add_argument("--out", type=Path, default=Path("bundle"), metavar="DIR")
    p.add_argument("--force", action="store_true", help="replace an earlier bundle at --out")
    add_json_option(p)
    p.set_defaults(precision="auto")
    return p


def check_options(args: argparse.Namespace) -> tuple[str, str]:
    """(backend, why it was taken); everything that can be refused before any work is.

    Raises:
        InputError: options that make no sense, or --out is taken.
        MachineError: the backend is not installed.
    """
    if not 0 <= args.max_drop < 1:
        raise InputError(f"--max-drop {args.max_drop} must lie in [0, 1)")
    if args.target_false_reject is not None and not 0 < args.target_false_reject < 1:
        raise InputError(f"--target-false-reject {args.target_false_reject} must lie in (0, 1)")
    parse_batches(args.batch)
    refuse_existing(args.out.resolve(), force=args.force)
    backend, why = choose(args.engine)
    if args.target is not None and backend != "tensorrt-rtx":
        raise InputError(f"--target: {backend} builds for this machine; only tensorrt-rtx has it")
    if args.precision == "fp16":
        raise InputError(
            f"--fp16: {backend} on a CPU computes FP16 nets in FP32, so that nothing is gained; "
            "take --int8 or --fp32"
        )
    return backend, why


def prepare(args: argparse.Namespace, writer: BundleWriter) -> tuple[Net, str, Splits, float]:
    """Net, name of the data, splits and the false-reject rate to aim at."""
    dataset = build_inputs.load_dataset(args.data)
    net = build_inputs.load_net(args.checkpoint, dataset, writer.path("model.onnx"))
    splits = build_inputs.split_dataset(dataset, net, args.seed)
    rate = choose_rate(args.target_false_reject, len(splits.threshold))
    info(
        f"{net.config.preset}, {net.config.image_size} px; good images: {len(splits.train)} train, "
        f"{len(splits.calibration)} calibration, {len(splits.threshold)} threshold; "
        f"{len(splits.test)} test images"
    )
    return net, dataset.root.name, splits, rate


def quantise(args: argparse.Namespace, net: Net, splits: Splits, out: Path) -> dict[str, Any]:
    """Calibrate on good images of the calibration split alone; writes the INT8 ONNX."""
    from ndp_edge.calib.calibrate import calibrate

    samples = build_inputs.calibration_samples(splits, args.calib_images)
    info(f"calibrating on {len(samples)} good images ({args.calib_method})")
    images = load_images(samples, net.config.image_size)
    done = calibrate(net.model, images, out, method=args.calib_method, seed=splits.seed)
    return {**done, "hashes": sorted({splits.hashes[s.name] for s in samples})}


def pick_precision(asked: str, gate: dict[str, Any], faster: float | None) -> tuple[str, list[str]]:
    """The precision to emit, and what to tell about the choice."""
    if faster is None:
        return "fp32", []
    slow = [f"INT8 is not worth it here: {faster:.2f} x FP32"] if faster <= 1 else []
    if asked == "int8":
        return "int8", slow
    if not gate["passed"]:
        return "fp32", [f"INT8 did not pass the gate, so the bundle is FP32: {gate['reason']}"]
    return ("fp32", slow) if slow else ("int8", [])


def run_build(args: argparse.Namespace, writer: BundleWriter, backend: str, why: str) -> Work:
    """All the work; leaves the models in the writer and commits nothing."""
    clock = Clock()
    net, data, splits, rate = prepare(args, writer)
    judged = build_inputs.judged_images(splits, net.config.image_size)
    clock.lap("prepare")
    models = {"fp32": net.model}
    calibration: dict[str, Any] = {}
    if args.precision != "fp32":
        models["int8"] = writer.path("model.int8.onnx")
        calibration = quantise(args, net, splits, models["int8"])
        clock.lap("calibrate")
    info(f"measuring {' and '.join(models)} with {backend} ({why})")
    measured = measure(backend, models, splits, judged, rate)
    gate = judge(measured, judged, args.max_drop)
    emitted, notes = pick_precision(args.precision, gate, speed_up(measured))
    notes += build_report.notes(net, judged, rate, DEFAULT_RATE, args.target_false_reject)
    notes += build_report.outlier_notes(measured, splits, emitted)
    batches = try_batches(
        backend,
        models[emitted],
        emitted,
        judged.images,
        measured.answers[emitted].scores,
        batches=parse_batches(args.batch),
        tolerance=measured.tolerances[engine_key(backend, emitted)]["max_abs"],
    )
    layers = look_inside(backend, models[emitted], judged, emitted)
    clock.lap("measure")
    return Work(
        net,
        data,
        splits,
        judged,
        backend,
        why,
        calibration,
        measured,
        gate,
        emitted,
        notes,
        layers,
        batches,
        clock.seconds,
    )


def look_inside(backend: str, model: Path, judged: Judged, precision: str) -> list[Layer]:
    """The executed graph's layers, where the backend tells them (OpenVINO does)."""
    if backend != "openvino":
        return []
    from ndp_edge.engines.executed import executed_layers

    return executed_layers(model, judged.images[:1], precision=precision, runs=3)


def keep(work: Work, writer: BundleWriter, *, force: bool) -> Path:
    """Golden file, report and manifest into the bundle; commit it. INT8 stays only if emitted."""
    precisions = ["fp32"] if work.emitted == "fp32" else ["fp32", work.emitted]
    if "int8" not in precisions:
        writer.path("model.int8.onnx").unlink(missing_ok=True)
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
        GateError: INT8 was asked for and lost too much; no bundle, the report is kept.
    """
    began = time.monotonic()
    backend, why = check_options(args)
    out = args.out.resolve()
    with BundleWriter(out) as writer:
        work = run_build(args, writer, backend, why)
        failed = args.precision == "int8" and not work.gate["passed"]
        if not failed:
            keep(work, writer, force=args.force)
    where = keep_report(work, out) if failed else out
    stream = text_stream(args.json)
    print(build_report.summary_table(work), file=stream)
    for note in work.notes:
        print(f"note: {note}", file=stream)
    print(f"report: {where / 'report.html'}", file=stream)
    emit_json(args.json, build_report.report(work))
    if failed:
        raise GateError(f"INT8 did not pass, no bundle was written: {work.gate['reason']}")
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
