"""The perceptual loss of eq. 13 and 16: L1 between VGG-16 feature maps.

The weights are torchvision's ImageNet ones. They come from a file the user names, or from
torch's hub cache, or from their official address; where none can be had, training says so
and goes on without the term.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ndp_edge.errors import InputError

WEIGHTS_URL = "https://download.pytorch.org/models/vgg16-397923af.pth"
CONVS = ((0, 3, 64), (2, 64, 64), (5, 64, 128), (7, 128, 128), (10, 128, 256),
         (12, 256, 256), (14, 256, 256), (17, 256, 512), (19, 512, 512), (21, 512, 512),
         (24, 512, 512))  # fmt: skip
"""(index in torchvision's `features`, in, out) of each convolution up to relu5_1."""

POOL_BEFORE = frozenset({5, 10, 17, 24})
LAYERS = {"first5": (0, 2, 5, 7, 10), "block-heads": (0, 5, 10, 17, 24)}
"""ReLU maps compared: the first five (the paper), or relu1_1, 2_1, 3_1, 4_1, 5_1."""


class Perceptual(nn.Module):
    """Mean over five ReLU maps of the mean absolute difference; frozen.

    Args:
        state: `features.<i>.weight` and `.bias` as in torchvision's vgg16.
        layers: a key of LAYERS.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, state: dict[str, Tensor], layers: str = "first5") -> None:
        super().__init__()
        if layers not in LAYERS:
            raise InputError(f"no perceptual layers {layers!r}; there are {', '.join(LAYERS)}")
        self.wanted = LAYERS[layers]
        self.convs = nn.ModuleDict()
        for index, c_in, c_out in CONVS:
            if index > self.wanted[-1]:
                break
            conv = nn.Conv2d(c_in, c_out, 3, padding=1)
            try:
                conv.load_state_dict(
                    {k: state[f"features.{index}.{k}"] for k in ("weight", "bias")}
                )
            except (KeyError, RuntimeError) as error:
                raise InputError(
                    f"not VGG-16 weights: layer {index}: {error}".splitlines()[0]
                ) from error
            self.convs[str(index)] = conv
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        self.requires_grad_(False)

    def maps(self, image: Tensor) -> list[Tensor]:
        """The five ReLU maps of images [N, 3, H, W] in [0, 1]."""
        found = []
        x = (image - self.mean) / self.std
        for name, conv in self.convs.items():
            if int(name) in POOL_BEFORE:
                x = nn.functional.max_pool2d(x, 2)
            x = torch.relu(conv(x))
            if int(name) in self.wanted:
                found.append(x)
        return found

    def forward(self, image: Tensor, reconstructed: Tensor) -> Tensor:
        with torch.no_grad():
            target = self.maps(image)
        terms = [
            nn.functional.l1_loss(a, b)
            for a, b in zip(self.maps(reconstructed), target, strict=True)
        ]
        return torch.stack(terms).mean()


def read_weights(path: Path) -> dict[str, Tensor]:
    """A torchvision vgg16 file (tensors only, nothing executable is unpickled).

    Raises:
        InputError: missing or not such a file.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds, an unpickling error among them
        raise InputError(f"cannot read VGG-16 weights {path}: {str(error)[:100]}") from error
    if not isinstance(state, dict):
        raise InputError(f"{path} is not a state dict of VGG-16")
    return state


def find_weights() -> tuple[dict[str, Tensor] | None, str]:
    """(weights, where from) by torch's hub cache or the official address; (None, why not)."""
    try:
        state = torch.hub.load_state_dict_from_url(
            WEIGHTS_URL, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError, ValueError) as error:
        return None, f"no VGG-16 weights in torch's hub cache or at their address ({error})"
    return state, "torch hub"


def make_perceptual(choice: str, file: Path | None, layers: str) -> tuple[Perceptual | None, str]:
    """(loss or None, one line for the log and the checkpoint).

    Raises:
        InputError: a named file is wrong, or "vgg16" was demanded and cannot be had.
    """
    if choice == "none":
        return None, "none (asked for)"
    if file is not None:
        return Perceptual(read_weights(file), layers), f"vgg16 {layers} from {file.name}"
    state, told = find_weights()
    if state is None:
        if choice == "vgg16":
            raise InputError(f"{told}; name a file with --vgg-weights, or use --perceptual none")
        return None, f"none: {told}"
    return Perceptual(state, layers), f"vgg16 {layers} from {told}"
