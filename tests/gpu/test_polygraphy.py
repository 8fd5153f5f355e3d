"""TensorRT against ONNX Runtime with polygraphy, tensor by tensor at the output.

The comparison itself is exercised on every machine, on ONNX Runtime against ONNX Runtime; with
a card and TensorRT it compares the engine that the builder makes of the same graph.
"""

from __future__ import annotations

import importlib.util
from importlib import resources
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from ndp_edge.data.surface import draw
from ndp_edge.engines.trt_builder import BuildOptions, build_plan
from ndp_edge.export.plugin_pass import for_native
from ndp_edge.export.precision import to_fp16

MOST = 0.02
"""Largest difference of an anomaly map in [0, 1]; FP16 in ONNX Runtime stays below 0.003."""

MEAN = 0.002


def _shipped() -> onnx.ModelProto:
    return onnx.load_from_string(
        resources.files("ndp_edge.data").joinpath("nano_woven.onnx").read_bytes()
    )


def _pictures() -> NDArray[np.uint8]:
    return np.stack([draw("woven", 2, index)[0] for index in range(2)])


def _compare(first: Any, second: Any) -> bool:
    """Whether both runners give the same maps, by polygraphy's own comparison."""
    from polygraphy.comparator import Comparator, SimpleCompareFunc

    feeds = [{"image": picture[None]} for picture in _pictures()]
    results = Comparator.run([first, second], data_loader=feeds)
    most = SimpleCompareFunc(atol=MOST, rtol=0.0, check_error_stat="max")
    mean = SimpleCompareFunc(atol=MEAN, rtol=0.0, check_error_stat="mean")
    alike = [bool(Comparator.compare_accuracy(results, compare_func=f)) for f in (most, mean)]
    return all(alike) and all(map(_whole, results.values()))


def _whole(iterations: Any) -> bool:
    return len(iterations) == 2 and all(
        np.isfinite(one["anomaly_map"]).all() and one["anomaly_map"].std() > 0 for one in iterations
    )


def _onnxruntime(model: onnx.ModelProto) -> Any:
    from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx

    session = SessionFromOnnx(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return OnnxrtRunner(session)


@pytest.fixture(autouse=True)
def _polygraphy() -> None:
    if importlib.util.find_spec("polygraphy") is None:
        pytest.skip("polygraphy is not installed: pip install polygraphy")


def test_the_comparison_itself() -> None:
    plain = for_native(_shipped())
    assert _compare(_onnxruntime(plain), _onnxruntime(to_fp16(plain)))
    broken = onnx.ModelProto()
    broken.CopyFrom(plain)
    (scale,) = (t for t in broken.graph.initializer if t.name == "image.scale")
    scale.CopyFrom(onnx.numpy_helper.from_array(np.float32(1 / 200), scale.name))
    assert not _compare(_onnxruntime(plain), _onnxruntime(broken))


@pytest.mark.gpu
def test_tensorrt_answers_as_onnxruntime_does() -> None:
    if importlib.util.find_spec("tensorrt") is None:
        pytest.skip("tensorrt is not installed: pip install 'ndp-edge[tensorrt]'")
    from polygraphy.backend.trt import EngineFromBytes, TrtRunner

    plain = for_native(_shipped())
    built = build_plan(
        to_fp16(plain).SerializeToString(), BuildOptions(backend="tensorrt", precision="fp16")
    )
    assert _compare(_onnxruntime(plain), TrtRunner(EngineFromBytes(built.plan)))
