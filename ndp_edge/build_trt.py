"""Engines for NVIDIA cards, from a bundle's ONNX files: which graph they get, and who builds it.

TensorRT-RTX builds here, for cards that are elsewhere. TensorRT builds for the card in this
machine: `build_card`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

from ndp_edge.calib.graph import float_convolutions
from ndp_edge.calib.legality import require_legal
from ndp_edge.calib.whole import quantize_whole
from ndp_edge.console import info
from ndp_edge.engines import choose_on_cpu
from ndp_edge.engines.sidecar import Sidecar, plan_name, sidecar_of, write_sidecar
from ndp_edge.engines.tensorrt_rtx import build_apart
from ndp_edge.engines.trt_builder import STRONG, BuildOptions, BuiltPlan
from ndp_edge.engines.trt_report import convolutions, say_convolutions
from ndp_edge.errors import InputError
from ndp_edge.export.plugin_pass import for_native, for_plugin
from ndp_edge.export.precision import to_fp16
from ndp_edge.files import file_hash, write_atomic
from ndp_edge.types import Layer

NATIVE, PLUGIN = "native", "plugin"
Place = Callable[[str], Path]
"""A name in the bundle -> where to write that file."""


@dataclass(frozen=True)
class Models:
    """A bundle's ONNX files: model.onnx as exported, and model.int8.onnx where there is one."""

    fp32: Path
    int8: Path | None = None

    @classmethod
    def of(cls, models: Mapping[str, Path]) -> Models:
        """From a mapping of precision to file."""
        return cls(models["fp32"], models.get("int8"))


@dataclass(frozen=True)
class BuiltEngine:
    """One engine: its name in the bundle, its sidecar, its layers."""

    file: str
    sidecar: Sidecar
    layers: list[Layer] = field(default_factory=list)


def judge_backend(backend: str, precision: str) -> str:
    """The backend whose answers are judged, for one that builds and may not be able to run.

    For FP16 that is ONNX Runtime: it rounds to FP16 where the file says so, OpenVINO computes
    in FP32 throughout.
    """
    if backend != "tensorrt-rtx":
        return backend
    return "onnxruntime" if precision == "fp16" else choose_on_cpu()


def write_fp16(fp32: Path, out: Path) -> None:
    """model.fp16.onnx: the typed graph, inlined, that FP16 engines are built from and judged by."""
    model = to_fp16(for_native(onnx.load(fp32)))
    write_atomic(out, model.SerializeToString(deterministic=True))


def realise(models: Models, precision: str, variant: str, typing: str = STRONG) -> bytes:
    """The graph that a builder gets, serialised.

    Args:
        models: the bundle's files.
        precision: "fp32", "fp16" or "int8".
        variant: "native", standard operators; or "plugin", RBFRM and FFMSelect as nodes.
        typing: "strong": FP16 where `export.precision` says so; "weak": float32 tensors.

    Raises:
        InputError: no int8 file for "int8", a graph that is not ours, or an illegal one.
    """
    exported = onnx.load(models.fp32)
    if precision == "int8":
        if models.int8 is None:
            raise InputError("this bundle has no model.int8.onnx; build it with --int8")
        graph = onnx.load(models.int8)
        graph = quantize_whole(exported, graph) if variant == PLUGIN else graph
    else:
        graph = exported if variant == PLUGIN else for_native(exported)
    if precision != "fp32" and typing == STRONG:
        graph = to_fp16(graph)
    require_legal(graph)
    graph = for_plugin(graph) if variant == PLUGIN else graph
    data: bytes = graph.SerializeToString(deterministic=True)
    return data


def cross_build(
    place: Place,
    models: Models,
    precision: str,
    *,
    targets: Sequence[str],
    batches: Sequence[int],
    build: Callable[[bytes, BuildOptions], BuiltPlan] = build_apart,
) -> list[BuiltEngine]:
    """One TensorRT-RTX plan and sidecar per card, built here.

    Raises:
        InputError: the graph is refused.
        MachineError: the library is missing, crashes, or builds nothing.
    """
    graph = realise(models, precision, NATIVE)
    engines = []
    for target in targets:
        began = time.monotonic()
        options = BuildOptions("tensorrt-rtx", precision, tuple(batches), target)
        built = build(graph, options)
        engine = made(built, models, precision, NATIVE, {"sm": target})
        write(place, engine, built.plan)
        engines.append(engine)
        told = say_convolutions(built.layers)
        info(f"tensorrt-rtx {precision} for {target}: {told} ({time.monotonic() - began:.1f} s)")
    return engines


def remove(place: Place, engine: BuiltEngine) -> None:
    """Take an engine and its sidecar out of the bundle being written."""
    path = place(engine.file)
    path.unlink(missing_ok=True)
    sidecar_of(path).unlink(missing_ok=True)


def made(
    built: BuiltPlan, models: Models, precision: str, variant: str, facts: Mapping[str, Any]
) -> BuiltEngine:
    """A built plan with its sidecar; `facts` has the card's sm, and gpu, cuda, plugin if known."""
    source = models.int8 if precision == "int8" and models.int8 is not None else models.fp32
    sidecar = Sidecar(
        backend=built.about["backend"],
        version=built.about["version"],
        precision=precision,
        variant=variant,
        batches=tuple(built.about["batches"]),
        sm=facts["sm"],
        gpu=facts.get("gpu"),
        cuda=facts.get("cuda"),
        onnx=file_hash(source),
        source=source.name,
        plugin=facts.get("plugin"),
        typing=built.about["typing"],
        layers=[{"name": x.name, "type": x.type, "precision": x.precision} for x in built.layers],
    )
    file = plan_name(sidecar.backend, precision, sidecar.sm)
    return BuiltEngine(file, sidecar, built.layers)


def write(place: Place, engine: BuiltEngine, plan: bytes) -> None:
    """Plan and sidecar to their places."""
    path = place(engine.file)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, plan)
    write_sidecar(path, engine.sidecar)


def entry(engine: BuiltEngine, judged_on: str | None) -> dict[str, Any]:
    """The manifest's line on an engine.

    Args:
        engine: it.
        judged_on: the backend that accuracy, threshold and golden maps come from; None where
            that was this engine itself.
    """
    told = engine.sidecar
    line: dict[str, Any] = {
        "backend": told.backend,
        "precision": told.precision,
        "file": engine.file,
        "batch": list(told.batches),
        "sm": told.sm,
        "variant": told.variant,
        "versions": {told.backend: told.version},
        "convolutions": convolutions(engine.layers),
    }
    if judged_on is not None:
        line |= {"judged_on": judged_on, "golden": f"{judged_on}-{told.precision}"}
    return line


def notes(
    built: Sequence[BuiltEngine], judged_on: str | None, int8: Path | None = None
) -> list[str]:
    """What a reader must know about engines that were built and not run, or not in int8.

    Args:
        int8: the int8 ONNX behind int8 engines; the convolutions that it leaves in float itself
            are no news. None: there are no such.
    """
    if not built:
        return []
    told = []
    first = built[0].sidecar
    wanted = float_convolutions(onnx.load(int8)) if int8 and first.precision == "int8" else 0
    if judged_on is not None:
        cards = ", ".join(str(e.sidecar.sm) for e in built)
        told.append(
            f"accuracy, threshold and golden maps were judged on {judged_on}, from the same "
            f"{first.precision} graph; the {first.backend} engines ({cards}) were not run here"
        )
    for engine in built:
        counted = Counter(convolutions(engine.layers))
        others = counted.total() - counted[first.precision]
        if first.precision != "fp32" and others > wanted:
            told.append(
                f"{engine.sidecar.backend} for {engine.sidecar.sm}: asked for {first.precision}, "
                f"{say_convolutions(engine.layers)}"
            )
    return told
