"""One recipe for every version, against a TensorRT that only remembers."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from ndp_edge.engines import trt_compat
from ndp_edge.engines.trt_builder import CALIBRATED, WEAK, BuildOptions, build_plan
from ndp_edge.engines.trt_report import convolutions
from ndp_edge.errors import InputError, MachineError

Fake = Callable[..., SimpleNamespace]
VERSIONS = ("10.3.0", "10.13.3.9", "10.16.1.11", "11.4.0.106")


@pytest.mark.parametrize("version", VERSIONS)
def test_one_recipe_for_every_version(fake: Fake, version: str) -> None:
    trt = fake(version)
    options = BuildOptions("tensorrt", "int8", (1, 8), workspace_mb=512, level=4, cache=b"old")
    built = build_plan(b"graph", options, trt=trt)
    config = trt.said.config
    assert trt.said.flags == 1 << trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    assert config.flags == []  # what is typed needs no flag, and 11 has none
    assert config.profiles == [{"image": ((b, 64, 64, 3),) * 3} for b in (1, 8)]
    assert config.profiling_verbosity == "detailed"
    assert config.pools == {"WORKSPACE": 512 << 20}
    assert config.builder_optimization_level == 4
    assert (built.plan, built.cache) == (b"plan", b"old+timed")
    assert [(x.name, x.precision) for x in built.layers] == [
        ("encoder.stage1.conv1.conv + encoder.stage1.conv1", "int8"),
        ("add", "fp32"),
    ]
    assert convolutions(built.layers) == {"int8": 1}
    assert built.about["version"] == version


@pytest.mark.parametrize("earlier", [b"damaged", b"foreign"])
def test_a_timing_cache_that_does_not_fit_is_started_afresh(fake: Fake, earlier: bytes) -> None:
    built = build_plan(b"g", BuildOptions("tensorrt", "fp16", cache=earlier), trt=fake("10.3.0"))
    assert built.cache == b"+timed"


def test_fp32_is_the_yardstick_and_not_tf32(fake: Fake) -> None:
    trt = fake("11.4.0.106")
    build_plan(b"g", BuildOptions("tensorrt", "fp32"), trt=trt)
    assert trt.said.config.cleared == ["TF32"]
    build_plan(b"g", BuildOptions("tensorrt", "fp16"), trt=trt)
    assert trt.said.config.cleared == []


def test_weak_typing_sets_the_flags_where_there_are_any(fake: Fake) -> None:
    trt = fake("10.3.0")
    build_plan(b"g", BuildOptions("tensorrt", "int8", typing=WEAK), trt=trt)
    assert (trt.said.flags, trt.said.config.flags) == (0, ["FP16", "INT8"])
    build_plan(b"g", BuildOptions("tensorrt", "fp16", typing=WEAK), trt=trt)
    assert trt.said.config.flags == ["FP16"]
    with pytest.raises(MachineError, match="no FP16 flag"):
        build_plan(b"g", BuildOptions("tensorrt", "fp16", typing=WEAK), trt=fake("11.4.0.106"))


def test_the_calibrator_hands_over_our_own_scales(fake: Fake) -> None:
    trt = fake("10.3.0")
    scales = {"image01": 1 / 127, "encoder.stage1.conv1": 0.5}
    options = BuildOptions("tensorrt", "int8", typing=CALIBRATED, scales=scales)
    build_plan(b"g", options, trt=trt)
    calibrator = trt.said.config.int8_calibrator
    assert calibrator.get_batch(["image"]) is None
    lines = calibrator.read_calibration_cache().decode().splitlines()
    assert lines[0] == "TRT-100300-EntropyCalibration2"
    read = dict(line.split(": ") for line in lines[1:])
    for name, scale in scales.items():
        (found,) = struct.unpack(">f", bytes.fromhex(read[name]))
        assert math.isclose(found, scale, rel_tol=1e-6)


def test_there_is_no_calibrator_in_11(fake: Fake) -> None:
    with pytest.raises(MachineError, match="no calibrators"):
        trt_compat.use_calibrator(fake("11.4.0.106"), SimpleNamespace(), {"x": 1.0})


def test_all_that_the_parser_says_is_one_line(fake: Fake) -> None:
    with pytest.raises(InputError, match=r"node0: fault 0; .*node4: fault 4 \(and 2 more") as told:
        build_plan(b"bad", BuildOptions("tensorrt", "fp16"), trt=fake("10.3.0"))
    assert "\n" not in str(told.value)


def test_a_builder_that_gives_nothing_is_one_line(fake: Fake) -> None:
    with pytest.raises(MachineError, match=r"10\.3\.0 built no fp16 .*no tactic for node x"):
        build_plan(b"g", BuildOptions("tensorrt", "fp16"), trt=fake("10.3.0", fails="always"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (BuildOptions("tensorrt", "int4"), "precision"),
        (BuildOptions("tensorrt", "fp16", ()), "batch"),
        (BuildOptions("tensorrt", "fp16", (0,)), "batch"),
        (BuildOptions("openvino", "fp16"), "builds no plans"),
        (BuildOptions("tensorrt", "fp16", target="sm86"), "target"),
        (BuildOptions("tensorrt-rtx", "fp16"), "target"),
        (BuildOptions("tensorrt", "fp16", typing="mild"), "typing"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    fake: Fake, options: BuildOptions, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        build_plan(b"g", options, trt=fake("10.3.0"))


def test_a_card_that_rtx_does_not_know_is_refused(fake: Fake) -> None:
    with pytest.raises(InputError, match="sm75, sm80"):
        trt_compat.set_target(fake("11.4.0.106"), SimpleNamespace(), "sm87")


@pytest.mark.parametrize(
    ("jetson", "backend", "words"),
    [
        (False, "tensorrt", "pip install 'ndp-edge[tensorrt]'"),
        (True, "tensorrt", "apt-get install python3-libnvinfer"),
        (False, "tensorrt-rtx", "pip install 'ndp-edge[rtx]'"),
        (True, "tensorrt-rtx", "not made for Jetson"),
    ],
)
def test_the_install_command_is_this_platforms(
    monkeypatch: pytest.MonkeyPatch, jetson: bool, backend: str, words: str
) -> None:
    monkeypatch.setattr(trt_compat, "_TEGRA", SimpleNamespace(is_file=lambda: jetson))
    assert words in trt_compat.install(backend)


def test_a_missing_library_names_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MachineError, match="pip install 'ndp-edge"):
        trt_compat.load("tensorrt")


def test_a_library_that_does_not_load_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Any:
        raise OSError("libnvinfer.so.10: cannot\nopen")

    monkeypatch.setattr(trt_compat, "module_name", lambda backend: "tensorrt")
    monkeypatch.setattr("importlib.import_module", broken)
    with pytest.raises(MachineError, match=r"does not load \(libnvinfer.so.10: cannot open"):
        trt_compat.load("tensorrt")
