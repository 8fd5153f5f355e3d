"""torch as a contender: the net as it was trained, eager or compiled, on the CPU or a card.

torch is imported inside the functions: the command runs without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ndp_edge.errors import MachineError
from ndp_edge.model.config import NdpConfig

if TYPE_CHECKING:
    from torch import nn

Infer = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def torch_infer(
    config: NdpConfig, *, compiled: bool, threads: int | None
) -> tuple[Infer, dict[str, Any]]:
    """NDP-Net of this shape with fresh weights (they do not matter for speed), FP32.

    Args:
        compiled: through torch.compile; the first call of each batch size then takes minutes.
        threads: None leaves them to torch. They are the process's, not this net's.

    Raises:
        MachineError: there is no torch.
    """
    try:
        import torch

        from ndp_edge.model.network import NDPNet
    except ImportError as error:
        raise MachineError('torch is missing: pip install "ndp-edge[train]"') from error
    torch.manual_seed(0)
    net = NDPNet(config).eval()
    side = config.image_size
    net.set_reference(torch.rand(1, 3, side, side))
    return module_infer(net, compiled=compiled, threads=threads)


def module_infer(
    net: nn.Module, *, compiled: bool = False, threads: int | None = None
) -> tuple[Infer, dict[str, Any]]:
    """Any torch net from images [N, 3, H, W] in [0, 1] to maps [N, 1, H, W], and what it is.

    Runs on the first CUDA card where there is one, transfers included.
    """
    import torch

    if threads:
        torch.set_num_threads(threads)
    card = torch.cuda.is_available()
    device = torch.device("cuda" if card else "cpu")
    net = net.to(device).eval()
    run: Any = torch.compile(net) if compiled else net

    def infer(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            x = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).contiguous()
            maps: NDArray[np.float32] = run(x.float() / 255)[:, 0].cpu().numpy()
        return maps

    about = {
        "backend": "torch-compile" if compiled else "torch",
        "precision": "fp32",
        "device": torch.cuda.get_device_name(0) if card else "CPU",
        "card": card,
        "threads": threads or 0,
        "versions": {"torch": str(torch.__version__)},
    }
    return infer, about
