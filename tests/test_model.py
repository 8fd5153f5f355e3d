"""NDP-Net whole: the presets' sizes, what it refuses, and pictures with nothing in them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ndp_edge import reference
from ndp_edge.errors import InputError
from ndp_edge.model.config import PRESETS, NdpConfig, preset
from ndp_edge.model.network import NDPNet

few = settings(derandomize=True, deadline=None, max_examples=25)


def net_of(name: str, **options: float) -> NDPNet:
    """A fresh net in evaluation mode whose reference image is noise."""
    torch.manual_seed(0)
    config = replace(preset(name, image_size=64), **options)
    net = NDPNet(config).eval()
    net.set_reference(torch.rand(1, 3, config.image_size, config.image_size))
    return net


@pytest.fixture(scope="module")
def nano() -> NDPNet:
    return net_of("nano")


# --- the layout ---------------------------------------------------------------------------


def conv_bn(c_in: int, c_out: int, k: int) -> int:
    return k * k * c_in * c_out + 2 * c_out


def head(c: int) -> int:
    half = c // 2
    return conv_bn(2 * c, half, 1) + 2 * conv_bn(half, half, 3) + half + 1


def layout(c: tuple[int, ...], f: int) -> int:
    """Parameters by the table in DESIGN.md section 3, counted by hand."""
    encoder = conv_bn(3, c[0], 3) + conv_bn(c[0], c[0], 3)
    encoder += sum(conv_bn(c[i], c[i + 1], 4) + conv_bn(c[i + 1], c[i + 1], 3) for i in range(4))
    rbam = sum(conv_bn(x, f, 5) + 3 * (25 * f * x + x) for x in c[2:])
    steps = [(c[4], c[3], c[3]), (c[3], c[2], c[2]), (c[2], 0, c[1]), (c[1], 0, c[0])]
    decoder = sum(
        conv_bn(a, out, 4) + conv_bn(out + skip, out, 3) + conv_bn(out, out, 3)
        for a, skip, out in steps
    )
    return encoder + rbam + decoder + (27 * c[0] + 3) + sum(head(x) for x in c[:3])


@pytest.mark.parametrize(
    ("name", "channels", "squeezed", "millions"),
    [
        # DESIGN's 38.8 M are with 3x3 heads at full width; these squeeze first.
        ("paper", (64, 128, 256, 512, 512), 64, 37.29),
        ("edge", (32, 64, 128, 256, 256), 32, 9.33),
        ("nano", (16, 32, 64, 96, 96), 16, 1.61),
    ],
)
def test_parameter_counts(
    name: str, channels: tuple[int, ...], squeezed: int, millions: float
) -> None:
    count = sum(p.numel() for p in NDPNet(preset(name, image_size=64)).parameters())
    assert count == layout(channels, squeezed)
    assert count / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize("name", PRESETS)
def test_shapes_of_every_part(name: str) -> None:
    net = net_of(name)
    c = net.config.channels
    with torch.no_grad():
        out = net.analyse(torch.rand(1, 3, 64, 64))
    assert [tuple(f.shape) for f in out.features] == [(1, c[i], 64 >> i, 64 >> i) for i in range(5)]
    assert [tuple(r.shape) for r in out.repaired] == [
        (1, c[i], 64 >> i, 64 >> i) for i in (2, 3, 4)
    ]
    assert [tuple(x.shape) for x in out.logits] == [(1, 1, 64 >> i, 64 >> i) for i in range(3)]
    assert tuple(out.reconstruction.shape) == (1, 3, 64, 64)
    assert out.reconstruction.min() >= 0
    assert out.reconstruction.max() <= 1


def test_five_stages_and_no_more(nano: NDPNet) -> None:
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        every = nano.encoder(image)
        first = nano.encoder(image, depth=3)
    assert len(every) == 5
    assert len(first) == 3
    assert all(torch.equal(a, b) for a, b in zip(first, every[:3], strict=True))
    assert [nano.config.stage_size(s) for s in range(1, 6)] == [64, 32, 16, 8, 4]
    assert [tuple(r.shape) for r in nano.references] == [
        (1, 64, 16, 16),
        (1, 96, 8, 8),
        (1, 96, 4, 4),
    ]


# --- the whole forward pass ---------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 10.0])
@pytest.mark.parametrize("size", [(64, 64), (128, 64)])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_black_and_white_images_give_finite_maps(
    value: float, size: tuple[int, int], scale: float
) -> None:
    net = net_of("nano", softmax_scale=scale)
    with torch.no_grad():
        out = net(torch.full((2, 3, *size), value))
    assert tuple(out.shape) == (2, 1, *size)
    assert torch.isfinite(out).all()
    assert out.min() >= 0
    assert out.max() <= 1


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_black_or_white_reference_gives_finite_maps(value: float) -> None:
    net = net_of("nano")
    net.set_reference(torch.full((1, 3, 64, 64), value))
    with torch.no_grad():
        assert torch.isfinite(net(torch.rand(1, 3, 64, 64))).all()


def test_forward_is_its_parts_put_together_by_the_judge() -> None:
    """Repair, selection, eq. 11 and the mean, each recomputed by reference.py in float64."""
    net = net_of("nano").double()
    image = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        out = net.analyse(image)
        final = net(image)[0, 0].numpy()
        for i, (block, ref) in enumerate(zip(net.rbam, net.references, strict=True)):
            f, r = out.features[2 + i][0].numpy(), ref[0].numpy()
            rep2, rep4 = (reference.rbfrm(f, r, k) for k in (2, 4))
            fused = torch.from_numpy(f + rep2 + rep4)[None]
            logits = block.ffm.attend(block.ffm.squeeze(fused))[0].numpy()
            expected = reference.ffm_select(logits.reshape(3, *f.shape), rep4, rep2, f)
            assert np.abs(out.repaired[i][0].numpy() - expected).max() < 1e-9
    maps = [torch.sigmoid(x)[0, 0].numpy() for x in out.logits]
    expected = reference.mean_filter(reference.anomaly_map(*maps))
    assert np.abs(final - expected).max() < 1e-9


def test_images_of_a_batch_do_not_touch_each_other(nano: NDPNet) -> None:
    images = torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        together = nano(images)
        alone = torch.cat([nano(image[None]) for image in images])
    assert torch.allclose(together, alone, atol=1e-5)


def test_set_reference_encodes_in_evaluation_mode_and_leaves_no_trace() -> None:
    net = net_of("nano").train()
    statistics = net.encoder.state_dict()["stages.0.0.1.running_mean"].clone()
    image = torch.rand(1, 3, 64, 64)
    net.set_reference(image)
    assert net.encoder.training
    assert torch.equal(net.encoder.state_dict()["stages.0.0.1.running_mean"], statistics)
    with torch.no_grad():
        expected = net.encoder.eval()(image)[2:]
    assert all(torch.equal(a, b) for a, b in zip(net.references, expected, strict=True))
    assert not any(r.requires_grad for r in net.references)


# --- refusals -----------------------------------------------------------------------------


@few
@given(st.integers(1, 200), st.integers(1, 200))
def test_sides_that_are_not_multiples_of_64_are_refused(nano: NDPNet, h: int, w: int) -> None:
    assume(h % 64 or w % 64)
    with pytest.raises(InputError, match="multiples of 64"):
        nano(torch.zeros(1, 3, h, w))


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 1, 64, 64), (1, 4, 64, 64), (1, 3, 0, 64)])
def test_other_shapes_are_refused(nano: NDPNet, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="wanted"):
        nano(torch.zeros(shape))


@few
@given(st.integers(-64, 1000))
def test_an_image_size_that_cannot_be_names_one_that_can(size: int) -> None:
    if size > 0 and size % 64 == 0:
        assert preset("nano", image_size=size).stage_size(5) * 16 == size
        return
    with pytest.raises(InputError, match="multiple of 64") as refused:
        preset("nano", image_size=size)
    suggested = int(str(refused.value).split()[-1])
    assert preset("nano", image_size=suggested).image_size == suggested
    assert size < 64 or abs(suggested - size) <= 32


def test_unknown_preset_lists_the_known() -> None:
    with pytest.raises(InputError, match="paper, edge, nano"):
        preset("tiny")


@pytest.mark.parametrize(
    "wrong",
    [
        {"channels": (16, 32, 64, 96)},
        {"channels": (16, 32, 64, 96, 100)},
        {"channels": (0, 32, 64, 96, 96)},
        {"ffm_channels": 4},
        {"ffm_kernel": 4},
        {"softmax_scale": 0.0},
    ],
)
def test_configurations_that_cannot_be(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError):
        replace(preset("nano"), **wrong)


@given(st.lists(st.floats(0, 1e3), min_size=3, max_size=3).filter(lambda w: sum(w) > 1e-3))
def test_map_weights_are_brought_to_one(weights: list[float]) -> None:
    """So that the map of eq. 11 keeps its range, [0, 1]."""
    found = preset("nano", map_weights=weights).map_weights
    assert sum(found) == pytest.approx(1)
    assert np.allclose(np.array(found) * sum(weights), weights)


@pytest.mark.parametrize("weights", [(0, 0, 0), (1, -1, 1), (1, np.nan, 1), (np.inf, 1, 1)])
def test_map_weights_that_cannot_be(weights: tuple[float, float, float]) -> None:
    with pytest.raises(InputError, match="map weights"):
        preset("nano", map_weights=weights)


@pytest.mark.parametrize("name", PRESETS)
def test_configuration_survives_json(name: str) -> None:
    config = preset(name, image_size=128, softmax_scale=10.0, gray=True)
    assert NdpConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"preset": "nano"}', "null"])
def test_broken_configuration_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not an NDP-Net configuration"):
        NdpConfig.from_json(text)
