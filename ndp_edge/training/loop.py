"""The training loop: both phases, state saved as it goes, resumable at any step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm  # type: ignore[import-untyped]

from ndp_edge import checkpoint
from ndp_edge.errors import NdpError
from ndp_edge.model.config import NdpConfig
from ndp_edge.model.network import NDPNet, Output, combine
from ndp_edge.training.averaging import Average
from ndp_edge.training.batches import Batches, as_unit, nchw
from ndp_edge.training.log import MetricsLog, sample_sheet
from ndp_edge.training.options import STATE_NAME, TrainOptions
from ndp_edge.training.perceptual import Perceptual
from ndp_edge.training.phases import Parts, phase_one, phase_two, set_phase
from ndp_edge.training.state import SavedState, save_state
from ndp_edge.training.stepping import Steps, Told, make_optimiser


@dataclass
class Run:
    """One training run and where it keeps things.

    Attributes:
        folder: where state, checkpoint, metrics and samples go.
        config, options: the net and the asked-for training.
        batches: where crops and defects come from.
        reference: the reference image, uint8 [S, S, 3].
        perceptual: the loss of eq. 13 and 16, or None.
        identity: text that a state must carry to be resumed.
        record: what the checkpoint says about its training.
        device: "cpu" or "cuda".
        workers: processes that make batches; 0 is a thread of this one.
        compile: put the net's parts through torch.compile.
    """

    folder: Path
    config: NdpConfig
    options: TrainOptions
    batches: Batches
    reference: np.ndarray[Any, np.dtype[np.uint8]]
    perceptual: Perceptual | None
    identity: str
    record: dict[str, Any]
    device: str = "cpu"
    workers: int = 0
    compile: bool = False


class Trainer:
    """Runs a `Run` to its end.

    Args:
        run: what to do.
        resume: go on from the state in the run's folder, where there is one.
        net: the net to begin with; by default a fresh one.
        phase: the phase to begin with, counted from 0.
    """

    capture = True
    """Whether `_parts` may be captured in a CUDA graph."""

    def __init__(
        self, run: Run, *, resume: bool, net: NDPNet | None = None, phase: int = 0
    ) -> None:
        self.run = run
        torch.manual_seed(run.options.seed)
        net = NDPNet(run.config) if net is None else net
        torch.backends.cudnn.benchmark = True  # shapes stay as they are
        self.net: NDPNet = net.to(run.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if run.perceptual is not None:
            run.perceptual.to(run.device)
        self.saved = None
        self.phase, self.step = phase, 0
        if resume and (run.folder / STATE_NAME).exists():
            self.saved = SavedState(run.folder, run.identity)
            self.saved.restore_net(self.net)
            self.phase, self.step = self.saved.phase, self.saved.step
        self.log = MetricsLog(run.folder, self.phase, self.step)

    def train(self, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Train until done (True) or until `stopped` says so (False; state is saved)."""
        try:
            while self.phase < len(self.run.options.steps):
                if not self._phase(stopped):
                    return False
                self.phase, self.step, self.saved = self.phase + 1, 0, None
        finally:
            self.log.close()
        return True

    def _phase(self, stopped: Callable[[], bool]) -> bool:
        o = self.run.options
        parameters = self._enter()
        optimiser = make_optimiser(parameters, o, self.run.device)
        if self.saved is not None:
            self.saved.restore_optimiser(optimiser)
        average = self._average()
        device = self.run.device
        steps = Steps(self._parts, optimiser, o.amp, device, capture=self.capture)
        total = o.steps[self.phase]
        bar = tqdm(total=total, initial=self.step, desc=f"phase {self.phase + 1}", unit="step")
        with bar:
            for batch in self.run.batches.stream(self.phase, self.step, self.run.workers):
                losses = self._tell(steps(batch, o.learning_rate(self.phase, self.step)))
                if average is not None:
                    average.update(self.net)
                bar.update()
                bar.set_postfix(loss=f"{losses['total']:.4f}", refresh=False)
                self.step += 1
                stop = stopped()
                if stop or self.step % o.save_every == 0 or self.step == total:
                    self._save(optimiser, average)
                if stop:
                    return False
        return True

    def _enter(self) -> list[nn.Parameter]:
        """Make the net ready for the phase; returns what the phase trains."""
        parameters = set_phase(self.net, self.phase)
        if self.phase == 1 and self.step == 0:
            image = torch.from_numpy(nchw([as_unit(self.run.reference)])).to(self.run.device)
            self.net.set_reference(image)
        if self.run.compile:
            for module in (self.net.encoder, *self.net.rbam, self.net.decoder, self.net.msdsm):
                module.compile(dynamic=False)
        return parameters

    def _average(self) -> Average | None:
        """The running average of this phase, where one is asked for."""
        if not self.run.options.ema:
            return None
        average = Average(self.net, self.run.options.ema)
        if self.saved is not None and self.step:
            average.restore(self.saved.tensors)
        return average

    def _parts(self, good: Tensor, bad: Tensor, mask: Tensor) -> tuple[Parts, list[Tensor]]:
        """The terms of the loss, and the rows of a sample sheet (phase 1 has none)."""
        perceptual = self.run.perceptual
        if self.phase == 0:
            return phase_one(self.net, good, bad, mask, perceptual), []
        parts, out = self._second(good, bad, mask)
        maps = combine(out.logits, self.run.config.map_weights)
        return parts, [bad, out.reconstruction, maps, mask]

    def _second(self, good: Tensor, bad: Tensor, mask: Tensor) -> tuple[Parts, Output]:
        """The terms of phase 2, and what the net gave for `bad`."""
        return phase_two(self.net, good, bad, mask, self.run.perceptual)

    def _tell(self, told: Told) -> dict[str, float]:
        """The step's losses, checked and written down; now and then a sample sheet."""
        o = self.run.options
        values = dict(zip(told.names, told.values.tolist(), strict=True))
        if not math.isfinite(values["total"]):
            raise NdpError(
                f"the loss of phase {self.phase + 1}, step {self.step} is {values['total']}; "
                "lower --lr and resume from the last saved state"
            )
        offset = sum(o.steps[: self.phase])
        self.log.write(self.phase, self.step, values, offset)
        if told.rows and self.step % o.sample_every == 0:
            sheet = sample_sheet(told.rows)
            name = f"step-{offset + self.step:06d}.png"
            self.log.picture(self.run.folder / "samples" / name, sheet, offset + self.step)
        return values

    def _save(self, optimiser: torch.optim.Optimizer, average: Average | None) -> None:
        """State first: a kill between the two leaves a checkpoint one interval older.

        A phase ends in its average: phase 2 begins with the average of phase 1.
        """
        folder, run = self.run.folder, self.run.identity
        last = self.step == self.run.options.steps[self.phase]
        if last and average is not None:
            self.net.load_state_dict(average.weights())
        if not last:
            save_state(folder, self.net, optimiser, average, self.phase, self.step, run)
        elif self.phase == 0:
            save_state(folder, self.net, None, None, 1, 0, run)
        if self.phase >= 1:
            weights = self.net.state_dict() if average is None else average.weights()
            self._save_checkpoint(weights, finished=last)

    def _record(self, *, finished: bool) -> dict[str, Any]:
        """What the checkpoint says about its training, less what every one says."""
        return self.run.record

    def _save_checkpoint(self, tensors: Mapping[str, Tensor], *, finished: bool) -> None:
        weights = {k: v.detach().cpu().numpy() for k, v in tensors.items()}
        record = self._record(finished=finished) | {
            "finished": finished,
            "phase": self.phase + 1,
            "step": self.step,
            "torch": torch.__version__,
        }
        checkpoint.save(
            self.run.folder / checkpoint.CHECKPOINT_NAME,
            checkpoint.Checkpoint(self.run.config, weights, record),
        )
