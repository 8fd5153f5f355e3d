"""The running average of a phase's weights (EMA): what a checkpoint may hold in their place.

The last step's weights are one noisy sample of many equally good ones; their average lies nearer
the middle (Polyak and Juditsky 1992; Tarvainen and Valpola 2017). Not in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

PREFIX = "average."
_COUNT = "n_averaged"


class Average:
    """The average of one phase, beginning with its first step.

    Args:
        net: on its device, in the phase's mode.
        decay: of the average, in (0, 1). At step n the smaller of it and (1 + n) / (10 + n) is
            taken: the weights that the phase began with must not linger.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        # All tensors at once: n may be on a device, and reading it waits for that.
        def mean(averages: Sequence[Tensor], now: Sequence[Tensor], n: Tensor | int) -> None:
            step = int(n)
            kept = min(decay, (1 + step) / (10 + step))
            if averages[0].is_floating_point():  # torch sorts the tensors by their dtype
                torch._foreach_lerp_(list(averages), list(now), 1 - kept)
            else:  # batch norm's counter
                torch._foreach_copy_(list(averages), list(now))

        self._model = AveragedModel(net, multi_avg_fn=mean, use_buffers=True)

    def update(self, net: nn.Module) -> None:
        """Take in the weights and batch-norm statistics after one step."""
        self._model.update_parameters(net)

    def weights(self) -> dict[str, Tensor]:
        """The average under the net's own state_dict names."""
        return dict(self._model.module.state_dict())

    def state(self) -> dict[str, Tensor]:
        """What `restore` takes, under names that begin with PREFIX."""
        kept = {f"{PREFIX}{name}": value for name, value in self.weights().items()}
        return kept | {f"{PREFIX}{_COUNT}": self._model.n_averaged}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from a `state`."""
        mine = {k.removeprefix(PREFIX): v for k, v in tensors.items() if k.startswith(PREFIX)}
        self._model.n_averaged.copy_(mine.pop(_COUNT))
        self._model.module.load_state_dict(mine)
