"""`build --rebuild BUNDLE`: a bundle's TensorRT engines again, from the ONNX in it.

After an upgrade of TensorRT, on another card, or with another plugin. Nothing is calibrated or
judged again: the graphs are the bundle's own. What can run here must still answer as the golden
maps say, or the bundle stays as it was.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ndp_edge import build_card, build_trt
from ndp_edge.build_options import RTX, TRT
from ndp_edge.bundle import Bundle, BundleWriter
from ndp_edge.console import emit_json, info, text_stream
from ndp_edge.engines import PLANNED, choose, open_engine
from ndp_edge.engines.sidecar import sidecar_of
from ndp_edge.engines.tensorrt_rtx import parse_targets
from ndp_edge.errors import GateError, InputError
from ndp_edge.golden import engine_key, read_golden, replay

Entry = dict[str, Any]


def rebuild(args: argparse.Namespace) -> int:
    """Do as asked and tell.

    Raises:
        InputError: the bundle has no engine for a card, and no --engine or --target asks for one.
        MachineError: the library or the card is missing.
        GateError: a new engine answers otherwise than the golden maps; the bundle is as before.
    """
    bundle = Bundle.open(args.rebuild)
    with BundleWriter(bundle.root) as writer:
        for name in bundle.manifest["files"]:
            shutil.copyfile(bundle.file(name), writer.path(name))
        entries = renew(bundle, writer, args)
        kept = {k: v for k, v in bundle.manifest.items() if k not in ("schema", "files", "digest")}
        writer.commit({**kept, "engines": entries}, force=True)
    told = [e for e in entries if e["backend"] in PLANNED]
    for entry in told:
        info(f"{entry['file']}: convolutions {entry['convolutions']}")
    emit_json(args.json, {"engines": told})
    print(f"bundle: {bundle.root}, {len(told)} engines", file=text_stream(args.json))
    return 0


def renew(bundle: Bundle, writer: BundleWriter, args: argparse.Namespace) -> list[Entry]:
    """The manifest's engines with those of one backend built again (files in the writer)."""
    old: list[Entry] = bundle.manifest["engines"]
    backend = _backend(bundle, args)
    choose(backend)  # refuses here, with the command, what is not installed
    ours = [e for e in old if e["backend"] == backend]
    precisions = list(dict.fromkeys(e["precision"] for e in ours)) or [bundle.default[1]]
    batches = ours[0]["batch"] if ours else [1]
    models = build_trt.Models(bundle.file("model.onnx"), _int8(bundle))
    if backend == RTX:
        targets = parse_targets(args.target) if args.target else [e["sm"] for e in ours]
        built = _cross(writer, models, precisions, targets, batches)
    else:
        built = _here(bundle, writer, models, precisions, batches, args.variant)
    made = [(engine, _entry(engine, bundle, ours)) for engine in built]
    new = {entry["file"] for _, entry in made}
    gone = [e for e in ours if backend == TRT or e["file"] in new]
    for entry in gone:
        if entry["file"] not in new:
            _remove(writer, entry["file"])
    return [e for e in old if e not in gone] + [entry for _, entry in made]


def _backend(bundle: Bundle, args: argparse.Namespace) -> str:
    if args.engine in PLANNED:
        return str(args.engine)
    if args.target:
        return RTX
    found = [b for b in bundle.backends if b in PLANNED]
    if not found:
        raise InputError(
            f"{bundle.root} has no engine for an NVIDIA card; --engine tensorrt builds one for "
            "the card here, --target sm86 one for a card elsewhere"
        )
    return found[0]


def _int8(bundle: Bundle) -> Path | None:
    name = "model.int8.onnx"
    return bundle.file(name) if name in bundle.manifest["files"] else None


def _cross(
    writer: BundleWriter,
    models: build_trt.Models,
    precisions: Sequence[str],
    targets: Sequence[str],
    batches: Sequence[int],
) -> list[build_trt.BuiltEngine]:
    return [
        engine
        for precision in precisions
        for engine in build_trt.cross_build(
            writer.path, models, precision, targets=targets, batches=batches
        )
    ]


def _here(
    bundle: Bundle,
    writer: BundleWriter,
    models: build_trt.Models,
    precisions: Sequence[str],
    batches: Sequence[int],
    variant: str,
) -> list[build_trt.BuiltEngine]:
    """For the card in this machine, each replayed against the golden maps."""
    named = bundle.manifest["files"]
    name = build_card.TIMING_CACHE
    cache = bundle.file(name).read_bytes() if name in named else None
    built, _ = build_card.on_card(
        writer.path, models, precisions, batches=batches, variant=variant, cache=cache
    )
    kept = read_golden(bundle.file(bundle.manifest["golden"]["file"]))
    for engine in built:
        key = _golden_key(bundle, engine.sidecar.backend, engine.sidecar.precision)
        allowed = bundle.manifest["golden"]["tolerances"][key]
        plan = writer.path(engine.file)
        precision = engine.sidecar.precision
        with open_engine(engine.sidecar.backend, plan, precision=precision) as running:
            found = replay(running, kept, key, allowed, bundle.threshold)
        if not found.passed:
            raise GateError(
                f"the new {engine.file} answers otherwise than the golden maps: max "
                f"{found.max_abs:.1e} (allowed {allowed['max_abs']:.1e}); the bundle is as before"
            )
    return built


def _golden_key(bundle: Bundle, backend: str, precision: str) -> str:
    """Under which the golden file has maps for an engine: its own, or those of another backend.

    Raises:
        InputError: for no engine of that precision.
    """
    keys: dict[str, Any] = bundle.manifest["golden"]["tolerances"]
    own = engine_key(backend, precision)
    fitting = [k for k in (own, *keys) if k in keys and k.endswith(f"-{precision}")]
    if not fitting:
        raise InputError(f"{bundle.root} was never judged in {precision}; build it anew")
    return fitting[0]


def _entry(engine: build_trt.BuiltEngine, bundle: Bundle, ours: list[Entry]) -> Entry:
    """The manifest's line; who judged this precision stays what it was."""
    key = _golden_key(bundle, engine.sidecar.backend, engine.sidecar.precision)
    judge = key.removesuffix(f"-{engine.sidecar.precision}")
    before = next((e for e in ours if e["precision"] == engine.sidecar.precision), {})
    line = build_trt.entry(engine, None if judge == engine.sidecar.backend else judge)
    facts = {k: before[k] for k in ("device",) if k in before and before.get("sm") == line["sm"]}
    return {**facts, **line}


def _remove(writer: BundleWriter, file: str) -> None:
    path = writer.path(file)
    path.unlink(missing_ok=True)
    sidecar_of(path).unlink(missing_ok=True)
