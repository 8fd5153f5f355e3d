"""Plans that do not fit, and TensorRT-RTX's cache of what it compiled on the card."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_cuda import FakeCuda
from fake_trt import SIZE, FakeRtx, FakeTrt, plan_bytes

from ndp_edge.engines import open_engine, trt_compat
from ndp_edge.engines.sidecar import Sidecar, sidecar_of, write_sidecar
from ndp_edge.engines.tensorrt_engine import TensorRtEngine
from ndp_edge.errors import InputError, MachineError
from ndp_edge.native import plugin

SIDECAR = Sidecar(
    backend="tensorrt", version="10.3.0", precision="fp16", variant="native", batches=(1,),
    sm="sm87", gpu="Fake GPU", cuda="12.6", onnx="0" * 64, source="model.fp16.onnx",
)  # fmt: skip
RTX = dataclasses.replace(SIDECAR, backend="tensorrt-rtx", version="1.7.1.116")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A finished bundle's folder, as far as a plan looks at it."""
    folder = tmp_path / "bundle"
    (folder / "engines").mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    return folder


def plan_in(bundle: Path, sidecar: Sidecar = SIDECAR, **changed: Any) -> Path:
    plan = bundle / "engines" / "made.plan"
    plan.write_bytes(plan_bytes(sidecar.batches, **changed))
    write_sidecar(plan, sidecar)
    return plan


def refusal(plan: Path, *, sm: int = 87, version: str = "10.3.0") -> str:
    """What opening says, after seeing that it left nothing behind."""
    cuda = FakeCuda(sm=sm)
    trt = FakeTrt(cuda, version)
    with pytest.raises(MachineError) as caught:
        TensorRtEngine(plan, "fp16", trt=trt, cuda=cuda)
    assert +cuda.alive == {}
    assert cuda.released == 1
    said = str(caught.value)
    assert "\n" not in said
    return said


def test_a_plan_for_others_says_what_differs_and_how_to_rebuild(bundle: Path) -> None:
    plan = plan_in(bundle)
    command = f"python -m ndp_edge.build --rebuild {bundle.resolve()}"
    said = refusal(plan, version="10.13.3.9")
    assert command in said
    assert "10.13.3.9" in said
    assert "10.3.0" in said
    assert "sm8" not in said
    said = refusal(plan, sm=86)
    assert command in said
    assert "sm86" in said
    assert "sm87" in said
    said = refusal(plan, sm=86, version="11.4.0.106")
    assert "sm86" in said
    assert "11.4.0.106" in said


def test_another_plugin_is_refused_and_ours_is_loaded_first(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin, "plugin_hash", lambda: "here")
    made = dataclasses.replace(SIDECAR, variant="plugin", plugin="elsewhere")
    said = refusal(plan_in(bundle, made))
    assert "here" in said
    assert "elsewhere" in said
    assert "--rebuild" in said
    loaded = []
    monkeypatch.setattr(plugin, "plugin_library", lambda version, sm: Path(f"{version}-{sm}.so"))
    monkeypatch.setattr(plugin, "load_plugin", lambda trt, path: loaded.append((trt, path)))
    cuda = FakeCuda()
    trt = FakeTrt(cuda)
    plan = plan_in(bundle, dataclasses.replace(made, plugin="here"))
    with TensorRtEngine(plan, "fp16", trt=trt, cuda=cuda) as engine:
        assert engine.describe()["variant"] == "plugin"
    assert loaded == [(trt, Path("10.3.0-87.so"))]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"tensors": {"x": ["uint8", "in", [-1]]}}, "its tensors are x"),
        (
            {
                "tensors": {
                    "image": ["float32", "in", [-1, *SIZE, 3]],
                    "anomaly_map": ["float32", "out", [-1, 1, *SIZE]],
                }
            },
            "its image has another type",
        ),
        (
            {
                "tensors": {
                    "image": ["uint8", "in", [-1, *SIZE, 3]],
                    "anomaly_map": ["float32", "in", [-1, 1, *SIZE]],
                }
            },
            "its anomaly_map has another type or direction",
        ),
        (
            {
                "tensors": {
                    "image": ["uint8", "in", [-1, 3, *SIZE]],
                    "anomaly_map": ["float32", "out", [-1, 1, *SIZE]],
                }
            },
            "its shapes are not ours",
        ),
    ],
)
def test_a_plan_of_another_net_is_refused(
    bundle: Path, changed: dict[str, Any], words: str
) -> None:
    said = refusal(plan_in(bundle, **changed))
    assert words in said
    assert "--rebuild" in said


def test_a_plan_without_the_batches_of_its_sidecar_is_refused(bundle: Path) -> None:
    plan = plan_in(bundle)
    write_sidecar(plan, dataclasses.replace(SIDECAR, batches=(1, 4)))
    assert "no context for profile 1" in refusal(plan)
    write_sidecar(plan, dataclasses.replace(SIDECAR, batches=(2,)))
    assert "batch 2 was refused" in refusal(plan)


def test_a_damaged_plan_is_refused_in_the_librarys_words(bundle: Path) -> None:
    plan = plan_in(bundle)
    plan.write_bytes(b"\x00not a plan")
    said = refusal(plan)
    assert said.startswith("magic tag does not match: made.plan cannot be used; rebuild with: ")


def test_what_was_asked_for_must_be_what_is_there(bundle: Path) -> None:
    plan = plan_in(bundle)
    for backend, precision in (("tensorrt", "int8"), ("tensorrt-rtx", "fp16")):
        with pytest.raises(InputError, match=f"but {backend} {precision} was asked for"):
            TensorRtEngine(plan, precision, backend=backend, trt=FakeTrt(FakeCuda()))
    with pytest.raises(InputError, match="no engine at"):
        TensorRtEngine(bundle / "engines" / "none.plan", "fp16")
    sidecar_of(plan).unlink()
    with pytest.raises(InputError, match="sidecar"):
        TensorRtEngine(plan, "fp16")


def test_open_engine_opens_plans(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda()
    trt = FakeTrt(cuda)
    monkeypatch.setattr("ndp_edge.engines.available", lambda: {"tensorrt": "10.3.0"})
    monkeypatch.setattr("ndp_edge.engines._version", lambda name: "10.3.0")
    monkeypatch.setattr("ndp_edge.engines.tensorrt_engine.load", lambda backend: trt)
    monkeypatch.setattr("ndp_edge.engines.tensorrt_engine.open_cuda", lambda: cuda)
    with open_engine("tensorrt", plan_in(bundle), precision="fp16") as engine:
        assert engine.name == "tensorrt"
        assert engine.size == SIZE
    assert +cuda.alive == {}


def run_rtx(plan: Path) -> tuple[dict[str, Any], Any]:
    """Opens, runs once, closes; what `describe` told, and a context's IRuntimeConfig."""
    cuda = FakeCuda()
    trt = FakeRtx(cuda, RTX.version)
    with TensorRtEngine(plan, "fp16", backend="tensorrt-rtx", trt=trt, cuda=cuda) as engine:
        engine.infer(np.zeros((1, *SIZE, 3), np.uint8))
        told = engine.describe()
    assert +cuda.alive == {}
    return told, trt.configs[0]


def test_rtx_compiles_before_the_first_frame_and_keeps_it_in_the_bundle(bundle: Path) -> None:
    plan = plan_in(bundle, dataclasses.replace(RTX, batches=(1, 2)))
    told, config = run_rtx(plan)
    kept = bundle / "cache" / "made.jit"
    assert kept.read_bytes() == b"jit:batch1,batch2"
    assert told["jit_cache"] == "new, 17 bytes written"
    assert told["graphs"] == "none: TensorRT-RTX captures its own"
    assert config.dynamic_shapes_kernel_specialization_strategy == 1
    assert config.cuda_graph_strategy == 1
    written = kept.stat().st_mtime_ns
    told, config = run_rtx(plan)
    assert told["jit_cache"] == "read"
    assert config.cache.kernels == {"batch1", "batch2"}
    assert kept.stat().st_mtime_ns == written


def test_a_cache_of_another_card_is_made_anew(bundle: Path) -> None:
    (bundle / "cache").mkdir()
    (bundle / "cache" / "made.jit").write_bytes(b"of another card")
    told, _ = run_rtx(plan_in(bundle, RTX))
    assert told["jit_cache"] == "of another card or version: made anew, 10 bytes written"
    assert (bundle / "cache" / "made.jit").read_bytes() == b"jit:batch1"


def test_a_cache_that_cannot_be_written_is_told_and_done_without(bundle: Path) -> None:
    (bundle / "cache").write_bytes(b"a file where the folder would be")
    told, _ = run_rtx(plan_in(bundle, RTX))
    assert told["jit_cache"].startswith("new, not written (")


def test_a_bundle_still_being_written_gets_no_cache(bundle: Path) -> None:
    """It would be sealed with the bundle, and the next run would seem to have changed it."""
    (bundle / "manifest.json").unlink()
    told, _ = run_rtx(plan_in(bundle, RTX))
    assert told["jit_cache"] == "none kept: the plan is in no bundle"
    assert not (bundle / "cache").exists()


NAMES = {
    "Runtime": ["deserialize_cuda_engine"],
    "ICudaEngine": [
        "create_execution_context", "create_runtime_config", "device_memory_size_v2",
        "get_tensor_name", "get_tensor_dtype", "get_tensor_mode", "get_tensor_shape",
        "num_io_tensors",
    ],
    "IExecutionContext": [
        "set_optimization_profile_async", "set_device_memory", "set_input_shape",
        "set_tensor_address", "execute_async_v3",
    ],
    "IRuntimeConfig": [
        "set_execution_context_allocation_strategy", "create_runtime_cache", "set_runtime_cache",
        "dynamic_shapes_kernel_specialization_strategy", "cuda_graph_strategy",
    ],
    "IRuntimeCache": ["deserialize", "serialize"],
    "ExecutionContextAllocationStrategy": ["USER_MANAGED"],
    "DynamicShapesKernelSpecializationStrategy": ["EAGER"],
    "CudaGraphStrategy": ["WHOLE_GRAPH_CAPTURE"],
    "DataType": ["UINT8", "FLOAT"],
    "TensorIOMode": ["INPUT", "OUTPUT"],
}  # fmt: skip


def test_the_real_bindings_have_every_name_that_the_fake_stands_for() -> None:
    name = trt_compat.module_name("tensorrt-rtx")
    if name is None:
        pytest.skip("tensorrt-rtx is not installed here")
    module = importlib.import_module(name)
    missing = {
        f"{kind}.{attribute}"
        for kind, attributes in NAMES.items()
        for attribute in attributes
        if not hasattr(getattr(module, kind, None), attribute)
    }
    assert missing == set()
