"""The build's command line: what may be asked for, and what is refused before any work."""

from __future__ import annotations

import argparse
from pathlib import Path

from ndp_edge.build_batches import parse_batches
from ndp_edge.bundle import refuse_existing
from ndp_edge.console import add_json_option
from ndp_edge.engines import PLANNED, choose
from ndp_edge.engines.tensorrt_rtx import parse_targets
from ndp_edge.errors import InputError

TRT, RTX = PLANNED
ENGINES = ("auto", "openvino", "onnxruntime", *PLANNED)
METHODS = ("minmax", "percentile", "entropy", "mse", "auto")
VARIANTS = ("auto", "native", "plugin")


def parser() -> argparse.ArgumentParser:
    """The command line of DESIGN section 8."""
    about = "Photographs and a net to a proven bundle; see README.md."
    p = argparse.ArgumentParser(prog="python -m ndp_edge.build", description=about)
    _inputs(p)
    _precision(p)
    _judging(p)
    _engine(p)
    _output(p)
    add_json_option(p)
    p.set_defaults(precision="auto")
    return p


def _inputs(p: argparse.ArgumentParser) -> None:
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


def _precision(p: argparse.ArgumentParser) -> None:
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


def _judging(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--calib-method",
        default="minmax",
        choices=METHODS,
        help="auto tries all and keeps the best on the tune split (default: minmax)",
    )
    p.add_argument(
        "--calib-images",
        type=int,
        metavar="N",
        help="of the calibration split, the most different first; default: all, 64 at most",
    )
    p.add_argument(
        "--sensitivity",
        action="store_true",
        help="measure what INT8 costs layer by layer (a minute); always done when the gate fails",
    )
    p.add_argument("--max-drop", type=float, default=0.005, help="of any metric, INT8 against FP32")
    p.add_argument(
        "--target-false-reject",
        type=float,
        metavar="RATE",
        help="default: 0.01, or the smallest that the good images carry",
    )
    p.add_argument("--seed", type=int, help="of the split and calibration; default: the net's own")


def _engine(p: argparse.ArgumentParser) -> None:
    p.add_argument("--engine", default="auto", choices=ENGINES)
    p.add_argument(
        "--batch",
        default="1",
        metavar="1,8",
        help="batch sizes to prove and time; batch 1 always is",
    )
    p.add_argument("--target", metavar="sm86,sm89", help="cards to build for (tensorrt-rtx only)")
    p.add_argument(
        "--variant",
        default="auto",
        choices=VARIANTS,
        help="of a TensorRT engine: standard operators or the fused plugin; auto times both",
    )


def _output(p: argparse.ArgumentParser) -> None:
    p.add_argument("--out", type=Path, default=Path("bundle"), metavar="DIR")
    p.add_argument("--force", action="store_true", help="replace an earlier bundle at --out")
    p.add_argument(
        "--rebuild",
        type=Path,
        metavar="BUNDLE",
        help="build a bundle's TensorRT engines again from its ONNX, and nothing else",
    )


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
    if args.sensitivity and args.precision in ("fp32", "fp16"):
        raise InputError("--sensitivity turns INT8's layers off: take --int8 or --auto with it")
    parse_batches(args.batch)
    refuse_existing(args.out.resolve(), force=args.force)
    backend, why = choose(args.engine)
    if backend == RTX:
        if args.target is None:
            raise InputError(
                "tensorrt-rtx builds for cards that are elsewhere: --target sm86,sm120"
            )
        parse_targets(args.target)
    elif args.target is not None:
        raise InputError(f"--target: {backend} builds for this machine; only tensorrt-rtx has it")
    if args.variant != "auto" and backend != TRT:
        raise InputError(f"--variant: {backend} builds native engines only; tensorrt has both")
    if args.precision == "fp16" and backend not in PLANNED:
        raise InputError(
            f"--fp16: {backend} on a CPU computes FP16 nets in FP32, so that nothing is gained; "
            "take --int8 or --fp32"
        )
    return backend, why
