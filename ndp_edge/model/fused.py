"""The net for inference with the kernels in the place of RBAM's own arithmetic."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from ndp_edge.errors import InputError
from ndp_edge.model.network import NDPNet
from ndp_edge.model.operators import ffm_select, prepare, rbfrm
from ndp_edge.model.rbam import RBAM


class FusedRBAM(nn.Module):
    """An RBAM by the operators; what depends on the reference alone is a buffer."""

    def __init__(self, plain: nn.Module, reference: Tensor) -> None:
        super().__init__()
        if not isinstance(plain, RBAM):
            raise InputError("this net is fused already; fuse the net it came from")
        self.softmax_scale = plain.softmax_scale
        self.ffm = plain.ffm
        self.register_buffer("prepared", prepare(reference))

    def forward(self, features: Tensor, reference: Tensor) -> Tensor:
        """`reference` is the map that `prepared` was made of."""
        prepared = self.get_buffer("prepared")
        rep2, rep4, fused = rbfrm(features, reference, prepared, self.softmax_scale)
        logits = self.ffm.attend(self.ffm.squeeze(fused))
        selected: Tensor = ffm_select(logits, rep4, rep2, features)
        return selected


def fuse(net: NDPNet) -> NDPNet:
    """A copy of `net` for inference, its RBAMs by the operators; the same numbers.

    The copy is in eval mode and takes no gradients. Its references are prepared as they stand,
    in the net's type: bring the net to its final type first, and fuse again after
    `set_reference`, `load_state_dict` or `.half()` (the last is refused, not wrong).

    Raises:
        InputError: a net that is fused already, one that is not float32 or float16, or a
            reference with NaN or infinity.
    """
    fused = copy.deepcopy(net).eval().requires_grad_(False)
    pairs = zip(list(fused.rbam), fused.references, strict=True)
    fused.rbam = nn.ModuleList(FusedRBAM(plain, reference) for plain, reference in pairs)
    return fused
