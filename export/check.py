"""Is the exported file the trained net? Both are run on the same pictures and compared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from ndp_edge.errors import GateError, MachineError
from ndp_edge.export.graph import INPUT, OUTPUT
from ndp_edge.export.inline import inline
from ndp_edge.ov_core import shared_core

if TYPE_CHECKING:
    from ndp_edge.model.network import NDPNet

TOLERANCE = 1e-4
"""Largest absolute difference allowed; maps and reconstructions lie in [0, 1]."""

RECONSTRUCTION = "reconstruction"
CHUNK = 2
"""Pictures per run: more than one, so that a graph that mixes up the batch is caught."""

Outputs = dict[str, NDArray[np.float32]]


def check_pictures(size: int, images: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """Noise, noise in dark and light shades, black and white, then the user's [N, size, size, 3].

    The made ones reach what good photographs leave unlit: every pixel value and both ends.
    """
    rng = np.random.default_rng(0)
    made = [
        rng.integers(0, 256, (size, size, 3), np.uint8),
        rng.integers(0, 64, (size, size, 3), np.uint8),
        rng.integers(192, 256, (size, size, 3), np.uint8),
        np.zeros((size, size, 3), np.uint8),
        np.full((size, size, 3), 255, np.uint8),
    ]
    stacked = np.stack(made)
    return stacked if images is None else np.concatenate([stacked, images])


def compare_with_torch(data: bytes, net: NDPNet, pictures: NDArray[np.uint8]) -> dict[str, Any]:
    """Run `net` and the ONNX file's bytes over uint8 [N, S, S, 3]; the largest differences.

    ONNX Runtime runs the model as it is (functions and all), and shows the reconstruction as
    well as the map, since a map may be flat where the net finds nothing; OpenVINO, where it
    is installed, runs the inlined model.

    Returns:
        {"onnxruntime": {"anomaly_map": e, "reconstruction": e}, "openvino": {"anomaly_map": e}
        or None, "images": N, "tolerance": 1e-4, "map_range": [lowest, highest]}.

    Raises:
        GateError: a value is not finite, or a difference above TOLERANCE.
        MachineError: ONNX Runtime is not installed.
    """
    model = onnx.load_model_from_string(data)
    wanted = [_run_torch(net, chunk) for chunk in _chunks(pictures)]
    maps = np.concatenate([chunk[OUTPUT] for chunk in wanted])
    report: dict[str, Any] = {"openvino": None}
    for name, runner in (("onnxruntime", _onnxruntime(model)), ("openvino", _openvino(model))):
        if runner is not None:
            found = [runner(chunk) for chunk in _chunks(pictures)]
            report[name] = _largest_errors(name, found, wanted)
    return report | {
        "images": len(pictures),
        "tolerance": TOLERANCE,
        "map_range": [float(maps.min()), float(maps.max())],
    }


def _chunks(pictures: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(pictures), CHUNK):
        yield pictures[start : start + CHUNK]


def _largest_errors(engine: str, found: list[Outputs], wanted: list[Outputs]) -> dict[str, float]:
    errors: dict[str, float] = {}
    for got, want in zip(found, wanted, strict=True):
        for name, value in got.items():
            # First: NaN would pass every comparison that follows.
            if not (np.isfinite(value).all() and np.isfinite(want[name]).all()):
                raise GateError(f"the export check failed: {name} is not finite in {engine}")
            if value.shape != want[name].shape:
                shapes = f"{value.shape} in {engine}, {want[name].shape} in torch"
                raise GateError(f"the export check failed: {name} is {shapes}")
            errors[name] = max(errors.get(name, 0.0), float(np.abs(value - want[name]).max()))
    for name, error in errors.items():
        if error > TOLERANCE:
            raise GateError(
                f"the export check failed: {name} differs by {error:.2g} between torch and "
                f"{engine} (at most {TOLERANCE:g}); nothing was written"
            )
    return errors


def _run_torch(net: NDPNet, images: NDArray[np.uint8]) -> Outputs:
    import torch  # the default install has none

    from ndp_edge.model.network import combine, mean_filter  # imports torch

    with torch.inference_mode():
        x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        output = net.analyse(x)
        final = mean_filter(combine(output.logits, net.config.map_weights))
    return {OUTPUT: final.numpy(), RECONSTRUCTION: output.reconstruction.numpy()}


def _onnxruntime(model: onnx.ModelProto) -> Any:
    try:
        import onnxruntime  # type: ignore[import-untyped]  # loads where it is wanted
    except ImportError as error:
        raise MachineError("onnxruntime is not installed; pip install onnxruntime") from error
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    names = [OUTPUT, RECONSTRUCTION]
    info = helper.make_tensor_value_info(RECONSTRUCTION, TensorProto.FLOAT, None)
    shown.graph.output.append(info)
    session = onnxruntime.InferenceSession(
        shown.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return lambda images: dict(zip(names, session.run(names, {INPUT: images}), strict=True))


def _openvino(model: onnx.ModelProto) -> Any:
    try:
        core = shared_core()
    except MachineError:
        return None
    # Without the hint a CPU with bfloat16 units computes in bfloat16.
    compiled = core.compile_model(
        core.read_model(inline(model).SerializeToString()),
        "CPU",
        {"INFERENCE_PRECISION_HINT": "f32"},
    )
    return lambda images: {OUTPUT: compiled(images)[0]}
