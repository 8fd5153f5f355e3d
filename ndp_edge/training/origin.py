"""What `train --qat` begins with: a finished run of `train`, and the photographs it saw."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from ndp_edge import checkpoint
from ndp_edge.data.splits import Splits
from ndp_edge.errors import InputError
from ndp_edge.files import file_hash
from ndp_edge.training.options import TrainOptions

FIXED = (
    "recipe", "preset", "image_size", "softmax_scale", "map_weights", "epochs", "crop", "amp",
    "ema", "opacity", "structural", "lines", "margin", "colour", "reference", "compile",
    "perceptual", "perceptual_layers", "vgg_weights", "teacher", "teacher_weight",
)  # fmt: skip
"""Options of `train` that mean nothing to `--qat`: net, crops and defects are the checkpoint's,
rounding to int8 codes needs float32, and no perceptual term is in its loss."""

STEPS, LR, SCHEDULE = 200, 2e-5, "cosine"
"""Where the user says nothing. On KolektorSDD's `nano`, 60 steps at 1e-4 brought INT8 2 % nearer
than at 2e-5 and moved the float map 38 % further."""


def refuse_fixed(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Raise InputError when an option of FIXED was given."""
    for name in FIXED:
        if getattr(args, name) != parser.get_default(name):
            raise InputError(f"--qat does not take --{name.replace('_', '-')}: net, crops and "
                             "defects are those of the checkpoint")  # fmt: skip


def read_origin(path: Path) -> checkpoint.Checkpoint:
    """A checkpoint that can be fine-tuned, with `sha256` of its file added to its record.

    Raises:
        InputError: none there, training is not finished, it was fine-tuned before, its weights
            are not finite, or its record does not say how it was trained.
    """
    found = checkpoint.load(path)
    record = found.training
    if not record.get("finished"):
        raise InputError(f"the training of {path} is not finished; resume it first")
    if "qat" in record:
        raise InputError(
            f"{path} was fine-tuned by --qat already; give the run that it was made from"
        )
    broken = [k for k, v in found.weights.items() if not np.isfinite(v).all()]
    if broken:
        raise InputError(f"{path}: weights {broken[0]} are not finite; the checkpoint is broken")
    file = path / checkpoint.CHECKPOINT_NAME if path.is_dir() else path
    return checkpoint.Checkpoint(found.config, found.weights, record | {"sha256": file_hash(file)})


def qat_options(args: argparse.Namespace, record: dict[str, Any]) -> TrainOptions:
    """The command line as phase 3 of the run that `record` tells of.

    Raises:
        InputError: an option out of its range, or a record that is not a training's.
    """
    if args.steps is not None and len(args.steps) != 1:
        raise InputError(f"--qat has one phase: --steps takes one number, not {len(args.steps)}")
    try:
        was = record["options"]
        before = tuple(int(n) for n in was["steps"])
        low, high = (float(v) for v in was["opacity"])
        crop, structural = int(was["crop"]), float(was["structural"])
        # Runs from before there were any have none.
        lines, colour = float(was.get("lines", 0)), bool(was.get("colour", False))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{args.qat} does not say how it was trained ({error})") from error
    return TrainOptions(
        steps=(*before, args.steps[0] if args.steps else STEPS), batch_size=args.batch_size,
        lr=LR if args.lr is None else args.lr, schedule=args.schedule or SCHEDULE, crop=crop,
        opacity=(low, high), structural=structural, lines=lines, colour=colour, seed=args.seed,
        perceptual="none", save_every=args.save_every, sample_every=args.sample_every,
    )  # fmt: skip


def refuse_other_data(splits: Splits, record: dict[str, Any], root: Path) -> None:
    """Raise InputError unless the train split is just what the checkpoint was trained on.

    Splits of other pictures fall differently, and the net might be tuned on what a later build
    judges it by.
    """
    seen = set(record.get("hashes", ()))
    here = {splits.hashes[sample.name] for sample in splits.train}
    if seen != here:
        raise InputError(
            f"the checkpoint was trained on {len(seen)} pictures, of which {len(seen & here)} are "
            f"in the train split of {root} ({len(here)}); give the photographs it was trained on"
        )
