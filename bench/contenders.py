"""What a run times: every engine that this machine has, for one net.

Names are "backend-precision". The files come from a bundle, or from a preset: the shipped net
for `nano`, else a fresh one (which needs torch; weights do not matter for speed), calibrated
on noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_edge.bench.rounds import Frames
from ndp_edge.bench.torch_side import Infer, torch_infer
from ndp_edge.build_inputs import SHIPPED
from ndp_edge.build_report import FILES
from ndp_edge.bundle import Bundle
from ndp_edge.engines import PLANNED, RUNNABLE, available, card_sm, install, open_engine
from ndp_edge.errors import InputError, MachineError, NdpError
from ndp_edge.golden import read_golden
from ndp_edge.model.config import NdpConfig

TORCH, COMPILED = "torch-fp32", "torch-compile-fp32"

FRAMES = 8
"""Different frames in a run without a bundle."""


@dataclass(frozen=True)
class Net:
    """The net that is timed.

    Attributes:
        config: its shape.
        models: precision -> ONNX file, for backends of a CPU.
        plans: backend-precision -> plan, for cards.
        frames: what to time it on.
        about: preset, image size, where the files come from; for the report.
    """

    config: NdpConfig
    models: dict[str, Path]
    plans: dict[str, Path]
    frames: Frames
    about: dict[str, Any]


def net_of_bundle(bundle: Bundle) -> Net:
    """A bundle's files; its golden images are the frames."""
    files = bundle.manifest["files"]
    # fp16 files are made for cards; on a CPU they prove nothing.
    models = {p: bundle.file(FILES[p]) for p in ("fp32", "int8") if FILES[p] in files}
    plans = {
        f"{backend}-{precision}": bundle.engine_path(backend, precision, card_sm())
        for backend in PLANNED
        for precision in bundle.precisions(backend)
    }
    images = read_golden(bundle.file(bundle.manifest["golden"]["file"])).images
    size = bundle.config.image_size
    about = {
        "preset": bundle.config.preset,
        "image_size": size,
        "source": "bundle",
        "bundle": bundle.hash,
    }
    frames = Frames(images, size, bundle.threshold)
    return Net(bundle.config, models, plans, frames, about)


def net_of_preset(name: str, folder: Path) -> Net:
    """A preset's FP32 and int8 files in `folder`, on noise.

    Raises:
        MachineError: the preset needs fresh weights, and there is no torch.
    """
    from ndp_edge.bench.int8_speed import fresh_onnx
    from ndp_edge.calib.calibrate import calibrate
    from ndp_edge.export.exporter import read_config

    shipped = name == "nano"
    fp32 = SHIPPED if shipped else fresh_onnx(name, folder / f"{name}.onnx")
    int8 = folder / f"{name}.int8.onnx"
    config, _ = read_config(fp32)
    images = noise(FRAMES, config.image_size)
    calibrate(fp32, images, int8)
    about = {
        "preset": name,
        "image_size": config.image_size,
        "source": "the shipped net" if shipped else "fresh weights",
        "bundle": None,
    }
    frames = Frames(images, config.image_size, 0.5)
    return Net(config, {"fp32": fp32, "int8": int8}, {}, frames, about)


def noise(count: int, size: int) -> NDArray[np.uint8]:
    """Coarse random blocks, uint8 [count, size, size, 3]; the same every time."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, size // 8, size // 8, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def names(net: Net) -> list[str]:
    """Every name that `open_infer` knows for this net, whether it runs here or not."""
    on_cpu = [f"{backend}-{precision}" for backend in RUNNABLE for precision in net.models]
    return [TORCH, COMPILED, *reversed(on_cpu), *net.plans]


def usual(net: Net, *, compiled: bool) -> tuple[list[str], list[str]]:
    """The names that run here without being asked for, and notes on those that do not."""
    here = available()
    chosen, notes = [], []
    for name in names(net):
        backend = name.rpartition("-")[0]
        if name == COMPILED and not compiled:
            notes.append(f"{COMPILED}: not timed (--compile; minutes of compiling)")
        elif backend in here and here[backend] is None:
            notes.append(f"{name}: not timed, {backend} is not installed ({install(backend)})")
        else:
            chosen.append(name)
    notes += [
        f"{backend}: not timed, the net has no plan for it (python -m ndp_edge.build --engine "
        f"{backend} makes one)"
        for backend in PLANNED
        if not any(plan.startswith(f"{backend}-") for plan in net.plans)
    ]
    return chosen, notes


def check_names(net: Net, asked: Sequence[str]) -> None:
    """See that each name asked for is one.

    Raises:
        InputError: one is not; the line has those that are.
    """
    known = names(net)
    for name in asked:
        if name not in known:
            raise InputError(f"--engines: no {name!r} for this net; there are {', '.join(known)}")


def open_infer(
    name: str, net: Net, stack: ExitStack, *, threads: int | None
) -> tuple[Infer, dict[str, Any]]:
    """One engine, ready, and what distinguishes its figures.

    Args:
        name: one of `names`.
        stack: closes the engine.
        threads: of a CPU; None leaves it to the backend.

    Raises:
        MachineError: its package, its card or torch is missing.
    """
    backend, _, precision = name.rpartition("-")
    if name in (TORCH, COMPILED):
        return torch_infer(net.config, compiled=name == COMPILED, threads=threads)
    model = net.plans.get(name) or net.models[precision]
    engine = stack.enter_context(open_engine(backend, model, precision=precision, threads=threads))
    told = engine.describe()
    about = {key: told[key] for key in ("backend", "precision", "device", "threads", "versions")}
    return engine.infer, about


def open_all(
    chosen: Sequence[str], asked: bool, net: Net, stack: ExitStack, threads: int | None
) -> tuple[dict[str, tuple[Infer, dict[str, Any]]], list[str]]:
    """Every engine by name, and notes on those that would not open.

    Raises:
        NdpError: one that was asked for by name would not open.
    """
    opened, notes = {}, []
    for name in chosen:
        try:
            opened[name] = open_infer(name, net, stack, threads=threads)
        except MachineError as error:
            if asked:
                raise
            notes.append(f"{name}: not timed, {_line(error)}")
    return opened, notes


def _line(error: NdpError) -> str:
    return " ".join(str(error).split())
