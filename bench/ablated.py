"""`python -m ndp_edge.bench.ablated --ablate PART ...`: a training with one part left out.

The paper's Table VI: what a whole net (column A) owes to each of its parts. Every other option is
`ndp_edge.train`'s, and all variants draw the same weights, crops and defects from a seed.

    none        A: the whole net, the very training of `ndp_edge.train`
    rbam        B: stages 3 to 5 go to the decoder unrepaired; no feature-repair loss (eq. 9)
    def-per     C: phase 1 without the defect-perception loss (eq. 2)
    pixel-gap   D: for MSDSM the gap of image and reconstruction
    msfr        E: for MSDSM the gap of their encoder features at stages 1 to 3
    ssim        F: for MSDSM 1 - SSIM of the two

D to F have no MSDSM to train, and so no segmentation loss (eq. 10). The checkpoint says in its
training record what the net lacks, and `bench.torch_judge` goes by that. `export` and `build` do
not look for it: they would take the net for a whole one.
"""

from __future__ import annotations

import argparse
from functools import partial

from ndp_edge.console import run_verb
from ndp_edge.errors import InputError, MachineError
from ndp_edge.train import train
from ndp_edge.training.command import parser as train_parser
from ndp_edge.training.command import read

ABLATIONS = ("none", "rbam", "def-per", "pixel-gap", "msfr", "ssim")
"""Columns A to F of Table VI."""


def parser() -> argparse.ArgumentParser:
    """The options of `ndp_edge.train`, and what is left out."""
    p = train_parser()
    p.prog, p.description = "python -m ndp_edge.bench.ablated", __doc__
    p.formatter_class = argparse.RawDescriptionHelpFormatter
    p.add_argument("--ablate", required=True, choices=ABLATIONS, help="what the net lacks")
    return p


def run(args: argparse.Namespace) -> int:
    """Train as asked. Returns 0 when finished, 130 when stopped (state saved).

    Raises:
        InputError: with --qat or --teacher, which the paper has not; and as `ndp_edge.train`.
        MachineError: there is no torch.
    """
    if args.qat or args.teacher:
        raise InputError("--ablate is of the paper's two phases: no --qat, no --teacher")
    try:
        from ndp_edge.bench.ablated_net import AblatedTrainer
    except ImportError as error:
        raise MachineError('training needs torch: pip install "ndp-edge[train]"') from error
    return train(args, partial(AblatedTrainer, lacks=args.ablate))


def main(argv: list[str] | None = None) -> int:
    """Entry point: the exit codes of `ndp_edge.train`."""
    args = read(argv, parser())
    return run_verb(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
