"""The peers are the papers' architectures: sizes that others report, maps of the image's size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ndp_edge.bench import contenders, peers  # noqa: E402
from ndp_edge.bench.peers.draem import Draem  # noqa: E402
from ndp_edge.bench.peers.efficientad import EfficientAdS  # noqa: E402
from ndp_edge.bench.peers.opened import open_peer  # noqa: E402
from ndp_edge.bench.peers.patchcore import PatchCore  # noqa: E402
from ndp_edge.bench.peers.resnet import wide_resnet50  # noqa: E402
from ndp_edge.bench.peers.stfpm import Stfpm  # noqa: E402
from ndp_edge.errors import InputError  # noqa: E402


@pytest.mark.parametrize(
    ("net", "millions"),
    # DRAEM's 97.42 and EfficientAD-S's 8.06 are what other implementations report; the
    # ResNets' follow from He et al. and from Zagoruyko and Komodakis, without the 4th stage.
    [(Draem, 97.42), (EfficientAdS, 8.06), (Stfpm, 2 * 2.7828), (wide_resnet50, 24.86)],
)
def test_parameters(net: Callable[[], torch.nn.Module], millions: float) -> None:
    with torch.device("meta"):  # no memory, no random numbers
        made = net()
    assert sum(p.numel() for p in made.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize(
    ("net", "size"), [(Draem, 32), (EfficientAdS, 256), (Stfpm, 64)], ids=["draem", "ead", "stfpm"]
)
def test_maps_have_the_images_size(net: Callable[[], torch.nn.Module], size: int) -> None:
    with torch.inference_mode():
        maps = net().eval()(torch.rand(1, 3, size, size))
    assert maps.shape == (1, 1, size, size)
    assert torch.isfinite(maps).all()
    assert maps.std() > 0


def test_patchcore_finds_the_nearest() -> None:
    """Its distances against torch's own."""
    net = PatchCore(20).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        _, fine, coarse = net.backbone(image)
        fine, coarse = (torch.nn.functional.avg_pool2d(m, 3, 1, 1) for m in (fine, coarse))
        coarse = torch.nn.functional.interpolate(coarse, fine.shape[-2:], mode="bilinear")
        patches = torch.cat([fine, coarse], 1).flatten(2).transpose(1, 2)[0]
        wanted = torch.cdist(patches, net.get_buffer("bank")).amin(1).reshape(1, 1, 8, 8)
        wanted = torch.nn.functional.interpolate(wanted, (64, 64), mode="bilinear")
        found = net(image)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


class Small(torch.nn.Module):
    """Of a peer's form, and quick to convert."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 1, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] to [N, 1, H, W]."""
        return self.conv(x).sigmoid()


def test_both_forms_of_a_peer_answer_alike() -> None:
    torch.manual_seed(0)
    opened = open_peer("small", Small(), 64, None)
    images = contenders.noise(2, 64)
    answers = {name: infer(images) for name, (infer, _) in opened.items()}
    assert set(answers) == {"small/torch-fp32", "small/openvino-fp32"}
    first, second = answers.values()
    assert first.shape == (2, 64, 64)
    assert first.std() > 0.01
    np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-5)


def test_other_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="256"):
        peers.open_peers(128, None)
