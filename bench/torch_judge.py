"""`python -m ndp_edge.bench.torch_judge RUN`: a checkpoint's figures, in torch and FP32.

What `build` finds for FP32 by way of an exported graph, here without one: for nets that cannot
be exported (`bench.ablated`) and for machines without a backend. Same pictures, same median, same
conformal threshold. Of a whole net the maps of its single heads are judged, too.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ndp_edge import checkpoint, metrics
from ndp_edge.build_calibrate import tune_set
from ndp_edge.build_inputs import Net, load_dataset, split_dataset
from ndp_edge.calib.gate import AREAS
from ndp_edge.console import (
    add_json_option,
    check_targets,
    emit_json,
    progress,
    run_verb,
    table,
    text_stream,
)
from ndp_edge.data.folder import load_images, load_masks
from ndp_edge.errors import MachineError
from ndp_edge.postprocess import smooth_max
from ndp_edge.threshold import choose_rate, conformal_threshold
from ndp_edge.training.command import choose_device

if TYPE_CHECKING:
    from torch import Tensor

    from ndp_edge.data.splits import Splits
    from ndp_edge.model.network import NDPNet

BATCH = 16
"""Pictures a call."""

OWN = "own"
"""The map that the net itself gives, among its views."""

HEADS = {
    "AM1": (1.0, 0.0, 0.0),
    "AM2": (0.0, 1.0, 0.0),
    "AM3": (0.0, 0.0, 1.0),
    "equal": (1 / 3, 1 / 3, 1 / 3),
}
"""Other lambdas of eq. 11 for the same logits: each head alone, and all alike."""

Smoothed = NDArray[np.float32]


def parser() -> argparse.ArgumentParser:
    """The run, the photographs, the device."""
    p = argparse.ArgumentParser(prog="python -m ndp_edge.bench.torch_judge", description=__doc__)
    p.add_argument("run", type=Path, metavar="RUN", help="folder or file of a training's result")
    p.add_argument("--data", type=Path, metavar="DIR", help="default: the built-in surface")
    p.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    p.add_argument("--threads", type=int, metavar="N", help="CPU threads; default: torch's choice")
    add_json_option(p)
    return p


def judge(run: Path, data: Path | None, device: str) -> dict[str, Any]:
    """Everything about one checkpoint.

    Args:
        run: a training's folder or its checkpoint.
        data: what it was trained on, MVTec-style; a test folder may be missing.
        device: "cpu" or "cuda".

    Returns:
        ablation, finished, device, torch; threshold (`Threshold.to_dict`); test and tune: "fp32"
        -> figures ({} for test without a test folder); heads: view -> {test, tune}, of a whole
        net; pictures: name, label, score of each test picture; threshold_scores. Of the test
        folder the keys of `metrics.summary`, of the tune set the three areas.

    Raises:
        InputError: no such checkpoint or data, or too few pictures for a threshold or a tune set.
    """
    import torch

    from ndp_edge.bench.ablated_net import load_ablated

    saved = checkpoint.load(run)
    net, lacks = load_ablated(saved)
    net = net.to(device)
    size = saved.config.image_size
    splits = split_dataset(
        load_dataset(data), Net(run, saved.config, saved.training, run.name), seed=None
    )
    rate = choose_rate(None, len(splits.threshold))
    weights = {OWN: saved.config.map_weights} | (HEADS if lacks == "none" else {})
    with _exact():
        quiet = smoothed(net, load_images(splits.threshold, size), weights, device)
        found = {view: {"tune": areas} for view, areas in _tune(net, splits, weights, device)}
        limits = {v: conformal_threshold(m.max(axis=(1, 2)), rate) for v, m in quiet.items()}
        tested = smoothed(net, load_images(splits.test, size), weights, device)
    values = {view: limit.value for view, limit in limits.items()}
    test = _test(splits, size, tested, values)
    own = found.pop(OWN)
    return {
        "ablation": lacks,
        "finished": bool(saved.training.get("finished")),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": torch.__version__,
        "threshold": limits[OWN].to_dict(),
        "test": {"fp32": test[OWN]} if test else {},
        "tune": {"fp32": own["tune"]},
        "heads": {v: one | ({"test": test[v]} if test else {}) for v, one in found.items()},
        "pictures": [
            {"name": sample.name, "label": sample.label, "score": float(one.max())}
            for sample, one in zip(splits.test, tested[OWN], strict=True)
        ],
        "threshold_scores": sorted(float(one.max()) for one in quiet[OWN]),
    }


def smoothed(
    net: NDPNet,
    images: NDArray[np.uint8],
    weights: Mapping[str, tuple[float, float, float]],
    device: str,
) -> dict[str, Smoothed]:
    """View -> maps float32 [N, S, S] after the 5x5 median, of images uint8 [N, S, S, 3].

    Args:
        net: in eval mode, on `device`.
        weights: view -> lambda; OWN stands for what the net itself does.
    """
    import torch

    found = {view: np.empty(images.shape[:3], np.float32) for view in weights}
    starts = range(0, len(images), BATCH)
    with torch.inference_mode():
        for start in progress(starts, total=len(starts), label="torch"):
            some = torch.from_numpy(images[start : start + BATCH]).to(device)
            unit = (some.permute(0, 3, 1, 2).float() / 255).contiguous()
            for view, maps in _views(net, unit, weights).items():
                raw = maps[:, 0].float().cpu().numpy()
                found[view][start : start + BATCH] = smooth_max(raw)[0]
    return found


def _views(
    net: NDPNet, image: Tensor, weights: Mapping[str, tuple[float, float, float]]
) -> dict[str, Tensor]:
    """[N, 1, S, S] of each view, from one pass."""
    from ndp_edge.model.network import combine, mean_filter

    if set(weights) == {OWN}:
        return {OWN: net(image)}
    logits = net.analyse(image).logits
    return {view: mean_filter(combine(logits, one)) for view, one in weights.items()}


def _tune(
    net: NDPNet, splits: Splits, weights: Mapping[str, Any], device: str
) -> Iterator[tuple[str, dict[str, float]]]:
    from ndp_edge.calib.artificial import figures

    tune = tune_set(splits, net.config.image_size)
    for view, maps in smoothed(net, tune.images, weights, device).items():
        told = figures(maps, maps, tune)
        yield view, {key: told[key] for key in AREAS}


def _test(
    splits: Splits, size: int, maps: Mapping[str, Smoothed], limits: Mapping[str, float]
) -> dict[str, dict[str, float | None]]:
    """View -> figures; {} without a test folder."""
    if not splits.test:
        return {}
    labels = np.array([sample.label for sample in splits.test], np.int64)
    masks = load_masks(splits.test, size)
    return {
        view: metrics.summary(one.max(axis=(1, 2)), labels, one, masks, limits[view])
        for view, one in maps.items()
    }


@contextmanager
def _exact() -> Iterator[None]:
    """FP32 proper: cuDNN rounds to TF32 by itself."""
    import torch

    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def show(report: Mapping[str, Any]) -> str:
    """A short table for a terminal."""
    told = {"test": report["test"].get("fp32", {}), "tune": report["tune"]["fp32"]}
    for view, parts in report["heads"].items():
        told |= {f"{view}, {part}": figures for part, figures in sorted(parts.items())}
    keys = (*AREAS, "false_reject_rate", "miss_rate")
    rows = [["lacks " + report["ablation"], *keys]]
    for name, figures in told.items():
        cells = (figures.get(key) for key in keys)
        rows.append([name, *("-" if cell is None else f"{cell:.4f}" for cell in cells)])
    return table(rows)


def run(args: argparse.Namespace) -> int:
    """The command's body.

    Raises:
        MachineError: no torch, or no GPU where one is asked for.
    """
    try:
        import torch
    except ImportError as error:
        raise MachineError('judging needs torch: pip install "ndp-edge[train]"') from error
    device = choose_device(args.device, torch.cuda.is_available())
    check_targets(args.json)
    if args.threads:
        torch.set_num_threads(args.threads)
    report = judge(args.run, args.data, device)
    print(show(report), file=text_stream(args.json))
    emit_json(args.json, report)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point: exit 0 done, 2 bad input, 3 no torch or no GPU."""
    args = parser().parse_args(argv)
    return run_verb(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
