"""Batches of good and artificially defective crops. Stateless: batch (phase, step) is a
function of the seed alone, so that a resumed run sees what the killed one would have seen."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from ndp_edge.data.defects import make_defect, procedural_source, random_crop
from ndp_edge.training.options import TrainOptions

AHEAD = 3
"""Batches made in the background while the net works."""


@dataclass
class Batch:
    """float32, NCHW (in memory NHWC): `good` and `bad` [B, 3, S, S] in [0, 1], `mask`
    [B, 1, S, S] of 0 and 1."""

    good: NDArray[np.float32]
    bad: NDArray[np.float32]
    mask: NDArray[np.float32]


class Batches:
    """Makes batches from good images and pictures to paste.

    Args:
        images: uint8 [N, S, S, 3], the training split.
        sources: pictures to paste, uint8 [H, W, 3] of sides at least the crop; with none,
            procedural ones.
        options: batch size, crop, opacity, seed.
        gray: the surface has no colour; nor has what is pasted, unless `options.colour`.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        sources: list[NDArray[np.uint8]],
        options: TrainOptions,
        *,
        gray: bool,
    ) -> None:
        self.images, self.sources, self.options = images, sources, options
        self.gray = gray and not options.colour

    def _source(self, rng: np.random.Generator) -> NDArray[np.float32] | None:
        """A picture to paste; None where the surface itself is to be disturbed."""
        if self.options.structural and rng.random() < self.options.structural:
            return None
        if not self.sources:
            return procedural_source(self.options.crop, rng)
        picture = self.sources[int(rng.integers(len(self.sources)))]
        return as_unit(random_crop(picture, self.options.crop, rng))

    def make(self, phase: int, step: int) -> Batch:
        """The batch of one step; the order of images is a fresh permutation every epoch."""
        o, n = self.options, len(self.images)
        good, bad, masks = [], [], []
        for i in range(o.batch_size):
            position = step * o.batch_size + i
            order = np.random.default_rng([o.seed, phase, position // n]).permutation(n)
            rng = np.random.default_rng([o.seed, phase, 1 << 20, position])
            crop = as_unit(random_crop(self.images[order[position % n]], o.crop, rng))
            defective, mask = make_defect(
                crop, self._source(rng), rng, gray=self.gray, opacity=o.opacity, lines=o.lines
            )
            good.append(crop)
            bad.append(defective)
            masks.append(widened(mask, o.margin) if phase and o.margin else mask)
        return Batch(nchw(good), nchw(bad), np.stack(masks)[:, None].astype(np.float32))

    def stream(self, phase: int, first: int, workers: int = 0) -> Iterator[Batch]:
        """Batches `first`, `first` + 1, ... to the end of the phase, made ahead of their use.

        Args:
            phase, first: of the first batch.
            workers: processes that make them (their arrays then are torch tensors, in pinned
                memory where there is CUDA); 0 is one thread of this process.
        """
        last = self.options.steps[phase]
        if workers:
            yield from _from_processes(_Made(self, phase, first, last), workers)
            return
        with ThreadPoolExecutor(1) as pool:
            waiting = [
                pool.submit(self.make, phase, s) for s in range(first, min(first + AHEAD, last))
            ]
            for step in range(first, last):
                if step + AHEAD < last:
                    waiting.append(pool.submit(self.make, phase, step + AHEAD))
                yield waiting.pop(0).result()


@dataclass
class _Made(Dataset[tuple[Any, ...]]):
    """The batches of a phase as torch's DataLoader asks for them."""

    batches: Batches
    phase: int
    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        made = self.batches.make(self.phase, self.first + index)
        return made.good, made.bad, made.mask


def _from_processes(made: _Made, workers: int) -> Iterator[Batch]:
    # Spawned: a fork takes along the locks of OpenCV's threads, and then waits for them for ever.
    loader = DataLoader(
        made, batch_size=None, num_workers=workers, worker_init_fn=_alone,
        prefetch_factor=AHEAD, pin_memory=torch.cuda.is_available(),
        multiprocessing_context="spawn",
    )  # fmt: skip
    for arrays in loader:
        yield Batch(*arrays)


def _alone(worker: int) -> None:
    cv2.setNumThreads(1)  # the workers are what runs in parallel


def widened(mask: NDArray[np.bool_], margin: int) -> NDArray[np.bool_]:
    """Every defect of a mask [S, S] grown by `margin` pixels (at least 1) on all sides."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1, 2 * margin + 1))
    return np.asarray(cv2.dilate(mask.astype(np.uint8), disc), np.bool_)


def as_unit(image: NDArray[Any]) -> NDArray[np.float32]:
    """uint8 to float32 in [0, 1]."""
    return np.asarray(image.astype(np.float32) / np.float32(255))


def nchw(images: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """[H, W, 3] pictures to one [N, 3, H, W], a view: torch's channels-last."""
    return np.asarray(np.stack(images).transpose(0, 3, 1, 2), np.float32)
