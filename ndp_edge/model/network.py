"""NDP-Net whole: encoder, RBAMs, decoder, MSDSM (paper Fig. 1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ndp_edge.errors import InputError
from ndp_edge.model.config import RBAM_STAGES, STRIDE, NdpConfig
from ndp_edge.model.decoder import Decoder
from ndp_edge.model.encoder import Encoder
from ndp_edge.model.msdsm import MSDSM
from ndp_edge.model.rbam import RBAM

MEAN_WINDOW = 5
"""Side of the mean filter over the final map (paper III-D)."""


@dataclass
class Output:
    """What one forward pass of the whole net gives; training needs every part.

    Attributes:
        logits: MSDSM's logits at three scales, [N, 1, H / 2^i, W / 2^i].
        reconstruction: [N, 3, H, W] in [0, 1].
        repaired: RBAM outputs at stages 3, 4, 5.
        features: the encoder's five maps of the image.
    """

    logits: list[Tensor]
    reconstruction: Tensor
    repaired: list[Tensor]
    features: list[Tensor]


class NDPNet(nn.Module):
    """The net of `config`. Reference maps are buffers; `set_reference` fills them."""

    def __init__(self, config: NdpConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.channels)
        self.rbam = nn.ModuleList(
            RBAM(
                config.channels[s - 1], config.ffm_channels, config.ffm_kernel, config.softmax_scale
            )
            for s in RBAM_STAGES
        )
        self.decoder = Decoder(config.channels)
        self.msdsm = MSDSM(config.channels)
        for s in RBAM_STAGES:
            side = config.stage_size(s)
            self.register_buffer(
                f"reference{s}", torch.zeros(1, config.channels[s - 1], side, side)
            )

    @property
    def references(self) -> list[Tensor]:
        """Reference maps of stages 3, 4, 5, each [1, C, h, w]."""
        return [self.get_buffer(f"reference{s}") for s in RBAM_STAGES]

    @torch.no_grad()
    def set_reference(self, image: Tensor) -> None:
        """Encode the fixed reference image [1, 3, image_size, image_size] into the buffers.

        The encoder must be final (phase 2): its batch norms are used in eval mode.
        """
        mode = self.encoder.training
        self.encoder.eval()
        for buffer, features in zip(self.references, self.encoder(image)[2:], strict=True):
            buffer.copy_(features)
        self.encoder.train(mode)

    def repair(self, features: list[Tensor]) -> list[Tensor]:
        """RBAM over the maps of stages 3, 4, 5."""
        return [rbam(f, r) for rbam, f, r in zip(self.rbam, features, self.references, strict=True)]

    def analyse(self, image: Tensor) -> Output:
        """One pass over images [N, 3, H, W] in [0, 1], H and W multiples of 64.

        Stages 1-3 of the image come from the first encoding; only the reconstruction is
        encoded again, and only to stage 3.
        """
        if (
            image.ndim != 4
            or image.shape[1] != 3
            or any(s % STRIDE or not s for s in image.shape[2:])
        ):
            raise InputError(
                f"images of shape {tuple(image.shape)}: "
                f"wanted [N, 3, H, W], sides multiples of {STRIDE}"
            )
        features = self.encoder(image)
        repaired = self.repair(features[2:])
        reconstruction = self.decoder(*repaired)
        logits = self.msdsm(features[:3], self.encoder(reconstruction, depth=3))
        return Output(logits, reconstruction, repaired, features)

    def forward(self, image: Tensor) -> Tensor:
        """Images [N, 3, H, W] in [0, 1] to the map of eq. 11 after the 5x5 mean, [N, 1, H, W]."""
        return mean_filter(combine(self.analyse(image).logits, self.config.map_weights))


def combine(logits: list[Tensor], weights: tuple[float, float, float]) -> Tensor:
    """Eq. 11: lambda-weighted sum of the three maps, bilinear to full size, [N, 1, H, W]."""
    size = logits[0].shape[-2:]
    maps = [torch.sigmoid(x) for x in logits]
    total = weights[0] * maps[0]
    for weight, small in zip(weights[1:], maps[1:], strict=True):
        up = F.interpolate(small, size=size, mode="bilinear", align_corners=False)
        total = total + weight * up
    return total


def mean_filter(maps: Tensor) -> Tensor:
    """The 5x5 mean over [N, 1, H, W]; at the border over the pixels that exist."""
    pad = MEAN_WINDOW // 2
    return F.avg_pool2d(maps, MEAN_WINDOW, 1, pad, count_include_pad=False)
