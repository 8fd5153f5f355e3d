"""The command line of `python -m ndp_edge.train`, and the options that it asks for."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ndp_edge.console import add_json_option
from ndp_edge.errors import InputError, MachineError
from ndp_edge.model.config import PAPER_MAP_WEIGHTS, PRESETS
from ndp_edge.training.options import AMP, REFERENCES, TrainOptions

ABOUT = "Photographs of good product to a checkpoint."
PAPER_EPOCHS = (400, 200)
PAPER_LR = 1e-4
TEACHER_WEIGHT = 1.0


RECIPES: dict[str, dict[str, object]] = {
    "paper": {},
    "short": {
        "steps": [350, 750], "batch_size": 16, "lr": 1e-3, "schedule": "cosine", "crop": 128,
        "ema": 0.995, "opacity": (0.3, 1.0), "map_weights": (1.0, 1.0, 1.0),
    },
}  # fmt: skip
"""What options are where the user does not say: the paper's, or what helped on KolektorSDD
(docs/accuracy.md). Nets that trained longer knew the artificial defects better and real ones less
well."""


def read(argv: list[str] | None, p: argparse.ArgumentParser | None = None) -> argparse.Namespace:
    """The command line, with what its recipe fills in."""
    p = p or parser()
    recipe = RECIPES[p.parse_args(argv).recipe]
    lengths = ("--steps", "--epochs")
    given = sys.argv[1:] if argv is None else argv
    if any(word.split("=")[0] in lengths for word in given):  # they exclude one another
        recipe = {key: value for key, value in recipe.items() if key != "steps"}
    p.set_defaults(**recipe)
    return p.parse_args(argv)


def choose_device(asked: str, cuda: bool) -> str:
    """ "cpu" or "cuda" for a --device of auto, cpu or cuda, where torch sees CUDA or not.

    Raises:
        MachineError: CUDA was asked for and is not there.
    """
    if asked == "cuda" and not cuda:
        raise MachineError("--device cuda: torch finds no GPU here; install a CUDA build of torch")
    return "cuda" if cuda and asked != "cpu" else "cpu"


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m ndp_edge.train", description=ABOUT)
    p.add_argument("--data", type=Path, help="MVTec-style folder; without it, the built-in surface")
    p.add_argument("--out", type=Path, required=True, help="folder of the run")
    p.add_argument("--qat", type=Path, metavar="RUN",
                   help="fine-tune this finished run for INT8, on the same --data")  # fmt: skip
    p.add_argument("--preset", default="nano", choices=PRESETS)
    p.add_argument("--recipe", default="paper", choices=RECIPES,
                   help="short: minutes, not hours; options beside it win")  # fmt: skip
    length = p.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=int, nargs=2, metavar=("N1", "N2"), help="default 400 200")
    length.add_argument("--steps", type=int, nargs="+", metavar="N",
                        help="two numbers; with --qat one, default 200")  # fmt: skip
    p.add_argument("--batch-size", type=int, default=4)
    p.add_argument("--lr", type=float, help="default 1e-4; of --qat: 2e-5")
    p.add_argument("--schedule", choices=("constant", "cosine"),
                   help="default constant; of --qat: cosine")  # fmt: skip
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--amp", default="none", choices=AMP,
                   help="bf16: faster where the machine has bfloat16 arithmetic")  # fmt: skip
    p.add_argument("--ema", type=float, default=0.0, metavar="DECAY",
                   help="end each phase in its weights' running average; 0.995")  # fmt: skip
    p.add_argument("--image-size", type=int, default=256)
    p.add_argument("--crop", type=int, help="side of random training crops; default: whole images")
    p.add_argument("--softmax-scale", type=float, default=1.0, help="1.0 is the paper's eq. 4")
    p.add_argument("--map-weights", type=float, nargs=3, default=PAPER_MAP_WEIGHTS,
                   metavar=("L1", "L2", "L3"),
                   help="of MSDSM's maps, the coarsest last (eq. 11); sum made 1")  # fmt: skip
    p.add_argument("--resume", action="store_true", help="go on where the run in --out stopped")
    p.add_argument("--perceptual", default="auto", choices=("auto", "vgg16", "none"))
    p.add_argument("--perceptual-layers", default="first5", choices=("first5", "block-heads"))
    p.add_argument("--vgg-weights", type=Path, help="torchvision's vgg16 file")
    p.add_argument("--anomaly-source", type=Path, help="folder of pictures to paste as defects")
    p.add_argument("--opacity", type=float, nargs=2, default=(1.0, 1.0), metavar=("LOW", "HIGH"),
                   help="opacity range of pasted defects; 1 1 is the paper")  # fmt: skip
    p.add_argument("--structural", type=float, default=0.0, metavar="SHARE",
                   help="share of defects made of the surface itself; 0: the paper")  # fmt: skip
    p.add_argument("--lines", type=float, default=0.0, metavar="SHARE",
                   help="share of defects that are thin lines; 0: the paper")  # fmt: skip
    p.add_argument("--margin", type=int, default=0, metavar="PIXELS",
                   help="mark so much around each defect, too; 0: the paper")  # fmt: skip
    p.add_argument("--colour", action="store_true", help="coloured defects on a gray surface, too")
    p.add_argument("--reference", default="first", choices=REFERENCES,
                   help="which good picture to compare with")  # fmt: skip
    p.add_argument("--teacher", type=Path, metavar="RUN",
                   help="finished run of a larger net on the same data, to learn from")  # fmt: skip
    p.add_argument("--teacher-weight", type=float, default=TEACHER_WEIGHT, metavar="W",
                   help="of the teacher's maps in the loss of phase 2")  # fmt: skip
    p.add_argument("--save-every", type=int, default=200, help="steps")
    p.add_argument("--sample-every", type=int, default=500, help="steps")
    p.add_argument("--threads", type=int, help="CPU threads; default: torch's choice")
    p.add_argument("--workers", type=int, default=0,
                   help="processes that make batches; 0: a thread (enough for a CPU)")  # fmt: skip
    p.add_argument("--compile", action="store_true", help="torch.compile; minutes before it pays")
    p.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    add_json_option(p)
    return p


def read_options(args: argparse.Namespace, images: int) -> TrainOptions:
    """Command line to options; epochs become steps of `images` good pictures."""
    per_epoch = -(-images // max(1, args.batch_size))
    epochs = args.epochs or PAPER_EPOCHS
    if args.steps and len(args.steps) != 2:
        raise InputError(f"--steps takes two numbers, N1 and N2, not {len(args.steps)}")
    steps = tuple(args.steps) if args.steps else (epochs[0] * per_epoch, epochs[1] * per_epoch)
    crop = args.crop or args.image_size
    if crop > args.image_size:
        raise InputError(f"--crop {crop} is larger than --image-size {args.image_size}")
    return TrainOptions(
        steps=steps, batch_size=args.batch_size, lr=PAPER_LR if args.lr is None else args.lr,
        schedule=args.schedule or "constant", crop=crop,
        opacity=tuple(args.opacity), structural=args.structural, lines=args.lines,
        margin=args.margin, colour=args.colour, reference=args.reference, seed=args.seed,
        amp=args.amp, ema=args.ema, perceptual=args.perceptual,
        perceptual_layers=args.perceptual_layers, save_every=args.save_every,
        sample_every=args.sample_every,
    )  # fmt: skip
