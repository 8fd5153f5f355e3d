"""`python -m ndp_edge.evaluate`: a bundle's figures on a data set's test folder.

The threshold is the bundle's frozen one; nothing is fitted here.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_edge import engines, metrics
from ndp_edge.bundle import Bundle
from ndp_edge.console import add_json_option, emit_json, run_verb, table, text_stream
from ndp_edge.data.folder import Sample, load_images, load_masks, open_dataset
from ndp_edge.errors import InputError
from ndp_edge.files import file_hash
from ndp_edge.runtime.sinks import stems, write_map
from ndp_edge.scoring import Answers, answer

PARTS = ("train", "calibration", "tune", "threshold")
"""Splits whose pictures must not be judged: the bundle was made from them."""


def parser() -> argparse.ArgumentParser:
    """The options of the verb."""
    p = argparse.ArgumentParser(prog="python -m ndp_edge.evaluate", description=__doc__)
    p.add_argument("bundle", type=Path, metavar="BUNDLE")
    p.add_argument("--data", type=Path, required=True, metavar="ROOT", help="MVTec-style folder")
    p.add_argument(
        "--precision", choices=("int8", "fp16", "fp32"), help="default: the bundle's own"
    )
    p.add_argument("--maps", type=Path, metavar="DIR", help="write float32 TIFF maps there")
    add_json_option(p)
    return p


def known_hashes(manifest: dict[str, Any]) -> dict[str, str]:
    """sha256 of every file the bundle was made from -> the split it was in."""
    known: dict[str, str] = {}
    for part in PARTS:
        entries = [manifest["splits"].get(part, {}).get("hashes")]
        entries += [manifest["calibration"].get("hashes")] if part == "calibration" else []
        entries += [manifest["training"].get("hashes")] if part == "train" else []
        for entry in entries:
            values = entry.values() if isinstance(entry, dict) else entry or ()
            known.update((str(value), part) for value in values)
    return known


def refuse_overlap(samples: list[Sample], manifest: dict[str, Any]) -> None:
    """See that no picture to be judged had a part in making the bundle.

    Raises:
        InputError: one had; the line names the first and how many there are.
    """
    known = known_hashes(manifest)
    seen = [(s, known[h]) for s in samples if (h := file_hash(s.path)) in known]
    if seen:
        sample, part = seen[0]
        raise InputError(
            f"{sample.name} was in the bundle's {part} split ({len(seen)} such files): figures on "
            "it would prove nothing; remove them from the test folder"
        )


def write_maps(folder: Path, samples: list[Sample], answers: Answers) -> None:
    """The smoothed maps as float32 TIFF, named as the pictures are, each whole or not at all."""
    names = stems([sample.name for sample in samples])
    for sample, smoothed in zip(samples, answers.smoothed, strict=True):
        path = folder / f"{names[sample.name]}.tiff"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_map(path, smoothed)


@dataclass(frozen=True)
class Judgement:
    """N test pictures and what the bundle's engine said about them.

    Attributes:
        samples: N of them, sorted by name.
        images: uint8 [N, S, S, 3], RGB, at the net's size S.
        labels: int64 [N], 1 for defective.
        masks: bool [N, S, S], the true defects.
        answers: smoothed maps, scores and times.
        backend, precision: which engine it was.
        device: what it ran on, where the engine tells.
    """

    samples: list[Sample]
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    masks: NDArray[np.bool_]
    answers: Answers
    backend: str
    precision: str
    device: str | None


def judge(bundle: Bundle, root: Path, precision: str | None) -> Judgement:
    """The test pictures below `root` through the bundle's engine, one at a time.

    Raises:
        InputError: no such precision in the bundle, no test pictures, or some of them leaked.
        MachineError: the bundle's backend is not installed.
    """
    backend, default = bundle.default
    chosen = precision or default
    model = bundle.engine_path(backend, chosen, engines.card_sm())
    samples = open_dataset(root, need_test=True).test
    refuse_overlap(samples, bundle.manifest)
    size = bundle.config.image_size
    images, masks = load_images(samples, size), load_masks(samples, size)
    labels = np.array([sample.label for sample in samples], np.int64)
    with engines.open_engine(backend, model, precision=chosen) as engine:
        device = engine.describe().get("device")
        answers = answer({chosen: engine}, images, "evaluating")[chosen]
    return Judgement(samples, images, labels, masks, answers, backend, chosen, device)


def evaluate(
    bundle: Bundle, root: Path, precision: str | None, maps: Path | None
) -> dict[str, Any]:
    """The report keys of DESIGN section 8 on the test pictures below `root`.

    Raises:
        InputError, MachineError: as `judge` does.
    """
    found = judge(bundle, root, precision)
    answers, labels = found.answers, found.labels
    if maps is not None:
        write_maps(maps, found.samples, answers)
    return {
        **metrics.summary(answers.scores, labels, answers.smoothed, found.masks, bundle.threshold),
        "latency_ms": answers.latency,
        "precision": found.precision,
        "backend": found.backend,
        "device": found.device,
        "bundle": bundle.hash,
        "data": str(root),
        "good": int((labels == 0).sum()),
        "defective": int((labels == 1).sum()),
        "notes": notes(bundle, found.precision, labels),
    }


def notes(bundle: Bundle, precision: str, labels: Any) -> list[str]:
    """What the figures of labels [N] cannot say, one sentence each."""
    told = []
    if precision != bundle.default[1]:
        told.append(f"the threshold was frozen for {bundle.default[1]}, not for {precision}")
    if len(set(labels.tolist())) < 2:
        told.append("only one kind of picture: AUROC, AUPRO and one of the rates are unknown")
    told_of = set(known_hashes(bundle.manifest).values())
    # tune: bundles built before there was one have none, and small sets leave it empty.
    missing = [part for part in PARTS if part != "tune" and part not in told_of]
    if missing:
        told.append(
            f"the bundle does not name the files of {', '.join(missing)}: "
            "whether test pictures are among them could not be checked"
        )
    return told


def show(report: dict[str, Any]) -> str:
    """The short table for a terminal."""
    rows = [[f"{report['backend']} {report['precision']}", ""]]
    for key in ("image_auroc", "pixel_auroc", "aupro", "false_reject_rate", "miss_rate"):
        value = report[key]
        shown = "-" if value is None else f"{value:.4f}"
        if value is not None and key.endswith("rate"):
            shown = f"{100 * value:.2f} %"
        rows.append([key, shown])
    rows.append(["threshold", f"{report['threshold']:.5f}"])
    rows += [[f"ms {part}", f"{report['latency_ms'][part]:.2f}"] for part in ("p50", "p95", "p99")]
    rows.append(["good, defective", f"{report['good']}, {report['defective']}"])
    return "\n".join([table(rows), *(f"note: {note}" for note in report["notes"])])


def run(args: argparse.Namespace) -> int:
    """The verb's body."""
    report = evaluate(Bundle.open(args.bundle), args.data, args.precision, args.maps)
    print(show(report), file=text_stream(args.json))
    emit_json(args.json, report)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point: exit 0 done, 2 bad input or leaked pictures, 3 no backend."""
    args = parser().parse_args(argv)
    return run_verb(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
