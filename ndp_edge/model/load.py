"""A checkpoint back into torch: to go on from, to learn from, to check a graph against."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ndp_edge.checkpoint import Checkpoint
from ndp_edge.errors import InputError, MachineError

if TYPE_CHECKING:
    from ndp_edge.model.network import NDPNet

NEED_TORCH = 'torch is not installed; pip install "ndp-edge[train]"'


def load_net(checkpoint: Checkpoint) -> NDPNet:
    """The NDPNet of a checkpoint, on the CPU in eval mode.

    Raises:
        MachineError: there is no torch.
        InputError: the weights' names or shapes are not the configuration's; the first wrong
            one is named.
    """
    try:
        import torch  # the default install has none

        from ndp_edge.model.network import NDPNet  # imports torch
    except ImportError as error:
        raise MachineError(NEED_TORCH) from error
    net = NDPNet(checkpoint.config)
    state = net.state_dict()
    for name in sorted(state.keys() | checkpoint.weights.keys()):
        if name not in checkpoint.weights:
            raise InputError(f"the checkpoint has no {name}; it is not of this configuration")
        if name not in state:
            raise InputError(f"the checkpoint's {name} has no place in this configuration")
        found, wanted = checkpoint.weights[name].shape, tuple(state[name].shape)
        # A counter of shape [] comes back from a file as [1].
        if found != wanted and (found, wanted) != ((1,), ()):
            raise InputError(f"the checkpoint's {name} has shape {found}, wanted {wanted}")
        state[name] = torch.from_numpy(np.array(checkpoint.weights[name])).reshape(wanted)
    net.load_state_dict(state)
    return net.eval()
