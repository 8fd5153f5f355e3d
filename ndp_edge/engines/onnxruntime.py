"""ONNX Runtime on the CPU: the numeric reference, and the engine calibration runs on."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ndp_edge.engines.base import (
    Engine,
    Images,
    Maps,
    check_threads,
    image_size,
    missing,
    read_model,
)

try:
    import onnxruntime as ort  # type: ignore[import-untyped]
except ImportError as error:
    raise missing("onnxruntime", "pip install onnxruntime") from error

_ERRORS_ONLY = 3


class OnnxRuntimeEngine(Engine):
    """Runs the ONNX as it is, local functions and Q/DQ included."""

    name = "onnxruntime"

    def __init__(self, model: Path, precision: str, *, threads: int | None = None) -> None:
        """Load `model` (raises InputError, see `open_engine`)."""
        proto = read_model(model, precision)
        super().__init__(precision, image_size(proto))
        self._threads = check_threads(threads)
        options = ort.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.intra_op_num_threads = self._threads
        self._session: Any = ort.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        # One worker: batches leave in the order they came, and threads are not oversubscribed.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="ndp-edge-ort")

    def _infer(self, images: Images) -> Maps:
        maps: Maps = self._session.run(None, {"image": images})[0]
        return maps[:, 0]

    def _submit(self, images: Images) -> Future[Maps]:
        return self._worker.submit(self._infer, np.array(images))

    def _collect(self, handle: Any) -> Maps:
        maps: Maps = handle.result()
        return maps

    def _done(self, handle: Any) -> bool:
        return bool(handle.done())

    def _describe(self) -> dict[str, Any]:
        return {
            "device": "CPU",
            "threads": self._threads,
            "versions": {"onnxruntime": ort.__version__},
        }

    def _close(self, pending: list[Any]) -> None:
        self._worker.shutdown(wait=True, cancel_futures=True)
        self._session = None
