"""Nets that lack a part, and their training. The package's own room knows nothing of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from ndp_edge import losses
from ndp_edge.bench.ablated_maps import feature_residual, pixel_gap, ssim_gap
from ndp_edge.checkpoint import Checkpoint
from ndp_edge.model.config import NdpConfig
from ndp_edge.model.load import load_net
from ndp_edge.model.network import NDPNet, Output, mean_filter
from ndp_edge.training.loop import Run, Trainer
from ndp_edge.training.phases import Parts

DROPPED = {"rbam": "fea_rep", "def-per": "def_per"}
"""What is left out -> the term of the loss that goes with it."""


class Unrepaired(NDPNet):
    """Column B: the decoder gets the encoder's own features. The RBAMs are there and idle."""

    def repair(self, features: list[Tensor]) -> list[Tensor]:
        return features


class Compared(NDPNet):
    """Columns D to F: a formula for MSDSM, which is there and idle.

    Args:
        config: as `NDPNet`'s.
        way: "pixel-gap", "msfr" or "ssim".
    """

    def __init__(self, config: NdpConfig, way: str) -> None:
        super().__init__(config)
        self.way = way

    def analyse(self, image: Tensor) -> Output:
        """As `NDPNet.analyse`, without logits and without the second encoding."""
        features = self.encoder(image)
        repaired = self.repair(features[2:])
        return Output([], self.decoder(*repaired), repaired, features)

    def difference(self, image: Tensor, out: Output) -> Tensor:
        """The map of images [N, 3, H, W] before any smoothing, [N, 1, H, W], not below 0."""
        with torch.autocast(image.device.type, enabled=False):  # small gaps of large numbers
            rebuilt = out.reconstruction.float()
            if self.way == "pixel-gap":
                return pixel_gap(image, rebuilt)
            if self.way == "ssim":
                return ssim_gap(image, rebuilt)
            both = (out.features[:3], self.encoder(rebuilt, depth=3))
            return feature_residual(*([f.float() for f in one] for one in both))

    def forward(self, image: Tensor) -> Tensor:
        """The map after the 5x5 mean, as the whole net's: the variants differ in one thing."""
        return mean_filter(self.difference(image, self.analyse(image)))


def net_without(lacks: str, config: NdpConfig) -> NDPNet:
    """A fresh net of a column, `lacks` one of `ablated.ABLATIONS`. All have the same tensors."""
    if lacks == "rbam":
        return Unrepaired(config)
    return NDPNet(config) if lacks in ("none", "def-per") else Compared(config, lacks)


def load_ablated(checkpoint: Checkpoint) -> tuple[NDPNet, str]:
    """(net on the CPU in eval mode, what it lacks); any checkpoint of ours, "none" where whole.

    Raises:
        InputError: the weights are not the configuration's.
    """
    lacks = str(checkpoint.training.get("ablation", "none"))
    whole = load_net(checkpoint)
    net = net_without(lacks, checkpoint.config)
    net.load_state_dict(whole.state_dict())
    return net.eval(), lacks


class AblatedTrainer(Trainer):
    """Trains a net without one part.

    Args:
        run: as for `Trainer`; its record gets "ablation", and its state is no other ablation's.
        lacks: one of `ablated.ABLATIONS`.
        resume: go on from the state in the run's folder, where there is one.
    """

    def __init__(self, run: Run, *, resume: bool, lacks: str) -> None:
        self.lacks = lacks
        torch.manual_seed(run.options.seed)  # as Trainer does before it makes a net
        net = net_without(lacks, run.config)
        told: dict[str, Any] = run.record | {"ablation": lacks}
        own = dataclasses.replace(run, record=told, identity=f"{run.identity} ablation {lacks}")
        super().__init__(own, resume=resume, net=net)

    def _parts(self, good: Tensor, bad: Tensor, mask: Tensor) -> tuple[Parts, list[Tensor]]:
        if self.phase == 1 and isinstance(self.net, Compared):
            return self._unsegmented(self.net, good, bad, mask)
        parts, rows = super()._parts(good, bad, mask)
        parts.pop(DROPPED.get(self.lacks, ""), None)
        return parts, rows

    def _unsegmented(
        self, net: Compared, good: Tensor, bad: Tensor, mask: Tensor
    ) -> tuple[Parts, list[Tensor]]:
        """Eq. 17 without its last term."""
        with torch.no_grad():
            target = net.encoder(good)[2:]
        out = net.analyse(bad)
        parts = {"rec": losses.reconstruction(good, out.reconstruction)}
        if self.run.perceptual is not None:
            parts["per"] = self.run.perceptual(good, out.reconstruction)
        parts["fea_rep"] = losses.feature_repair(out.repaired, target)
        with torch.no_grad():
            maps = net.difference(bad, out)
        return parts, [bad, out.reconstruction, maps, mask]
