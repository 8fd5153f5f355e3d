"""`python -m ndp_edge.bench.peers.draem_train`: DRAEM, trained here for a stated time and judged.

The built-in surface's training split or --data's, the artificial defects that NDP-Net is trained
with, and DRAEM's own losses and settings where they are known: squared error, SSIM and focal
loss, half of the pictures left whole, opacity from 0.1 to 1. Its authors train for 700 epochs;
this stops after --minutes. So its accuracy is that of a budget, not of the method. Writes
draem.safetensors and draem.json (the figures on the test pictures) into --out, which
`python -m ndp_edge.bench BUNDLE --peers --draem OUT` takes.
"""

from __future__ import annotations

import argparse
import datetime
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ndp_edge import metrics
from ndp_edge.bench.peers import DRAEM_KIND, DRAEM_REPORT, DRAEM_WEIGHTS, SIZE
from ndp_edge.bench.peers.draem import Draem
from ndp_edge.bench.peers.opened import open_peer
from ndp_edge.bench.result import machine
from ndp_edge.build_inputs import judged_images, load_dataset
from ndp_edge.console import (
    add_json_option,
    check_targets,
    emit_json,
    info,
    progress,
    run_verb,
    table,
    text_stream,
)
from ndp_edge.data.folder import load_images
from ndp_edge.data.splits import Splits, check_disjoint, split
from ndp_edge.errors import InputError
from ndp_edge.files import write_atomic
from ndp_edge.image import is_gray
from ndp_edge.losses import focal
from ndp_edge.training.batches import Batches
from ndp_edge.training.options import TrainOptions

CROP, BATCH, OPACITY = 128, 4, (0.1, 1.0)
WHOLE = 0.5
"""Share of the pictures that get no defect."""

MOST = 10**6
"""Steps, for batches that are made ahead; the time ends a run long before."""


def parser() -> argparse.ArgumentParser:
    """The options."""
    p = argparse.ArgumentParser(
        prog="python -m ndp_edge.bench.peers.draem_train", description=__doc__
    )
    p.add_argument("--out", type=Path, required=True, metavar="DIR")
    p.add_argument("--data", type=Path, metavar="ROOT", help="default: the built-in surface")
    p.add_argument("--minutes", type=float, default=25, help="of training; default 25")
    p.add_argument("--threads", type=int, default=1, help="of a CPU; default 1")
    p.add_argument("--lr", type=float, default=8e-4, help="Adam's, falling with time as a cosine")
    p.add_argument("--amp", choices=("none", "bf16"), default="bf16")
    p.add_argument("--seed", type=int, default=0)
    add_json_option(p)
    return p


def ssim(a: Tensor, b: Tensor, side: int = 11, sigma: float = 1.5) -> Tensor:
    """Mean structural similarity (Wang et al. 2004) of [N, 3, H, W] in [0, 1]; a number to 1."""
    places = torch.arange(side, dtype=a.dtype, device=a.device) - side // 2
    line = torch.exp(-(places**2) / (2 * sigma**2))
    line = line / line.sum()
    window = (line[:, None] * line[None, :]).expand(a.shape[1], 1, side, side)

    def local(x: Tensor) -> Tensor:
        return F.conv2d(x, window, padding=side // 2, groups=a.shape[1])

    mean_a, mean_b = local(a), local(b)
    var_a, var_b = local(a * a) - mean_a**2, local(b * b) - mean_b**2
    both = local(a * b) - mean_a * mean_b
    light = (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
    return (light * (2 * both + 0.03**2) / (var_a + var_b + 0.03**2)).mean()


def loss_of(net: Draem, good: Tensor, bad: Tensor, mask: Tensor, *, bf16: bool) -> Tensor:
    """DRAEM's: squared error and SSIM of the reconstruction, focal of the segmentation."""
    with torch.autocast(bad.device.type, torch.bfloat16, enabled=bf16):
        repainted = net.reconstruct(bad)
        logits = net.discriminate(torch.cat([repainted, bad], 1))
    repainted, logits = repainted.float(), logits.float()
    # Softmax of two is the sigmoid of their difference.
    found = focal(logits[:, 1:] - logits[:, :1], mask)
    return F.mse_loss(repainted, good) + (1 - ssim(repainted, good)) + found


def train(net: Draem, batches: Batches, minutes: float, lr: float, *, bf16: bool) -> list[float]:
    """Adam until the time is over; the losses, one a step.

    The rate falls with the time that has passed: how many steps fit in is not known before.
    """
    net.train()
    optimiser = torch.optim.Adam(net.parameters(), lr)
    rng = np.random.default_rng([batches.options.seed, 1 << 21])
    losses: list[float] = []
    began, seconds = time.monotonic(), 60 * minutes
    while (past := time.monotonic() - began) < seconds or not losses:
        share = min(past / seconds, 1.0)
        for group in optimiser.param_groups:
            group["lr"] = lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))
        batch = batches.make(0, len(losses))
        whole = rng.random(len(batch.bad)) < WHOLE
        batch.bad[whole], batch.mask[whole] = batch.good[whole], 0
        loss = loss_of(net, *map(torch.from_numpy, (batch.good, batch.bad, batch.mask)), bf16=bf16)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
        if len(losses) % 20 == 0:
            recent = float(np.mean(losses[-20:]))
            info(f"step {len(losses)}, {past / 60:.1f} of {minutes:g} min, loss {recent:.4f}")
    info(f"{len(losses)} steps in {minutes:g} min, loss {losses[0]:.4f} to {losses[-1]:.4f}")
    return losses


def judge(net: Draem, splits: Splits) -> dict[str, float | None]:
    """Image AUROC, pixel AUROC and AUPRO on the test pictures.

    The image's score is the map's maximum, the map being what DRAEM smooths by 21x21.
    """
    judged = judged_images(splits, SIZE)
    opened = open_peer("draem", net.eval(), SIZE, None)
    infer, _ = opened.get("draem/openvino-fp32", opened["draem/torch-fp32"])
    order = progress(range(len(judged.images)), total=len(judged.images), label="judging")
    maps: NDArray[np.float32] = np.concatenate([infer(judged.images[i : i + 1]) for i in order])
    scores = maps.max(axis=(1, 2))
    found = metrics.summary(scores, judged.labels, maps, judged.masks, 0.5)
    return {key: found[key] for key in ("image_auroc", "pixel_auroc", "aupro")}


def report(args: argparse.Namespace) -> dict[str, Any]:
    """Train, judge, write weights and figures.

    Raises:
        InputError: an option out of its range, no test pictures, or --out holds a run.
    """
    if not 0 < args.minutes < 10_000 or not 0 < args.lr < 1 or args.threads < 1:
        raise InputError("--minutes above 0, --lr between 0 and 1, --threads at least 1")
    if (args.out / DRAEM_REPORT).exists():
        raise InputError(f"{args.out} holds a run already; choose another --out")
    if args.out.exists() and not args.out.is_dir():
        raise InputError(f"--out {args.out} is not a folder")
    check_targets(args.json)
    splits = split(load_dataset(args.data), seed=args.seed)
    check_disjoint(splits)
    if not splits.test:
        raise InputError("there is no test folder, and nothing to judge DRAEM by")
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    images = load_images(sorted(splits.train, key=lambda s: s.name), SIZE)
    options = TrainOptions((MOST,), BATCH, crop=CROP, opacity=OPACITY, seed=args.seed)
    batches = Batches(images, [], options, gray=all(is_gray(image) for image in images))
    args.out.mkdir(parents=True, exist_ok=True)
    net = Draem()
    losses = train(net, batches, args.minutes, args.lr, bf16=args.amp == "bf16")
    write_atomic(args.out / DRAEM_WEIGHTS, safetensors.torch.save(net.state_dict()))
    found = {
        "kind": DRAEM_KIND,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "training": {
            **{name: getattr(args, name) for name in ("minutes", "threads", "lr", "amp", "seed")},
            "steps": len(losses),
            "pictures": len(images),
            "batch_size": BATCH,
            "crop": CROP,
            "opacity": list(OPACITY),
            "last_loss": round(float(np.mean(losses[-20:])), 5),
        },
        "pictures": splits.digest["test"],
        "metrics": judge(net, splits),
    }
    emit_json(str(args.out / DRAEM_REPORT), found)
    return found


def run(args: argparse.Namespace) -> int:
    """The verb's body."""
    found = report(args)
    rows: list[list[object]] = [["draem", f"{found['training']['steps']} steps"]]
    rows += [[k, f"{v:.4f}"] for k, v in found["metrics"].items() if v is not None]
    print(table(rows), file=text_stream(args.json))
    emit_json(args.json, found)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point: exit 0 done, 2 bad input."""
    args = parser().parse_args(argv)
    return run_verb(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
