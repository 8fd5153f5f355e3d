"""The state of a run on disk: weights and optimiser in one safetensors file, written atomically."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.optim import Optimizer

from ndp_edge.errors import InputError
from ndp_edge.files import write_atomic
from ndp_edge.model.network import NDPNet
from ndp_edge.training.averaging import Average
from ndp_edge.training.options import STATE_NAME


def save_state(
    folder: Path,
    net: NDPNet,
    optimiser: Optimizer | None,
    average: Average | None,
    phase: int,
    step: int,
    run: str,
) -> None:
    """Everything that the next step depends on; batches depend on the seed alone.

    Without an optimiser the next step starts with a fresh one, as the first of a phase does; so
    it does without an average.
    """
    tensors: dict[str, Tensor] = {f"net.{k}": v.contiguous() for k, v in net.state_dict().items()}
    moments = optimiser.state_dict()["state"] if optimiser is not None else {}
    for i, values in moments.items():
        tensors |= {
            f"optimiser.{i}.{k}": torch.as_tensor(v).contiguous() for k, v in values.items()
        }
    if average is not None:
        tensors |= {k: v.contiguous() for k, v in average.state().items()}
    metadata = {"phase": str(phase), "step": str(step), "run": run}
    write_atomic(folder / STATE_NAME, safetensors.torch.save(tensors, metadata))


class SavedState:
    """A state read back. `phase` and `step` say which step comes next."""

    def __init__(self, folder: Path, run: str) -> None:
        """Raises InputError when the file is damaged or belongs to another run."""
        path = folder / STATE_NAME
        try:
            with safe_open(path, framework="pt") as handle:
                metadata = handle.metadata() or {}
                names = handle.keys()  # a handle is no dict
                self.tensors: dict[str, Tensor] = {k: handle.get_tensor(k) for k in names}
        except (SafetensorError, OSError) as error:
            raise InputError(f"cannot resume from {path}: {error}") from error
        if metadata.get("run") != run:
            raise InputError(
                f"{path} belongs to a run with other options, preset or data; "
                "resume with the same ones, or choose another --out"
            )
        self.phase, self.step = int(metadata["phase"]), int(metadata["step"])

    def restore_net(self, net: NDPNet) -> None:
        """Weights, batch-norm statistics and reference maps."""
        net.load_state_dict({k[4:]: v for k, v in self.tensors.items() if k.startswith("net.")})

    def restore_optimiser(self, optimiser: Optimizer) -> None:
        """Adam's moments and step counts."""
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in self.tensors.items():
            if name.startswith("optimiser."):
                _, index, key = name.split(".")
                state.setdefault(int(index), {})[key] = value
        optimiser.load_state_dict(
            {"state": state, "param_groups": optimiser.state_dict()["param_groups"]}
        )
