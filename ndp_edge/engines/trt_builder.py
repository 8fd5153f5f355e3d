"""From a typed ONNX to a plan: one recipe over TensorRT 10.3 to 11.x and TensorRT-RTX.

Strongly typed throughout: the ONNX says the type of every tensor (`export.precision`), INT8 is
explicit Q/DQ in it, and the builder chooses kernels and nothing else. What TensorRT-RTX builds
without a card goes through the very code that a Jetson runs; names that differ between the
versions are looked up in `trt_compat` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ndp_edge.engines import trt_compat as compat
from ndp_edge.engines.trt_report import layers_of_json, layers_of_log
from ndp_edge.errors import InputError, MachineError
from ndp_edge.types import Layer

STRONG, WEAK, CALIBRATED = "strong", "weak", "calibrated"
"""How types come about: from the graph; by the builder's choice (TensorRT 10.3's fall-back);
or by its choice with ranges of ours for a graph without Q/DQ (10.x)."""

MOST_ERRORS = 5


@dataclass(frozen=True)
class BuildOptions:
    """How to build.

    Attributes:
        backend: "tensorrt" or "tensorrt-rtx".
        precision: "fp32", "fp16" or "int8": what the graph holds.
        batches: one optimisation profile each, in this order, for exactly that many images:
            kernels are then chosen for the size that is run, and nothing is padded.
        target: "sm86" for TensorRT-RTX; None builds for the card in this machine.
        typing: STRONG; WEAK and CALIBRATED exist in 10.x only.
        workspace_mb: scratch memory that a kernel may use; None leaves the library's own limit.
        level: builder optimisation level, 0 to 5; None is the library's default.
        cache: an earlier build's timing cache, or None.
        scales: tensor -> int8 scale, for CALIBRATED.
    """

    backend: str
    precision: str
    batches: tuple[int, ...] = (1,)
    target: str | None = None
    typing: str = STRONG
    workspace_mb: int | None = None
    level: int | None = None
    cache: bytes | None = None
    scales: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class BuiltPlan:
    """What a build gives.

    Attributes:
        plan: the serialised engine.
        layers: its layers and their precisions; ms is 0 (see `trt_report`).
        cache: the timing cache to start the next build from; None for TensorRT-RTX.
        about: version (of the library), backend, target, batches, typing.
    """

    plan: bytes
    layers: list[Layer]
    cache: bytes | None
    about: dict[str, Any]


def build_plan(onnx_bytes: bytes, options: BuildOptions, *, trt: Any = None) -> BuiltPlan:
    """Parse, configure, build, and read the layers back.

    Args:
        onnx_bytes: a typed graph: of `export.precision.to_fp16`, inlined or with plugin nodes
            whose plugin is already in the registry. WEAK takes a float32 graph.
        options: see there.
        trt: the library's module, for tests; None imports the backend's own.

    Raises:
        InputError: options that make no sense; a graph that the parser refuses (one line).
        MachineError: the library is missing, or cannot build this here (one line).
    """
    _check(options)
    trt = compat.load(options.backend) if trt is None else trt
    logger = compat.make_logger(trt)
    builder = trt.Builder(logger)
    flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags if options.typing == STRONG else 0)
    _parse(trt, network, logger, onnx_bytes)
    config = _configure(trt, builder, network, options)
    cache = _timing_cache(trt, config, options.cache)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise MachineError(_failed(options, trt, logger.errors))
    data = bytes(plan)
    layers = layers_of_log(logger.verbose) or _inspect(trt, logger, data)
    about = {
        "backend": options.backend,
        "version": str(trt.__version__),
        "target": options.target,
        "batches": list(options.batches),
        "typing": options.typing,
    }
    return BuiltPlan(data, layers, None if cache is None else bytes(cache.serialize()), about)


def _check(options: BuildOptions) -> None:
    if options.precision not in ("fp32", "fp16", "int8"):
        raise InputError(f"precision {options.precision!r}: there are fp32, fp16 and int8")
    if not options.batches or min(options.batches) < 1:
        raise InputError(f"batch sizes {options.batches}: at least one, each at least 1")
    if options.backend not in compat.MODULES:
        raise InputError(f"{options.backend!r} builds no plans; tensorrt and tensorrt-rtx do")
    if (options.target is None) != (options.backend == "tensorrt"):
        raise InputError("a target card goes with tensorrt-rtx, and with it alone")
    if options.typing not in (STRONG, WEAK, CALIBRATED):
        raise InputError(f"typing {options.typing!r}: there are strong, weak and calibrated")


def _parse(trt: Any, network: Any, logger: Any, onnx_bytes: bytes) -> None:
    parser = trt.OnnxParser(network, logger)
    if parser.parse(onnx_bytes):
        return
    found = [parser.get_error(i) for i in range(parser.num_errors)]
    told = [f"{error.node_name() or 'graph'}: {' '.join(error.desc().split())}" for error in found]
    more = f" (and {len(told) - MOST_ERRORS} more)" if len(told) > MOST_ERRORS else ""
    raise InputError(f"TensorRT's parser refuses the graph: {'; '.join(told[:MOST_ERRORS])}{more}")


def _configure(trt: Any, builder: Any, network: Any, options: BuildOptions) -> Any:
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if options.precision == "fp32":
        config.clear_flag(trt.BuilderFlag.TF32)  # on by default; FP32 is the yardstick
    if options.workspace_mb is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    if options.level is not None:
        config.builder_optimization_level = options.level
    if options.target is not None:
        compat.set_target(trt, config, options.target)
    if options.typing != STRONG:
        compat.allow_low_precision(trt, config, options.precision)
    if options.typing == CALIBRATED:
        compat.use_calibrator(trt, config, options.scales)
    image = network.get_input(0)
    rest = tuple(image.shape)[1:]
    for batch in options.batches:
        profile = builder.create_optimization_profile()
        shape = (batch, *rest)
        profile.set_shape(image.name, shape, shape, shape)
        config.add_optimization_profile(profile)
    return config


def _timing_cache(trt: Any, config: Any, earlier: bytes | None) -> Any:
    """The cache that this build reads and adds to; None where there are none.

    One from another card or version is refused by the library: the build then starts afresh.
    """
    if not compat.keeps_timing_cache(trt):
        return None
    cache = config.create_timing_cache(earlier or b"")
    if cache is None or not config.set_timing_cache(cache, False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def _inspect(trt: Any, logger: Any, plan: bytes) -> list[Layer]:
    """The layers of a plan that can be opened here; none where only its target could."""
    if not compat.can_inspect(trt):
        return []
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise MachineError(
            f"TensorRT {trt.__version__} cannot open what it built: {_last(logger.errors)}; "
            "see python -m ndp_edge.doctor"
        )
    inspector = engine.create_engine_inspector()
    return layers_of_json(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def _failed(options: BuildOptions, trt: Any, errors: list[str]) -> str:
    where = options.target or "this machine"
    return (
        f"{options.backend} {trt.__version__} built no {options.precision} engine for {where}: "
        f"{_last(errors)}; see python -m ndp_edge.doctor"
    )


def _last(errors: list[str]) -> str:
    return " ".join(errors[-1].split())[:300] if errors else "it gave no reason"
