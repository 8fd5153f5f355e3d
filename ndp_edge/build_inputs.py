"""What a build works from: the net as ONNX, and photographs that it has never seen."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_edge.console import info
from ndp_edge.data.folder import Dataset, Sample, load_images, load_masks, open_dataset
from ndp_edge.data.splits import Splits, check_disjoint, split
from ndp_edge.errors import InputError
from ndp_edge.image import read_square
from ndp_edge.model.config import NdpConfig

SHIPPED = Path(__file__).parent / "data" / "nano_woven.onnx"
UNSEEN = ("calibration", "tune", "threshold", "test")
CHECK_IMAGES = 2
"""Real images on which an exported graph is compared with torch."""


@dataclass(frozen=True)
class Net:
    """The FP32 graph inside the bundle being written.

    Attributes:
        model: the ONNX file.
        config, training: what its metadata say.
        source: where it came from, for the report.
        check: the exporter's report; empty when an ONNX was given.
    """

    model: Path
    config: NdpConfig
    training: dict[str, Any]
    source: str
    check: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Judged:
    """The images that the gate scores, in memory.

    Attributes:
        samples: N of them.
        images: uint8 [N, S, S, 3].
        labels: int64 [N], 1 for defective.
        masks: bool [N, S, S].
        split: "test", or "threshold" where there is no test folder.
    """

    samples: list[Sample]
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    masks: NDArray[np.bool_]
    split: str


def load_dataset(root: Path | None) -> Dataset:
    """The user's photographs, or the built-in surface (made on first use)."""
    if root is None:
        from ndp_edge.data.surface import builtin_root

        info("no --data: taking the built-in woven surface")
        root = builtin_root()
    return open_dataset(root)


def load_net(checkpoint: Path | None, dataset: Dataset, target: Path) -> Net:
    """Put the net's ONNX at `target`: the shipped one, a copy of the user's, or an export.

    Raises:
        InputError: no such file, or not a net of ours.
        MachineError: exporting needs torch, and there is none.
    """
    from ndp_edge.export.exporter import export_onnx, read_config

    source = SHIPPED if checkpoint is None else checkpoint
    if source.suffix == ".onnx":
        read_config(source)  # before the copy, so that an error names the user's file
        target.write_bytes(source.read_bytes())
        check: dict[str, Any] = {}
    else:
        from ndp_edge.checkpoint import load

        info(f"exporting {source}")
        size = load(source).config.image_size
        images = load_images(dataset.train[:CHECK_IMAGES], size)
        check = export_onnx(source, target, images=images, check=True)["check"]
    config, training = read_config(target)
    return Net(target, config, training, "shipped" if checkpoint is None else source.name, check)


def split_dataset(dataset: Dataset, net: Net, seed: int | None) -> Splits:
    """Split with the seed that the net was trained with, and prove that nothing leaks.

    Raises:
        InputError: a picture to be judged was trained on, or stands in two splits, be it the
            same file or another with the same pixels.
    """
    trained_with = net.training.get("split_seed", 0)
    splits = split(dataset, seed=trained_with if seed is None else seed)
    check_disjoint(splits)
    seen = set(net.training.get("hashes", ()))
    for part in UNSEEN:
        for sample in getattr(splits, part):
            if splits.hashes[sample.name] in seen:
                other = f" (it was split with --seed {trained_with})" * (seed is not None)
                raise InputError(
                    f"the net was trained on {sample.name}, which is in the {part} split{other}; "
                    "results on it would prove nothing: leave out --seed or train again"
                )
    refuse_same_pixels(splits, net.config.image_size)
    return splits


def refuse_same_pixels(splits: Splits, size: int) -> None:
    """See that what calibrates, chooses, sets the threshold and judges shares no picture.

    A file hash misses a copy that was saved again (PNG to TIFF, other compression, metadata);
    the pixels that the net would see do not. A copy that was cropped or compressed with loss
    has other pixels and is not found.

    Args:
        size: side in pixels at which pictures are compared: the net's.

    Raises:
        InputError: two splits share one; both files are named. Or one cannot be read.
    """
    seen: dict[bytes, tuple[str, str]] = {}
    for part in UNSEEN:
        for sample in getattr(splits, part):
            pixels = hashlib.sha256(read_square(sample.path, size).tobytes()).digest()
            other, name = seen.setdefault(pixels, (part, sample.name))
            if other != part:
                raise InputError(
                    f"{sample.name} ({part}) shows the same pixels as {name} ({other}); results "
                    "on it would prove nothing: remove one of the two"
                )


def judged_images(splits: Splits, size: int) -> Judged:
    """The test split, or the threshold split where there is no test folder."""
    part = "test" if splits.test else "threshold"
    samples: list[Sample] = getattr(splits, part)
    labels = np.array([s.label for s in samples], np.int64)
    return Judged(samples, load_images(samples, size), labels, load_masks(samples, size), part)
