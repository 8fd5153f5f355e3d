"""TensorRT engines for the card in this machine: with the fused plugin or without, the faster."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ndp_edge.build_trt import (
    NATIVE,
    PLUGIN,
    BuiltEngine,
    Models,
    Place,
    made,
    realise,
    write,
)
from ndp_edge.console import info
from ndp_edge.engines import open_engine, trt_compat
from ndp_edge.engines.trt_builder import WEAK, BuildOptions, BuiltPlan, build_plan
from ndp_edge.errors import InputError, MachineError
from ndp_edge.files import write_atomic

TIMING_CACHE = "timing.cache"
ROUNDS = 30
"""Timed calls when native and plugin are compared, after as many to warm up."""


@dataclass(frozen=True)
class Card:
    """The card in this machine, as `Cuda.describe` tells: sm "sm87", its name, CUDA's version."""

    sm: str
    gpu: str
    cuda: str


Make = Callable[[Models, str, str, BuildOptions, Card], tuple[BuiltPlan, str | None]]
"""(models, precision, variant, options, card) -> the plan and the plugin's hash."""

Measure = Callable[[Path, str], float]
"""(plan, precision) -> milliseconds of one picture."""


def this_card() -> Card:
    """Ask the driver.

    Raises:
        MachineError: no driver, no card, or no CUDA package; the line says which.
    """
    from ndp_edge.cuda import open_cuda

    cuda = open_cuda()
    try:
        told = cuda.describe()
    finally:
        cuda.close()
    return Card(f"sm{told['sm']}", str(told["device"]), str(told["driver"]))


def build_on_card(
    place: Place,
    models: Models,
    precision: str,
    *,
    batches: Sequence[int],
    variant: str = "auto",
    cache: bytes | None = None,
    card: Card | None = None,
    make: Make | None = None,
    measure: Measure | None = None,
) -> tuple[BuiltEngine, bytes | None, list[str]]:
    """One TensorRT plan and sidecar for the card in this machine.

    Args:
        place, models, precision, batches: as for `cross_build`.
        variant: "native", "plugin", or "auto": both are built and timed, and the faster is
            kept. FP32 is the yardstick and native always.
        cache: an earlier timing cache.
        card, make, measure: for tests; None takes the card that is here, TensorRT, and a
            stop-watch on the running engine.

    Returns:
        The engine, the timing cache, and notes on what was chosen and why.

    Raises:
        InputError: the graph is refused.
        MachineError: TensorRT, its card or (for "plugin") the plugin is missing.
    """
    card, make, measure = card or this_card(), make or _make, measure or median_ms
    options = BuildOptions("tensorrt", precision, tuple(batches), cache=cache)
    asked = [NATIVE, PLUGIN] if variant == "auto" else [variant]
    asked = [NATIVE] if precision == "fp32" else asked
    candidates: list[tuple[BuiltEngine, bytes]] = []
    notes: list[str] = []
    for one in asked:
        try:
            built, plugin = make(models, precision, one, options, card)
        except MachineError as error:
            if one == asked[0]:
                raise
            notes.append(f"built without the plugin: {error}")
            continue
        options = replace(options, cache=built.cache or options.cache)
        facts = {**asdict(card), "plugin": plugin}
        candidates.append((made(built, models, precision, one, facts), built.plan))
    (engine, plan), told = _faster(candidates, measure)
    write(place, engine, plan)
    return engine, options.cache, [*notes, *told]


def _faster(
    candidates: list[tuple[BuiltEngine, bytes]], measure: Measure
) -> tuple[tuple[BuiltEngine, bytes], list[str]]:
    """The faster of the engines, each timed from a folder that looks like a bundle's."""
    if len(candidates) == 1:
        return candidates[0], []
    times = []
    for engine, plan in candidates:
        with tempfile.TemporaryDirectory(prefix="ndp-edge-trt-") as name:
            write(Path(name).joinpath, engine, plan)
            times.append(measure(Path(name) / engine.file, engine.sidecar.precision))
    best = int(np.argmin(times))
    timed = zip((engine.sidecar.variant for engine, _ in candidates), times, strict=True)
    said = ", ".join(f"{variant} {ms:.3f} ms" for variant, ms in timed)
    kept = candidates[best]
    return kept, [f"{kept[0].sidecar.precision} {kept[0].sidecar.variant} was kept: {said}"]


def on_card(
    place: Place,
    models: Models,
    precisions: Iterable[str],
    *,
    batches: Sequence[int],
    variant: str,
    cache: bytes | None = None,
) -> tuple[list[BuiltEngine], list[str]]:
    """`build_on_card` for each of `precisions`, and the notes.

    The timing cache goes from one to the next and into the bundle.

    Raises:
        InputError, MachineError: as `build_on_card`.
    """
    card = this_card()
    built, told = [], []
    for precision in precisions:
        info(f"building {precision} for {card.gpu} ({card.sm})")
        engine, cache, notes = build_on_card(
            place,
            models,
            precision,
            batches=batches,
            variant=variant,
            cache=cache,
            card=card,
        )
        built.append(engine)
        told += notes
    if cache:
        write_atomic(place(TIMING_CACHE), cache)
    return built, told


class OnCard:
    """A build's engines for this card; without `build` there are none, and ONNX files run.

    Attributes:
        built, notes: as of `on_card`; `realise` brings them up to date.
    """

    def __init__(
        self, place: Place, models: Mapping[str, Path], batches: Sequence[int], variant: str
    ) -> None:
        self.built: list[BuiltEngine] = []
        self.notes: list[str] = []
        self._place, self._models = place, models
        self._batches, self._variant = batches, variant

    def build(self) -> None:
        """Build every precision.

        Raises:
            InputError, MachineError: as `build_on_card`.
        """
        self.built, self.notes = on_card(
            self._place,
            Models.of(self._models),
            self._models,
            batches=self._batches,
            variant=self._variant,
        )

    def runnable(self) -> dict[str, Path]:
        """Precision -> what the judging backend opens."""
        return {**self._models, **{e.sidecar.precision: self._place(e.file) for e in self.built}}

    def realise(self, int8: Path, folder: Path | None) -> Path:
        """Build the engine of another int8 ONNX (`build_fallback.Realise`)."""
        cached = self._place(TIMING_CACHE)
        engine, cache, told = build_on_card(
            self._place if folder is None else folder.joinpath,
            Models(self._models["fp32"], int8),
            "int8",
            batches=self._batches,
            variant=self._variant,
            cache=cached.read_bytes() if cached.exists() else None,
        )
        if folder is not None:
            return folder / engine.file
        if cache:
            write_atomic(cached, cache)
        self.built = [engine if e.sidecar.precision == "int8" else e for e in self.built]
        self.notes += told
        return self._place(engine.file)


def median_ms(plan: Path, precision: str) -> float:
    """Median milliseconds of one picture through a plan on this machine's card."""
    with open_engine("tensorrt", plan, precision=precision) as engine:
        image = np.zeros((1, *engine.size, 3), np.uint8)
        times = []
        for _ in range(2 * ROUNDS):
            began = time.perf_counter()
            engine.infer(image)
            times.append(1e3 * (time.perf_counter() - began))
    return float(np.median(times[ROUNDS:]))


def _make(
    models: Models, precision: str, variant: str, options: BuildOptions, card: Card
) -> tuple[BuiltPlan, str | None]:
    """Build with TensorRT; where 10.3 cannot do it strongly typed, weakly typed."""
    trt = trt_compat.load("tensorrt")
    plugin = _load_plugin(trt, card) if variant == PLUGIN else None
    try:
        return build_plan(realise(models, precision, variant), options, trt=trt), plugin
    except (InputError, MachineError) as error:
        if precision == "fp32" or not trt_compat.may_be_weak(trt):
            raise
        info(f"strongly typed it cannot be built ({error}); trying weak typing")
    weak = replace(options, typing=WEAK)
    return build_plan(realise(models, precision, variant, WEAK), weak, trt=trt), plugin


def _load_plugin(trt: Any, card: Card) -> str:
    """Compile (on first use) and load the plugin; its hash."""
    from ndp_edge.native.plugin import load_plugin, plugin_hash, plugin_library

    load_plugin(trt, plugin_library(str(trt.__version__), int(card.sm.removeprefix("sm"))))
    return plugin_hash()
