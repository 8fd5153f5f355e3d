"""One optimiser step of each phase (paper III-E, Fig. 8)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ndp_edge import losses
from ndp_edge.model.network import NDPNet, Output
from ndp_edge.training.perceptual import Perceptual

Parts = dict[str, Tensor]


def trained_modules(net: NDPNet, phase: int) -> list[nn.Module]:
    """Phase 0 trains encoder and decoder; phase 1 RBAM, decoder and MSDSM."""
    return [net.encoder, net.decoder] if phase == 0 else [net.rbam, net.decoder, net.msdsm]


def set_phase(net: NDPNet, phase: int) -> list[nn.Parameter]:
    """Put every module into the mode of `phase` and return the parameters it trains.

    In phase 1 the encoder is frozen in both senses: no gradient to its weights, and batch
    norms on their running statistics (otherwise they would keep moving).
    """
    net.requires_grad_(False).eval()
    parameters: list[nn.Parameter] = []
    for module in trained_modules(net, phase):
        module.requires_grad_(True).train()
        parameters += list(module.parameters())
    return parameters


def phase_one(
    net: NDPNet, good: Tensor, bad: Tensor, mask: Tensor, perceptual: Perceptual | None
) -> Parts:
    """Eq. 14. Good and artificial images go through batch norm in one batch; the decoder
    sees the good image's stages 3-5 alone, without RBAM."""
    n = good.shape[0]
    features = [f.float() for f in net.encoder(torch.cat([good, bad]))]  # losses in float32
    # split: its gradient is one concatenation; two slices would each fill a map with zeros.
    of_good, of_bad = zip(*(f.split(n) for f in features), strict=True)
    rebuilt = net.decoder(*of_good[2:])
    parts = {"rec": losses.reconstruction(good, rebuilt)}
    if perceptual is not None:
        parts["per"] = perceptual(good, rebuilt)
    parts["def_per"] = losses.defect_perception(of_good, of_bad, mask)
    return parts


def phase_two(
    net: NDPNet, good: Tensor, bad: Tensor, mask: Tensor, perceptual: Perceptual | None
) -> tuple[Parts, Output]:
    """Eq. 17. Gradients flow *through* the frozen encoder into the reconstruction."""
    with torch.no_grad():
        target = net.encoder(good)[2:]
    out = net.analyse(bad)
    parts = {"rec": losses.reconstruction(good, out.reconstruction)}
    if perceptual is not None:
        parts["per"] = perceptual(good, out.reconstruction)
    parts["fea_rep"] = losses.feature_repair(out.repaired, target)
    parts["seg"] = losses.segmentation(out.logits, mask)
    return parts, out
