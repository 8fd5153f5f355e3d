"""Other papers' nets beside ours, for their latency alone.

Written from the papers, with random weights: no weights can be had where these figures were
made, so nothing here tells accuracy. torch is imported when they are opened.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_edge.errors import InputError, MachineError

Infer = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

SIZE = 256

NOTE = (
    "draem, stfpm, efficientad-s, patchcore: architectures from their papers with random weights, "
    "latency only; patchcore with a memory bank of 10 % of the patches of 260 pictures"
)


def open_peers(size: int, threads: int | None) -> dict[str, tuple[Infer, dict[str, Any]]]:
    """Every peer in torch eager and, on a machine with OpenVINO, in OpenVINO FP32.

    Args:
        size: side of the square frames.
        threads: of a CPU; None leaves it to the backend.

    Returns:
        "draem/torch-fp32" and so on -> its inference, uint8 [N, size, size, 3] to float32
        [N, size, size], and what distinguishes its figures.

    Raises:
        InputError: another size than the nets are made for.
        MachineError: there is no torch.
    """
    if size != SIZE:
        raise InputError(f"--peers: their nets take {SIZE} px, this one {size}")
    try:
        from ndp_edge.bench.peers.draem import Draem
        from ndp_edge.bench.peers.efficientad import EfficientAdS
        from ndp_edge.bench.peers.opened import open_peer
        from ndp_edge.bench.peers.patchcore import PatchCore
        from ndp_edge.bench.peers.stfpm import Stfpm
    except ImportError as error:
        raise MachineError('--peers needs torch: pip install "ndp-edge[train]"') from error
    found: dict[str, tuple[Infer, dict[str, Any]]] = {}
    nets = {
        "draem": Draem,
        "stfpm": Stfpm,
        "efficientad-s": EfficientAdS,
        "patchcore": PatchCore,
    }
    for name, net in nets.items():
        found |= open_peer(name, net(), size, threads)
    return found
