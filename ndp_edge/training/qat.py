"""`train --qat`: fine-tune a trained net so that its int8 form does what its float form did.

The target is the checkpoint's own float answer, not the masks: what INT8 took away is to come
back, and nothing new is to be learnt. Encoder and batch-norm statistics stay as they are;
RBAM, decoder and MSDSM are trained through `Deployed`, with ranges calibrated on good pictures
of the train split. `build --int8` takes the result as any checkpoint and calibrates it anew.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ndp_edge import losses
from ndp_edge.model.network import NDPNet, combine
from ndp_edge.training.batches import Batch, as_unit, nchw
from ndp_edge.training.deployed import Deployed
from ndp_edge.training.loop import Run, Trainer
from ndp_edge.training.phases import Parts, set_phase
from ndp_edge.training.rounding import Observed, Rounded
from ndp_edge.training.stepping import as_tensor

PHASE = 2
"""Counted from 0: what comes after the paper's two."""

CALIBRATING = 64
"""At most so many pictures give the ranges, as in a build (`calib.sample.MOST`)."""

CHECKS = 4
"""Batches, never trained on, by which INT8 is compared with the checkpoint before and after."""


def calibrate(net: NDPNet, images: NDArray[np.uint8], device: str = "cpu") -> Rounded:
    """Rounding with the extremes that good pictures reach.

    Args:
        net: in eval mode, on `device`.
        images: uint8 [N, S, S, 3], good product; at most CALIBRATING of them are looked at,
            evenly spaced.
    """
    observed = Observed()
    deployed = Deployed(net, observed)
    chosen = np.unique(np.linspace(0, len(images) - 1, CALIBRATING).round().astype(int))
    with torch.no_grad():
        for i in chosen:
            deployed.analyse(torch.from_numpy(nchw([as_unit(images[i])])).to(device))
    return Rounded(observed.ranges, device)


class Finetuner(Trainer):
    """Phase 3 of a run.

    Args:
        run: as for `Trainer`; `run.options.steps` has three entries.
        teacher: the checkpoint's net.
        resume: go on from the state in the run's folder, where there is one.
    """

    capture = False  # rounding reads its ranges from Python

    def __init__(self, run: Run, teacher: NDPNet, *, resume: bool) -> None:
        # Ranges and target come from the checkpoint, also where the net is a resumed one.
        self.teacher = teacher.to(run.device).requires_grad_(False).eval()
        super().__init__(run, resume=resume, net=copy.deepcopy(self.teacher), phase=PHASE)
        self.rounding = calibrate(self.teacher, run.batches.images, run.device)
        self.deployed = Deployed(self.net, self.rounding)
        self.before = self.error(Deployed(self.teacher, self.rounding))
        self.after: float | None = None
        self.drift: float | None = None

    def error(self, other: Deployed | NDPNet) -> float:
        """RMS distance of maps in [0, 1] from the checkpoint's float ones, over CHECKS batches."""
        squares = []
        with torch.no_grad():
            for i in range(CHECKS):
                image = self._mixed(self.run.batches.make(PHASE + 1, i))
                found = other.maps(image) if isinstance(other, Deployed) else other(image)
                squares.append(float(F.mse_loss(found, self.teacher(image))))
        return float(np.sqrt(np.mean(squares)))

    def _mixed(self, batch: Batch) -> Tensor:
        return mixed(*(as_tensor(x, self.run.device) for x in (batch.good, batch.bad)))

    def _enter(self) -> list[nn.Parameter]:
        parameters = set_phase(self.net, 1)
        self.net.eval()  # batch norms are folded with their running statistics
        return parameters

    def _parts(self, good: Tensor, bad: Tensor, mask: Tensor) -> tuple[Parts, list[Tensor]]:
        image = mixed(good, bad)
        with torch.no_grad():
            target = self.teacher.analyse(image)
        out = self.deployed.analyse(image)
        parts = {
            "rec": losses.reconstruction(target.reconstruction, out.reconstruction),
            "fea_rep": losses.feature_repair(out.repaired, target.repaired),
            "seg": losses.agreement(out.logits, target.logits),
        }
        weights = self.run.config.map_weights
        maps = [combine(one.logits, weights) for one in (out, target)]
        return parts, [image, out.reconstruction, *maps]

    def _record(self, *, finished: bool) -> dict[str, Any]:
        told: dict[str, Any] = {"map_rms_before": self.before}
        if finished:
            self.after, self.drift = self.error(self.deployed), self.error(self.net)
            told |= {"map_rms_after": self.after, "map_rms_float": self.drift}
        record = super()._record(finished=finished)
        return record | {"qat": record["qat"] | told}


def mixed(good: Tensor, bad: Tensor) -> Tensor:
    """Every second picture a good one: false rejects are made there."""
    odd = torch.arange(len(bad), device=bad.device).reshape(-1, 1, 1, 1) % 2 == 1
    return torch.where(odd, good, bad)
