"""What is trained is what is deployed: torch against ONNX and its operators."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ndp_edge import checkpoint
from ndp_edge.calib.graph import quantisable, scale_groups
from ndp_edge.calib.qdq import quantize
from ndp_edge.calib.ranges import collect_ranges
from ndp_edge.calib.subpixel import as_convolutions
from ndp_edge.export.graph import build_graph
from ndp_edge.export.inline import inline
from ndp_edge.losses import agreement
from ndp_edge.model.network import NDPNet
from ndp_edge.training.deployed import Deployed
from ndp_edge.training.fake_quant import quantise_activation, quantise_weight
from ndp_edge.training.qat import calibrate
from ndp_edge.training.rounding import SHARED, Observed, Rounded

SIDE = 64


def test_ranges_and_scales_are_those_of_the_file(kit: SimpleNamespace, net: NDPNet) -> None:
    weights = {name: value.numpy() for name, value in net.state_dict().items()}
    model = as_convolutions(inline(build_graph(checkpoint.Checkpoint(net.config, weights))))
    ranges, groups = collect_ranges(model, kit.striped(4)), scale_groups(model, quantisable(model))
    rounding = calibrate(net, kit.striped(4))
    scale = {
        t.name.removesuffix(".scale"): float(np.frombuffer(t.raw_data, np.float32)[0])
        for t in quantize(model, ranges).graph.initializer
        if t.name.removesuffix(".scale") in groups
    }
    assert set(scale) == set(groups)
    # What it leaves out moves values of its group about: Concat, DepthToSpace, Slice.
    left = set(groups) - set(rounding.scales)
    assert {name.rsplit(".", 1)[1] for name in left} == {"cat", "blocks", "parts"}
    assert {groups[name] for name in left} <= {groups[name] for name in rounding.scales}
    for name, value in rounding.scales.items():
        assert float(value) == pytest.approx(scale[name], rel=1e-4), name
    for a, b in SHARED.items():
        assert groups[a] == groups[b]
    assert len({groups[name] for name in rounding.scales}) == len(rounding.scales) - len(SHARED)


def test_deployed_answers_as_onnx_runtime_does_on_the_file(
    kit: SimpleNamespace, net: NDPNet
) -> None:
    """Float rounding turns a code now and then; the quantisation error is 20 times as large."""
    weights = {name: value.numpy() for name, value in net.state_dict().items()}
    model = as_convolutions(inline(build_graph(checkpoint.Checkpoint(net.config, weights))))
    ranges = collect_ranges(model, kit.striped(4))
    options = ort.SessionOptions()
    # As the file says: otherwise biases are rounded as well, to the accumulator's int32.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        quantize(model, ranges).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    images = kit.striped(6, seed=1)
    named = {name: ranges[f"{name}.parts" if name.endswith(".up") else name]
             for name in calibrate(net, kit.striped(1)).scales}  # fmt: skip
    with torch.no_grad():
        found = Deployed(net, Rounded(named)).maps(kit.as_tensor(images)).numpy()
        exact = net(kit.as_tensor(images)).numpy()
    wanted = session.run(None, {"image": images})[0]
    assert np.isfinite(found).all()
    cost = np.abs(wanted - exact).mean()
    assert cost > 1e-3
    assert np.abs(found - wanted).mean() < cost / 10
    assert np.abs(found - wanted).max() < 0.02


def test_observing_changes_nothing(kit: SimpleNamespace, net: NDPNet) -> None:
    images = kit.as_tensor(kit.striped(2, seed=2))
    with torch.no_grad():
        difference = Deployed(net, Observed()).maps(images) - net(images)
    assert float(difference.abs().max()) < 1e-5


VALUES = st.lists(st.floats(-400, 400, width=32), min_size=1, max_size=40)


@given(VALUES, st.floats(2.0**-10, 2, width=32))
def test_an_activation_is_rounded_as_onnx_says_and_its_gradient_passes(
    values: list[float], scale: float
) -> None:
    x = torch.tensor(values, requires_grad=True)
    y = quantise_activation(x, torch.tensor(scale))
    exact = np.array(values, np.float32) / np.float32(scale)
    codes = np.clip(np.rint(exact), -128, 127)
    assert np.array_equal(y.detach().numpy(), codes.astype(np.float32) * np.float32(scale))
    weights = torch.arange(1.0, len(values) + 1)
    (y * weights).sum().backward()
    inside = (np.rint(exact) >= -128) & (np.rint(exact) <= 127)
    assert x.grad is not None
    assert np.array_equal(x.grad.numpy(), weights.numpy() * inside)


@given(st.integers(1, 4), st.integers(1, 12), st.integers(0, 99), st.floats(1e-6, 1e3))
def test_weights_keep_255_codes_per_channel_and_their_gradient(
    channels: int, each: int, seed: int, size: float
) -> None:
    rng = np.random.default_rng(seed)
    w = torch.tensor(rng.normal(0, size, (channels, each)), dtype=torch.float32).requires_grad_()
    q = quantise_weight(w)
    step = w.detach().abs().amax(dim=1, keepdim=True) / 127
    codes = q.detach() / step
    assert float((codes - codes.round()).abs().max()) < 1e-3
    assert float(codes.abs().max()) < 127.01
    assert bool(((q - w).abs() <= 0.501 * step).all())
    (q * 3).sum().backward()
    assert w.grad is not None
    assert bool((w.grad == 3).all())


def test_a_channel_of_zeros_stays_zero_and_finite() -> None:
    assert bool((quantise_weight(torch.zeros(2, 3, 1, 1)) == 0).all())
    rounding = Rounded({"dead": (0.0, 0.0)})
    assert bool((rounding.activation("dead", torch.zeros(4)) == 0).all())


@settings(max_examples=10)
@given(st.integers(0, 99))
def test_agreement_is_zero_at_the_target_and_positive_elsewhere(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    target = [torch.randn(2, 1, 4 << i, 4 << i, generator=generator) for i in range(3)]
    assert abs(float(agreement(target, target))) < 1e-6
    assert float(agreement([t + 0.5 for t in target], target)) > 1e-3
