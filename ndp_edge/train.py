"""`python -m ndp_edge.train`: photographs of good product to a checkpoint.

The whole training lives in `ndp_edge.training`; this file reads options and data.
"""

from __future__ import annotations

import argparse
import dataclasses
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ndp_edge import checkpoint
from ndp_edge.console import emit_json, info, run_verb
from ndp_edge.data.folder import Sample, load_images, open_dataset
from ndp_edge.data.splits import Splits, split
from ndp_edge.errors import InputError, MachineError
from ndp_edge.image import is_gray, read_image
from ndp_edge.model.config import NdpConfig, preset
from ndp_edge.training.command import choose_device, parser, read, read_options
from ndp_edge.training.options import STATE_NAME, TrainOptions, same_run
from ndp_edge.training.origin import qat_options, read_origin, refuse_fixed, refuse_other_data
from ndp_edge.training.reference import choose

if TYPE_CHECKING:
    from collections.abc import Callable

    from ndp_edge.training.loop import Trainer
    from ndp_edge.training.qat import Finetuner


def read_sources(folder: Path | None, side: int) -> list[NDArray[np.uint8]]:
    """Pictures to paste, RGB uint8, each enlarged where needed to at least side x side.

    Raises:
        InputError: no such folder, or no picture in it.
    """
    if folder is None:
        return []
    import cv2

    from ndp_edge.image import is_image_name

    files = sorted(f for f in folder.rglob("*") if is_image_name(f)) if folder.is_dir() else []
    if not files:
        raise InputError(f"--anomaly-source {folder}: no such folder, or no picture in it")
    pictures = []
    for file in files:
        picture = read_image(file)
        scale = side / min(picture.shape[:2])
        if scale > 1:
            size = [max(side, round(s * scale)) for s in picture.shape[1::-1]]
            picture = np.asarray(cv2.resize(picture, size), np.uint8)
        pictures.append(picture)
    return pictures


def describe(
    splits: Splits, train: list[Sample], root: Path, options: TrainOptions, reference: Sample
) -> dict[str, Any]:
    """What the checkpoint says about its training; `build` refuses data that stands here."""
    return {
        "data": root.name,
        "hashes": sorted({splits.hashes[s.name] for s in train}),
        "images": len(train),
        "split_seed": splits.seed,
        "split_digest": splits.digest,
        "reference": reference.name,
        "reference_hash": splits.hashes[reference.name],
        "seed": options.seed,
        "options": dataclasses.asdict(options),
    }


def prepare_out(out: Path, *, resume: bool) -> None:
    """Make the run's folder. An earlier run in it is only ever resumed, never overwritten."""
    used = [n for n in (STATE_NAME, checkpoint.CHECKPOINT_NAME) if (out / n).exists()]
    if used and not resume:
        raise InputError(f"{out} holds a run ({used[0]}); add --resume or choose another --out")
    if resume and (out / checkpoint.CHECKPOINT_NAME).exists():
        found = checkpoint.load(out)
        if found.training.get("finished"):
            raise InputError(
                f"the run in {out} is finished; choose another --out for more training"
            )
    try:
        (out / "samples").mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"--out {out} is not a folder") from error


def train(args: argparse.Namespace, kind: Callable[..., Trainer] | None = None) -> int:
    """Train as asked, by a `kind` of Trainer. Returns 0 finished, 130 stopped (state saved)."""
    try:
        import torch
    except ImportError as error:
        raise MachineError('training needs torch: pip install "ndp-edge[train]"') from error
    device = choose_device(args.device, torch.cuda.is_available())
    if args.threads:
        torch.set_num_threads(args.threads)
    trainer = finetuner(args, device) if args.qat else two_phases(args, device, kind)
    if not trainer.train(_Stop()):
        again = f"--qat {args.qat} " if args.qat else ""
        info(f"stopped; go on with: python -m ndp_edge.train {again}--resume ... --out {args.out}")
        return 130
    file = args.out / checkpoint.CHECKPOINT_NAME
    record = checkpoint.load(file).training
    emit_json(args.json, record | {"checkpoint": str(file)})
    if args.qat:
        rms = [f"{record['qat'][f'map_rms_{one}']:.5f}" for one in ("before", "after", "float")]
        info(
            f"INT8 map against the float map of {args.qat}, RMS: {rms[0]} before, {rms[1]} after; "
            f"its own float map: {rms[2]}"
        )
    info(f"checkpoint: {file}")
    return 0


def two_phases(args: argparse.Namespace, device: str, kind: Any = None) -> Trainer:
    """The paper's training, ready to run, by a `kind` of Trainer; None is the plain one."""
    from ndp_edge.training.batches import Batches
    from ndp_edge.training.distil import Distiller, read_teacher
    from ndp_edge.training.loop import Run, Trainer
    from ndp_edge.training.perceptual import make_perceptual

    net_config = preset(
        args.preset, image_size=args.image_size, softmax_scale=args.softmax_scale,
        map_weights=args.map_weights,
    )  # fmt: skip
    root = args.data or _builtin()
    splits = split(open_dataset(root), seed=args.seed)
    samples = sorted(splits.train, key=lambda s: s.name)
    options = read_options(args, len(samples))
    teacher = read_teacher(args, net_config, splits, root)
    images = load_images(samples, net_config.image_size)
    config = dataclasses.replace(net_config, gray=all(is_gray(i) for i in images))
    sources = read_sources(args.anomaly_source, options.crop)
    perceptual, told = make_perceptual(args.perceptual, args.vgg_weights, args.perceptual_layers)
    prepare_out(args.out, resume=args.resume)
    _announce(config, options, root, len(samples), device)
    info(f"perceptual loss: {told}")
    chosen = choose(images, options.reference)
    record = describe(splits, samples, root, options, samples[chosen]) | {
        "perceptual": told,
        "anomaly_source": _name(args.anomaly_source),
    }
    if teacher is not None:
        kind = partial(Distiller, teacher=teacher)
    batches = Batches(images, sources, options, gray=config.gray)
    identity = same_run(options, config.to_json(), splits.digest["train"])
    run = Run(
        args.out, config, options, batches, images[chosen], perceptual, identity, record, device,
        workers=args.workers, compile=args.compile,
    )  # fmt: skip
    trainer: Trainer = (kind or Trainer)(run, resume=args.resume)
    return trainer


def finetuner(args: argparse.Namespace, device: str) -> Finetuner:
    """`--qat`, ready to run."""
    from ndp_edge.model.load import load_net
    from ndp_edge.training.batches import Batches
    from ndp_edge.training.loop import Run
    from ndp_edge.training.qat import Finetuner

    refuse_fixed(args, parser())
    origin = read_origin(args.qat)
    net, config, was = load_net(origin), origin.config, origin.training
    options = qat_options(args, was)
    root = args.data or _builtin()
    splits = split(open_dataset(root), seed=was.get("split_seed", 0))
    refuse_other_data(splits, was, root)
    samples = sorted(splits.train, key=lambda s: s.name)
    images = load_images(samples, config.image_size)
    sources = read_sources(args.anomaly_source, options.crop)
    prepare_out(args.out, resume=args.resume)
    _announce(config, options, root, len(samples), device)
    digest = was.pop("sha256")
    record = was | {
        "options": dataclasses.asdict(options),
        "seed": options.seed,
        "qat": {
            "from": args.qat.name,
            "from_sha256": digest,
            "anomaly_source": _name(args.anomaly_source),
        },
    }
    identity = same_run(options, config.to_json(), f"{splits.digest['train']} {digest}")
    run = Run(
        args.out, config, options, Batches(images, sources, options, gray=config.gray), images[0],
        None, identity, record, device, workers=args.workers,
    )  # fmt: skip
    return Finetuner(run, net, resume=args.resume)


class _Stop:
    """True once SIGINT or SIGTERM came: the loop then saves its state and returns."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: object) -> None:
        self.asked = True

    def __call__(self) -> bool:
        return self.asked


def _builtin() -> Path:
    from ndp_edge.data.surface import builtin_root

    return builtin_root()


def _name(source: Path | None) -> str:
    return source.name if source else "procedural"


def _announce(config: NdpConfig, o: TrainOptions, root: Path, images: int, device: str) -> None:
    steps = " + ".join(str(n) for n in o.steps)
    info(
        f"{config.preset} on {root}: {images} good images{' (gray)' if config.gray else ''}, "
        f"{steps} steps of {o.batch_size} crops of {o.crop}, {device}"
    )


def main(argv: list[str] | None = None) -> int:
    """Entry point; see DESIGN section 8 for the command line."""
    args = read(argv)
    return run_verb(lambda: train(args))


if __name__ == "__main__":
    raise SystemExit(main())
