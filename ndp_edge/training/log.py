"""What a run leaves for its reader: metrics as JSON lines and TensorBoard, sample pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ndp_edge.files import write_atomic
from ndp_edge.image import write_png

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

METRICS_NAME = "metrics.jsonl"
SAMPLES = 4
"""Pictures on a sample sheet."""


class MetricsLog:
    """Losses per step into metrics.jsonl and, where tensorboard is installed, event files.

    A resumed run first drops the lines of steps that will be run again, so that the file
    reads as if the run had never been killed.
    """

    def __init__(self, folder: Path, phase: int, step: int) -> None:
        self.path = folder / METRICS_NAME
        kept: list[str] = []
        if self.path.exists():
            for line in self.path.read_text().splitlines(keepends=True):
                if line.endswith("\n") and _key(line) < (phase, step):
                    kept.append(line)
        write_atomic(self.path, "".join(kept).encode())
        self.file = self.path.open("a", buffering=1)
        self.board = _board(folder)

    def write(self, phase: int, step: int, losses: dict[str, float], offset: int) -> None:
        """One step's losses; `offset` is the number of steps in the phases before."""
        line = {"phase": phase + 1, "step": step, **losses}
        self.file.write(json.dumps(line) + "\n")
        if self.board is not None:
            for name, value in losses.items():
                self.board.add_scalar(f"phase{phase + 1}/{name}", value, offset + step)

    def picture(self, path: Path, sheet: NDArray[np.uint8], step: int) -> None:
        """A sample sheet, as a PNG and on TensorBoard."""
        write_png(path, sheet)
        if self.board is not None:
            self.board.add_image("samples", sheet, step, dataformats="HWC")

    def close(self) -> None:
        self.file.close()
        if self.board is not None:
            self.board.close()


def _key(line: str) -> tuple[int, int]:
    entry = json.loads(line)
    return int(entry["phase"]) - 1, int(entry["step"])


def _board(folder: Path) -> SummaryWriter | None:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"))


def sample_sheet(rows: list[Tensor]) -> NDArray[np.uint8]:
    """Rows of pictures ([N, 3 or 1, S, S] in [0, 1]) as one RGB sheet, uint8 [H, W, 3]."""
    bands = []
    for row in rows:
        pictures = row.detach()[:SAMPLES].float().cpu().expand(-1, 3, -1, -1)
        bands.append(np.concatenate(list(pictures.permute(0, 2, 3, 1).numpy()), axis=1))
    return (np.concatenate(bands, axis=0).clip(0, 1) * 255 + 0.5).astype(np.uint8)
