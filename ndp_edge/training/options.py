"""What a training run was asked to do; kept in its state so that a resumed run is the same run."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass

from ndp_edge.errors import InputError

STATE_NAME = "state.safetensors"
AMP = ("none", "bf16")
REFERENCES = ("first", "typical")
# What may differ between a run and its resumption without making it another run.
FREE = frozenset({"save_every", "sample_every", "perceptual"})


@dataclass(frozen=True)
class TrainOptions:
    """Attributes:
    steps: optimiser steps of phase 1, phase 2 and, where it is asked for, `--qat`'s phase 3.
    batch_size: good images a step (phase 1 sends as many artificial ones through with them).
    lr, weight_decay: Adam's.
    schedule: "constant" (the paper) or "cosine" (warm-up over 3 %, then down to lr / 100).
    crop: side of the random training crops; the image size means whole images.
    opacity: range of the pasted defects' opacity; (1, 1) is the paper.
    structural: share of defects made from the surface itself (blurred, turned, shifted, dimmed)
        instead of a pasted picture; 0 is the paper.
    lines: share of defects that are thin dimmed or lit lines; 0 is the paper.
    margin: pixels by which phase 2's masks reach beyond the defect, for surfaces whose own masks
        are coarse; 0 is the paper.
    colour: defects pasted on a gray surface may have colour.
    reference: "first" (of the good pictures, by name) or "typical": the one nearest the mean of
        their gray values' statistics (`reference.choose`).
    seed: of weights, order, crops and defects.
    amp: "none", or "bf16": convolutions and products in bfloat16, weights, optimiser, losses and
        batch-norm statistics in float32.
    ema: decay of the running average of the weights that a phase ends in; 0 (the paper): the last
        step's weights.
    perceptual: "auto", "vgg16" or "none".
    save_every, sample_every: steps between saved states and between sample pictures.
    """

    steps: tuple[int, ...]
    batch_size: int = 4
    lr: float = 1e-4
    weight_decay: float = 1e-5
    schedule: str = "constant"
    crop: int = 256
    opacity: tuple[float, float] = (1.0, 1.0)
    structural: float = 0.0
    lines: float = 0.0
    margin: int = 0
    colour: bool = False
    reference: str = "first"
    seed: int = 0
    amp: str = "none"
    ema: float = 0.0
    perceptual: str = "auto"
    perceptual_layers: str = "first5"
    save_every: int = 200
    sample_every: int = 500

    def __post_init__(self) -> None:
        if min(self.steps) < 1 or min(self.batch_size, self.save_every, self.sample_every) < 1:
            raise InputError(
                "steps, batch size and the save and sample intervals must be at least 1"
            )
        if not 0 < self.lr < 1 or self.weight_decay < 0:
            raise InputError(f"learning rate {self.lr} must lie in (0, 1), weight decay be >= 0")
        if not 0 < self.opacity[0] <= self.opacity[1] <= 1:
            raise InputError(f"opacity {self.opacity} must be two rising numbers in (0, 1]")
        if self.amp not in AMP:
            raise InputError(f"amp {self.amp}: wanted one of {', '.join(AMP)}")
        if not 0 <= self.ema < 1:
            raise InputError(f"ema {self.ema} must be 0 or a decay below 1, such as 0.995")
        for name, share in (("structural", self.structural), ("lines", self.lines)):
            if not 0 <= share <= 1:
                raise InputError(f"{name} {share} must be a share from 0 to 1")
        if not 0 <= self.margin <= self.crop // 4:
            raise InputError(f"margin {self.margin} must lie between 0 and a quarter of the crop")
        if self.reference not in REFERENCES:
            raise InputError(f"reference {self.reference}: wanted {' or '.join(REFERENCES)}")
        if self.crop < 64 or self.crop % 64:
            raise InputError(f"crop {self.crop} must be a multiple of 64")

    def learning_rate(self, phase: int, step: int) -> float:
        """The rate of one step (0-based) of a phase (0-based)."""
        if self.schedule == "constant":
            return self.lr
        total = self.steps[phase]
        warm = max(1, round(0.03 * total))
        if step < warm:
            return self.lr * (step + 1) / warm
        done = (step - warm) / max(1, total - warm)
        return self.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def same_run(options: TrainOptions, config: str, digest: str) -> str:
    """The text that must be equal for a state to be resumed."""
    fixed = {k: v for k, v in asdict(options).items() if k not in FREE}
    plain = TrainOptions(steps=options.steps)
    for name in ("ema", "lines", "margin", "colour", "reference"):
        if fixed[name] == getattr(plain, name):  # states from before there were such options
            del fixed[name]
    return json.dumps({"options": fixed, "config": config, "data": digest}, sort_keys=True)
