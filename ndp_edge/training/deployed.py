"""The graph that `build --int8` writes, in torch: what is trained is what is deployed.

`NDPNet` computes the same function in float. Here every tensor that the Q/DQ ONNX quantises is
rounded to its int8 code at the same place, by the name it has there: batch norms are folded
into their convolutions, conv-transposes are 2x2 convolutions (`calib.subpixel`), RBFRM is the
two constant convolutions of `export.functions`. ONNX Runtime's answer on the file differs by
float rounding alone, which a code now and then turns into one step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ndp_edge.model.config import PATCH_SIZES, RBAM_STAGES
from ndp_edge.model.network import NDPNet, Output, combine, mean_filter
from ndp_edge.model.rbam import NORM_EPS, ffm_select
from ndp_edge.training.folding import (
    Folded,
    blocks_to_pixels,
    fold,
    reference_constants,
    subpixel_weight,
)
from ndp_edge.training.rounding import Observed, Rounded


class Deployed:
    """`net` as int8 computes it.

    The encoder and the reference maps are taken as they are now and get no gradient, as in
    phase 2 and for its reason: the reference maps are the encoder's work, and RBFRM compares
    with them. Their rounding errors stand; what follows learns to bear them.

    Args:
        net: a trained net in eval mode; its weights are shared, not copied.
        rounding: what happens to each tensor: `Rounded`, or `Observed` to find the ranges.
    """

    def __init__(self, net: NDPNet, rounding: Rounded | Observed) -> None:
        self.net, self.rounding = net, rounding
        with torch.no_grad():
            # What reads the camera's image stays in float (`calib.graph.quantisable`).
            self._first = fold(_stages(net)[0][0])
            self._encoder = [[self._frozen(block) for block in stage] for stage in _stages(net)]
            self._references = [
                [self._constants(reference, k) for k in PATCH_SIZES] for reference in net.references
            ]

    def analyse(self, image: Tensor) -> Output:
        """As `NDPNet.analyse`: images [N, 3, H, W] in [0, 1], sides multiples of 64."""
        with torch.no_grad():
            features = self._encode("encoder", image, 5)
        repaired = [self._rbam(i, s, features[s - 1]) for i, s in enumerate(RBAM_STAGES)]
        reconstruction = self._round("reconstruction", self._decode(repaired))
        again = self._encode("reencoder", reconstruction, 3)
        logits = [self._head(i, features[i], again[i]) for i in range(3)]
        return Output(logits, reconstruction, repaired, features)

    def maps(self, image: Tensor) -> Tensor:
        """As `NDPNet.forward`: the map of eq. 11 after the 5x5 mean, [N, 1, H, W]."""
        return mean_filter(combine(self.analyse(image).logits, self.net.config.map_weights))

    def _round(self, name: str, x: Tensor) -> Tensor:
        return self.rounding.activation(name, x)

    def _conv(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """A convolution of stride 1 that keeps the size, its weights in int8."""
        return F.conv2d(x, self.rounding.weight(weight), bias, padding=weight.shape[-1] // 2)

    def _frozen(self, block: Any) -> Folded:
        weight, bias = fold(block)
        return self.rounding.weight(weight), bias

    def _constants(self, reference: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
        keys, values, mean = reference_constants(reference, k, self.net.config.softmax_scale)
        return self.rounding.weight(keys), self.rounding.weight(values), mean

    def _encode(self, name: str, x: Tensor, depth: int) -> list[Tensor]:
        maps = []
        for s, stage in enumerate(self._encoder[:depth], 1):
            for i, block in enumerate(stage, 1):
                weight, bias = self._first if name == "encoder" and s == i == 1 else block
                # The 4x4 convolutions have stride 2, the 3x3 ones stride 1.
                y = F.conv2d(x, weight, bias, weight.shape[-1] - 2 if i == 1 and s > 1 else 1, 1)
                x = self._round(f"{name}.stage{s}.conv{i}", F.relu(y))
            maps.append(x)
        return maps

    def _block(self, name: str, x: Tensor, block: Any) -> Tensor:
        """A convolution of stride 1 with its batch norm and ReLU."""
        weight, bias = fold(block)
        return self._round(name, F.relu(self._conv(x, weight, bias)))

    def _rbam(self, index: int, stage: int, features: Tensor) -> Tensor:
        ffm: Any = self.net.rbam[index].ffm
        name = f"rbam{stage}"
        with torch.no_grad():  # the encoder's maps and the reference: nothing here is trained
            r2, r4 = (
                self._repair(f"{name}.k{k}", k, features, constants)
                for k, constants in zip(PATCH_SIZES, self._references[index], strict=True)
            )
            u = self._round(f"{name}.u", features + r2 + r4)
        squeezed = self._block(f"{name}.squeeze", u, ffm.squeeze)
        logits = self._conv(squeezed, ffm.attend.weight, ffm.attend.bias)
        return self._round(f"{name}.fused", ffm_select(logits, r4, r2, features))

    def _repair(
        self, name: str, k: int, features: Tensor, constants: tuple[Tensor, Tensor, Tensor]
    ) -> Tensor:
        """Eq. 3-5 as `export.functions` writes them."""
        keys, values, mean = constants
        energy = features.square().sum(dim=1, keepdim=True)
        norm = (F.avg_pool2d(energy, k).sqrt() * k).clamp_min(NORM_EPS)
        scores = F.conv2d(features, keys, stride=k) / norm
        exp = self._round(f"{name}.exp", (scores - scores.amax(dim=1, keepdim=True)).exp())
        correction = F.conv2d(exp, values) / exp.sum(dim=1, keepdim=True)
        return F.pixel_shuffle(correction + mean, k)

    def _decode(self, repaired: list[Tensor]) -> Tensor:
        decoder: Any = self.net.decoder
        x, skips = repaired[2], {0: repaired[1], 1: repaired[0]}
        for i, step in enumerate(decoder.steps):
            name = f"decoder.step{i}"
            weight, bias = fold(step.up, axis=1)
            taps = self.rounding.weight(subpixel_weight(weight))
            # Rounded before the ring is cut off: calibration sees its values too.
            parts = self._round(f"{name}.up", F.relu(F.conv2d(x, taps, bias.repeat(4), 1, 1)))
            x = blocks_to_pixels(parts)
            if i in skips:
                x = torch.cat([x, skips[i]], dim=1)
            x = self._block(f"{name}.mix1", x, step.mix[0])
            x = self._block(f"{name}.mix2", x, step.mix[1])
        return torch.sigmoid(self._conv(x, decoder.to_image.weight, decoder.to_image.bias))

    def _head(self, index: int, image: Tensor, again: Tensor) -> Tensor:
        head: Any = self.net.msdsm.heads[index]
        name = f"msdsm{index + 1}"
        # Both halves have the scale of their concatenation: rounding again would change nothing.
        x = self._block(f"{name}.squeeze", torch.cat([image, again], dim=1), head.squeeze)
        x = self._block(f"{name}.look1", x, head.look[0])
        x = self._block(f"{name}.look2", x, head.look[1])
        return self._conv(x, head.to_map.weight, head.to_map.bias)


def _stages(net: NDPNet) -> Any:
    return net.encoder.stages
