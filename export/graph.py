"""Checkpoint -> ONNX, written node by node from the numpy weights. No torch.

Tensor names are part of what users read (layer reports, sensitivity tables): a tensor bears
the name of the part that made it, `encoder.stage1.conv1`, `rbam3.r2`, `decoder.step0.cat`,
`reencoder.stage2.conv1` (the encoder's second pass, over the reconstruction), `msdsm1.logits`.
"""

from __future__ import annotations

import json

import numpy as np
import onnx
from onnx import TensorProto, helper

import ndp_edge
from ndp_edge.checkpoint import Checkpoint
from ndp_edge.export.builder import GraphBuilder
from ndp_edge.export.functions import DOMAIN, OPSET, PLUGIN_ATTRIBUTES, ffm_select, rbfrm
from ndp_edge.model.config import RBAM_STAGES, NdpConfig

IR_VERSION = 9
"""Functions need 8; TensorRT 10.3's parser and ONNX Runtime 1.19 both read 9."""

INPUT = "image"
OUTPUT = "anomaly_map"
MEAN_WINDOW = 5


def build_graph(checkpoint: Checkpoint) -> onnx.ModelProto:
    """The whole net as one ONNX model with the local functions RBFRM and FFMSelect.

    Input `image` uint8 [N, S, S, 3] (RGB), output `anomaly_map` float32 [N, 1, S, S] in [0, 1]:
    eq. 11 after the 5x5 mean. S is the configuration's image_size; N is free. The
    configuration, the training record and the package version travel in metadata_props.

    Raises:
        InputError: the weights do not fit the configuration, or are not finite.
    """
    config = checkpoint.config
    b = GraphBuilder(checkpoint.weights)
    features = _encoder(b, config, _read_image(b), "encoder", 5)
    repaired = [_rbam(b, config, s, features[s - 1]) for s in RBAM_STAGES]
    again = _encoder(b, config, _decoder(b, config, repaired), "reencoder", 3)
    maps = [_head(b, config, i + 1, features[i], again[i]) for i in range(3)]
    _combine(b, config, maps)
    b.check_all_taken()
    return _model(b, checkpoint)


def _model(b: GraphBuilder, checkpoint: Checkpoint) -> onnx.ModelProto:
    side = checkpoint.config.image_size
    image = helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["N", side, side, 3])
    score = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N", 1, side, side])
    graph = helper.make_graph(
        b.nodes, "ndp_edge", [image], [score], initializer=list(b.initialisers.values())
    )
    model = helper.make_model(
        graph,
        functions=[rbfrm(), ffm_select()],
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)],
        ir_version=IR_VERSION,
        producer_name="ndp-edge",
        producer_version=ndp_edge.__version__,
    )
    helper.set_model_props(
        model,
        {
            "ndp_edge.config": checkpoint.config.to_json(),
            "ndp_edge.training": json.dumps(checkpoint.training, sort_keys=True),
            "ndp_edge.version": ndp_edge.__version__,
        },
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _read_image(b: GraphBuilder) -> str:
    """uint8 NHWC to float NCHW in [0, 1]. TensorRT takes uint8 only into a Cast: cast first."""
    x = b.node("Cast", [INPUT], "image.float", to=TensorProto.FLOAT)
    x = b.node("Transpose", [x], "image.nchw", perm=[0, 3, 1, 2])
    return b.node("Mul", [x, b.scalar("image.scale", 1 / 255)], "image01")


def _encoder(b: GraphBuilder, config: NdpConfig, x: str, name: str, depth: int) -> list[str]:
    """Maps of stages 1 to `depth`. Both passes share the initialisers called `encoder.…`."""
    maps, c_in = [], 3
    for stage, c in enumerate(config.channels[:depth], 1):
        kernel, stride = (3, 1) if stage == 1 else (4, 2)
        for i, shape in enumerate(((c, c_in, kernel, kernel), (c, c, 3, 3))):
            x = b.conv_bn_relu(
                x,
                f"{name}.stage{stage}.conv{i + 1}",
                f"encoder.stages.{stage - 1}.{i}",
                shape,
                stride=1 if i else stride,
                weight_name=f"encoder.stage{stage}.conv{i + 1}",
            )
        maps.append(x)
        c_in = c
    return maps


def _rbam(b: GraphBuilder, config: NdpConfig, stage: int, features: str) -> str:
    """RBFRM, the FFM's two convolutions and its selection at one stage."""
    c, m, k = config.channels[stage - 1], config.ffm_channels, config.ffm_kernel
    name, key, side = f"rbam{stage}", f"rbam.{stage - RBAM_STAGES[0]}.ffm", config.stage_size(stage)
    reference = b.constant(
        f"{name}.reference", b.take(f"reference{stage}", (1, c, side, side)).astype(np.float32)
    )
    r2, r4, u = f"{name}.r2", f"{name}.r4", f"{name}.u"
    b.node(
        "RBFRM",
        [features, reference],
        [r2, r4, u],
        DOMAIN,
        softmax_scale=config.softmax_scale,
        **PLUGIN_ATTRIBUTES,
    )
    squeezed = b.conv_bn_relu(u, f"{name}.squeeze", f"{key}.squeeze", (m, c, k, k))
    logits = b.conv(squeezed, f"{name}.attend", f"{key}.attend", (3 * c, m, k, k))
    return b.node(
        "FFMSelect", [logits, r4, r2, features], f"{name}.fused", DOMAIN, **PLUGIN_ATTRIBUTES
    )


def _decoder(b: GraphBuilder, config: NdpConfig, repaired: list[str]) -> str:
    """Repaired stages 3, 4, 5 to the reconstruction [N, 3, S, S] in [0, 1]."""
    c1, c2, c3, c4, c5 = config.channels
    plan = ((c5, c4, repaired[1]), (c4, c3, repaired[0]), (c3, c2, ""), (c2, c1, ""))
    x = repaired[2]
    for i, (c_in, c, skip) in enumerate(plan):
        name, key, c_mix = f"decoder.step{i}", f"decoder.steps.{i}", c
        x = b.conv_bn_relu(x, f"{name}.up", f"{key}.up", (c_in, c, 4, 4), stride=2, transpose=True)
        if skip:
            c_mix = 2 * c
            x = b.node("Concat", [x, skip], f"{name}.cat", axis=1)
        x = b.conv_bn_relu(x, f"{name}.mix1", f"{key}.mix.0", (c, c_mix, 3, 3))
        x = b.conv_bn_relu(x, f"{name}.mix2", f"{key}.mix.1", (c, c, 3, 3))
    x = b.conv(x, "decoder.to_image", "decoder.to_image", (3, c1, 3, 3))
    return b.node("Sigmoid", [x], "reconstruction")


def _head(b: GraphBuilder, config: NdpConfig, scale: int, image: str, again: str) -> str:
    """One MSDSM head; returns its map in [0, 1] at the stage's own size."""
    c = config.channels[scale - 1]
    width, name, key = c // 2, f"msdsm{scale}", f"msdsm.heads.{scale - 1}"
    x = b.node("Concat", [image, again], f"{name}.cat", axis=1)
    x = b.conv_bn_relu(x, f"{name}.squeeze", f"{key}.squeeze", (width, 2 * c, 1, 1))
    x = b.conv_bn_relu(x, f"{name}.look1", f"{key}.look.0", (width, width, 3, 3))
    x = b.conv_bn_relu(x, f"{name}.look2", f"{key}.look.1", (width, width, 3, 3))
    x = b.conv(x, f"{name}.logits", f"{key}.to_map", (1, width, 1, 1), weight_name=f"{name}.to_map")
    return b.node("Sigmoid", [x], f"{name}.map")


def _combine(b: GraphBuilder, config: NdpConfig, maps: list[str]) -> None:
    """Eq. 11, weighted before the upsampling (linear, and cheaper there), and the mean."""
    total = ""
    for i, (weight, small) in enumerate(zip(config.map_weights, maps, strict=True)):
        name = f"combine.map{i + 1}"
        x = b.node("Mul", [small, b.scalar(f"{name}.lambda", weight)], f"{name}.weighted")
        if i:
            scales = b.constant(f"{name}.scales", np.array([1, 1, 2**i, 2**i], np.float32))
            x = b.node(
                "Resize",
                [x, "", scales],
                f"{name}.up",
                mode="linear",
                coordinate_transformation_mode="half_pixel",
            )
        total = b.node("Add", [total, x], f"combine.sum{i + 1}") if total else x
    b.node(
        "AveragePool",
        [total],
        OUTPUT,
        kernel_shape=[MEAN_WINDOW] * 2,
        strides=[1, 1],
        pads=[MEAN_WINDOW // 2] * 4,
        count_include_pad=0,
    )
