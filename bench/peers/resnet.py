"""The part of ResNet-18 and Wide ResNet-50-2 that feature-matching methods use: to stage 3."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


def _conv(inside: int, outside: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outside),
    )


class _Block(nn.Module):
    """x + f(x), f being two 3x3 convolutions or a bottleneck of 1x1, 3x3, 1x1."""

    def __init__(self, inside: int, middle: int, outside: int, stride: int, deep: bool) -> None:
        super().__init__()
        relu = nn.ReLU(inplace=True)
        if deep:
            parts = [
                _conv(inside, middle, 1), relu, _conv(middle, middle, 3, stride), relu,
                _conv(middle, outside, 1),
            ]  # fmt: skip
        else:
            parts = [_conv(inside, outside, 3, stride), relu, _conv(outside, outside, 3)]
        self.body = nn.Sequential(*parts)
        same = stride == 1 and inside == outside
        self.skip = nn.Identity() if same else _conv(inside, outside, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.skip(x))


class ResNet(nn.Module):
    """Images [N, 3, H, W] to the maps of stages 1 to 3 (a 4th, 8th and 16th of the size).

    Args:
        blocks: residual blocks in each of the three stages.
        width: middle channels of the first stage.
        out: output channels of the first stage.
        deep: bottleneck blocks.
    """

    def __init__(self, blocks: tuple[int, int, int], width: int, out: int, deep: bool) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(3, 64, 7, 2), nn.ReLU(inplace=True))
        stages, inside = [], 64
        for i, count in enumerate(blocks):
            middle, outside = width << i, out << i
            first = _Block(inside, middle, outside, 2 if i else 1, deep)
            rest = [_Block(outside, middle, outside, 1, deep) for _ in range(count - 1)]
            stages.append(nn.Sequential(first, *rest))
            inside = outside
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The three maps."""
        x = F.max_pool2d(self.stem(x), 3, 2, 1)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


def resnet18() -> ResNet:
    """He et al. 2016: two basic blocks a stage; 64, 128, 256 channels."""
    return ResNet((2, 2, 2), 64, 64, deep=False)


def wide_resnet50() -> ResNet:
    """Zagoruyko and Komodakis 2016, factor 2: 3, 4, 6 bottlenecks; 256, 512, 1024 channels."""
    return ResNet((3, 4, 6), 128, 256, deep=True)
