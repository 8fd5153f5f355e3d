"""TensorRT-RTX: every preset through its parser and compiler, with no card; and its crashes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ndp_edge.build_trt import Models, cross_build, realise
from ndp_edge.engines.sidecar import read_sidecar
from ndp_edge.engines.tensorrt_rtx import build_apart, parse_targets
from ndp_edge.engines.trt_builder import BuildOptions
from ndp_edge.engines.trt_compat import TARGETS
from ndp_edge.engines.trt_report import convolutions
from ndp_edge.errors import InputError, MachineError
from ndp_edge.files import file_hash
from ndp_edge.model.config import NdpConfig, preset

Files = tuple[Path, Path]
PICTURES = 1
"""Convolutions that read the camera's image: float in an int8 net, FP16 on a card."""
FP16 = BuildOptions("tensorrt-rtx", "fp16", (1,), "sm86")


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_plan_per_card_with_its_sidecar(files: Files, tmp_path: Path, precision: str) -> None:
    targets = ("sm86", "sm120") if precision == "int8" else ("sm86",)
    models = Models(*files)
    built = cross_build(tmp_path.joinpath, models, precision, targets=targets, batches=(1, 4))
    assert [e.file for e in built] == [
        f"engines/tensorrt-rtx-{precision}-{sm}.plan" for sm in targets
    ]
    source = files[1] if precision == "int8" else files[0]
    for engine, sm in zip(built, targets, strict=True):
        counted = convolutions(engine.layers)
        assert set(counted) == {precision, *(["fp16"] if precision == "int8" else [])}
        assert counted[precision] > 40
        assert precision != "int8" or counted["fp16"] == PICTURES
        sidecar = read_sidecar(tmp_path / engine.file)
        assert sidecar == engine.sidecar
        assert (sidecar.sm, sidecar.batches, sidecar.gpu) == (sm, (1, 4), None)
        assert (sidecar.onnx, sidecar.source) == (file_hash(source), source.name)
        assert len(sidecar.layers) == len(engine.layers)
        assert (tmp_path / engine.file).stat().st_size > 100_000


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("name", ["paper", "edge", "nano"])
def test_every_preset_compiles(
    name: str, net_files: Callable[[NdpConfig, Path], Files], tmp_path: Path
) -> None:
    """At 64 pixels: the same layers and channels, a fraction of the reference patches."""
    config = preset(name, image_size=64)
    models = Models(*net_files(config, tmp_path))
    for precision in ("fp16", "int8"):
        (engine,) = cross_build(
            tmp_path.joinpath, models, precision, targets=("sm89",), batches=(1,)
        )
        others = {k: n for k, n in convolutions(engine.layers).items() if k != precision}
        assert others == ({"fp16": PICTURES} if precision == "int8" else {})


@pytest.mark.slow
@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("name", ["paper", "edge", "nano"])
@pytest.mark.parametrize("sm", TARGETS)
def test_every_preset_compiles_at_full_size_for_every_card(
    name: str, sm: str, net_files: Callable[[NdpConfig, Path], Files], tmp_path: Path
) -> None:
    models = Models(*net_files(preset(name), tmp_path))
    for precision in ("fp16", "int8"):
        (engine,) = cross_build(tmp_path.joinpath, models, precision, targets=(sm,), batches=(1,))
        # Turing has no int8 convolutions in TensorRT-RTX 1.7: they run in FP16, and are said to.
        wanted = "fp16" if sm == "sm75" else precision
        others = {k: n for k, n in convolutions(engine.layers).items() if k != wanted}
        assert others == ({"fp16": PICTURES} if wanted == "int8" else {})


@pytest.mark.usefixtures("rtx")
def test_a_graph_that_the_parser_refuses_is_one_line(files: Files) -> None:
    plugin = realise(Models(*files), "fp16", "plugin")  # no such plugin is registered
    with pytest.raises(
        InputError, match=r"refuses the graph: rbam3\.r2: .*Plugin not found"
    ) as told:
        build_apart(plugin, FP16)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("import os; os.abort()", "was ended by SIGABRT"),
        ("import sys; sys.exit('half way\\nno memory')", "exit code 1: no memory"),
        ("import sys; sys.exit(0)", "exit code 0: it said nothing"),
        ("import time; time.sleep(60)", "did not end within 1 s"),
    ],
)
def test_a_crash_of_the_library_is_one_line(body: str, words: str) -> None:
    with pytest.raises(MachineError, match=words) as told:
        build_apart(b"", FP16, seconds=1, program=(sys.executable, "-c", body))
    assert "\n" not in str(told.value)
    assert "pip install" in str(told.value)


def test_targets_are_read_once_each_and_in_order() -> None:
    assert parse_targets("sm120, SM86,sm120") == ("sm120", "sm86")
    for text in ("sm87", "sm90", "", "sm86,"):
        with pytest.raises(InputError, match="--target"):
            parse_targets(text)
