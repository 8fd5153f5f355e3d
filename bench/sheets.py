"""`python -m ndp_edge.bench.sheets BUNDLE --data DIR --out FILE`: hits, misses, false rejects.

One picture to look at per surface: the test folder is judged as `evaluate` judges it, and the
sheet shows what the bundle finds, what it misses and which good product it rejects.
"""

from __future__ import annotations

import argparse
import datetime
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_edge import metrics
from ndp_edge.bench.sheet_drawing import WRITES, Band, Column, draw, encode
from ndp_edge.bundle import Bundle
from ndp_edge.console import (
    add_json_option,
    check_targets,
    counted,
    emit_json,
    run_verb,
    text_stream,
)
from ndp_edge.errors import InputError
from ndp_edge.evaluate import Judgement, judge, notes
from ndp_edge.files import write_atomic

MOST = 16
"""Pictures per band at most: a wider sheet is not read at 100 %."""


@dataclass(frozen=True)
class Choice:
    """Pictures by what became of them, as indices into one test set, and those to be shown.

    Attributes:
        hits: defective and rejected, the highest score first.
        misses: defective and not rejected, the lowest score first.
        false_rejects: good and rejected, the highest score first.
        shown: kind -> the indices to draw, in the same order as above; of hits and misses both
            ends. `nearest` holds good pictures that were not rejected, the highest score first,
            for the room that false rejects leave.
    """

    hits: list[int]
    misses: list[int]
    false_rejects: list[int]
    shown: dict[str, list[int]]


def choose(
    scores: NDArray[np.float32], labels: NDArray[np.int64], threshold: float, each: int
) -> Choice:
    """Sort pictures into hits, misses and false rejects, and choose which to show.

    Args:
        scores: float32 [N], compared with the threshold in float64 as the verdict does.
        labels: int64 [N], 1 for defective.
        threshold: of the scores; above it a picture is rejected.
        each: pictures of a kind to show at most, at least 1.

    Ties keep the order of the test set.
    """
    rejected = scores.astype(np.float64) > threshold
    falling, rising = np.argsort(-scores, kind="stable"), np.argsort(scores, kind="stable")
    bad = labels == 1

    def those(order: NDArray[np.intp], which: NDArray[np.bool_]) -> list[int]:
        return [int(i) for i in order if which[i]]

    hits, misses = those(falling, bad & rejected), those(rising, bad & ~rejected)
    false_rejects = those(falling, ~bad & rejected)
    nearest = those(falling, ~bad & ~rejected)
    shown = {
        "hits": _ends(hits, each),
        "misses": _ends(misses, each),
        "false_rejects": false_rejects[:each],
        "nearest": nearest[: max(0, each - len(false_rejects))],
    }
    return Choice(hits, misses, false_rejects, shown)


def _ends(ranked: list[int], each: int) -> list[int]:
    """The first half of `each` from the front, the rest from the back; all where they fit."""
    if len(ranked) <= each:
        return ranked
    back = each // 2
    return ranked[: each - back] + ranked[len(ranked) - back :]


def bands(found: Judgement, choice: Choice, threshold: float) -> list[Band]:
    """The three bands of the sheet, with what their titles say."""
    good, bad = int((found.labels == 0).sum()), int((found.labels == 1).sum())
    hits, misses, wrong = len(choice.hits), len(choice.misses), len(choice.false_rejects)
    of_bad, of_good = counted(bad, "defective picture"), counted(good, "good picture")
    titles = {
        "hits": (f"hits: {hits} of {of_bad}", "the highest and the lowest scores"),
        "misses": (f"misses: {misses} of {of_bad}", "the lowest scores, then those nearest below"),
        "false_rejects": (f"false rejects: {wrong} of {of_good}", "the highest scores"),
    }
    result = []
    for kind, (title, order) in titles.items():
        shown, told = choice.shown[kind], ""
        if len(shown) < len(getattr(choice, kind)):
            told = f"shown: {order}"
        rows: tuple[int, ...] = (0, 1, 2)
        if kind == "false_rejects" and choice.shown["nearest"]:
            shown = shown + choice.shown["nearest"]
            told = f"{'then ' if wrong else ''}the good pictures nearest below the threshold"
            rows = rows if wrong else (0, 2)  # nothing to mark
        columns = [_column(found, i, threshold) for i in shown]
        result.append(Band(title, told, columns, rows))
    return result


def _column(found: Judgement, index: int, threshold: float) -> Column:
    sample, score = found.samples[index], float(found.answers.scores[index])
    return Column(
        name=sample.name.removeprefix("test/"),
        told=f"score {score:.4f} {'>' if score > threshold else '<='} {threshold:.4f}",
        image=found.images[index],
        heat=found.answers.smoothed[index],
        mask=found.masks[index],
    )


def report(bundle: Bundle, root: Path, found: Judgement, choice: Choice) -> dict[str, Any]:
    """What the JSON says; lists in the order of `Choice`."""

    def listed(indices: list[int]) -> list[dict[str, Any]]:
        return [
            {"name": found.samples[i].name, "score": float(found.answers.scores[i])}
            for i in indices
        ]

    kinds = ("hits", "misses", "false_rejects")
    return {
        "date": datetime.date.today().isoformat(),
        "surface": root.resolve().name,
        "data": str(root),
        "bundle": bundle.hash,
        "preset": bundle.config.preset,
        "backend": found.backend,
        "precision": found.precision,
        "threshold": bundle.threshold,
        "image_auroc": metrics.image_auroc(found.answers.scores, found.labels),
        "good": int((found.labels == 0).sum()),
        "defective": int((found.labels == 1).sum()),
        "counts": {kind: len(getattr(choice, kind)) for kind in kinds},
        "pictures": {kind: listed(getattr(choice, kind)) for kind in kinds},
        "shown": {kind: [found.samples[i].name for i in at] for kind, at in choice.shown.items()},
        "notes": notes(bundle, found.precision, found.labels),
    }


def parser() -> argparse.ArgumentParser:
    """The options."""
    p = argparse.ArgumentParser(prog="python -m ndp_edge.bench.sheets", description=__doc__)
    p.add_argument("bundle", type=Path, metavar="BUNDLE")
    p.add_argument("--data", type=Path, required=True, metavar="DIR", help="MVTec-style folder")
    p.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help=f"the sheet: {', '.join(WRITES)}"
    )
    p.add_argument(
        "--precision", choices=("int8", "fp16", "fp32"), help="default: the bundle's own"
    )
    p.add_argument(
        "--each", type=int, default=6, metavar="N", help=f"pictures per band, 1 to {MOST} (6)"
    )
    add_json_option(p)
    return p


def check(args: argparse.Namespace) -> None:
    """See that options fit and files can be written, before a minute of work.

    Raises:
        InputError: they do not, or cannot.
    """
    if not 1 <= args.each <= MOST:
        raise InputError(f"--each {args.each}: wanted 1 to {MOST} pictures per band")
    if args.out.suffix not in WRITES:
        raise InputError(f"--out {args.out}: wanted a name that ends with {', '.join(WRITES)}")
    check_targets(args.out, args.json)
    for target in (args.out, args.json):
        if target not in (None, "-") and not os.access(Path(target).parent, os.W_OK):
            raise InputError(f"{Path(target).parent} may not be written to; choose another folder")


def run(args: argparse.Namespace) -> int:
    """Judge, choose, draw, write; the sheet first, then the JSON."""
    check(args)
    bundle = Bundle.open(args.bundle)
    found = judge(bundle, args.data, args.precision)
    for label, kind in ((0, "good"), (1, "defective")):
        if not (found.labels == label).any():
            raise InputError(f"{args.data}: has no {kind} test pictures; a sheet needs both kinds")
    choice = choose(found.answers.scores, found.labels, bundle.threshold, args.each)
    told = report(bundle, args.data, found, choice)
    title = (
        f"{told['surface']}: {told['preset']} {told['precision']}, "
        f"threshold {bundle.threshold:.4f}, image AUROC {told['image_auroc']:.4f}, {told['date']}"
    )
    sheet = draw(title, bands(found, choice, bundle.threshold), bundle.threshold)
    write_atomic(args.out, encode(sheet, args.out.suffix))
    counts = ", ".join(f"{kind.replace('_', ' ')} {n}" for kind, n in told["counts"].items())
    print(f"{title}\n{counts}; {args.out}", file=text_stream(args.json))
    for note in told["notes"]:
        print(f"note: {note}", file=text_stream(args.json))
    emit_json(args.json, told)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point: exit 0 done, 2 bad input or leaked pictures, 3 no backend."""
    args = parser().parse_args(argv)
    return run_verb(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
