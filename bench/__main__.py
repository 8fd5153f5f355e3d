"""`python -m ndp_edge.bench`: is it fast enough here, and did yesterday's change cost anything?

Every engine that this machine has takes turns in one run, from decoded frame to verdict. With
--baseline the run is held against a saved one (--json saves it): exit 1 when a row has become
slower than --max-regress allows and chance is no explanation, or when accuracy fell.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ndp_edge.bench import baseline, contenders, peers, regression, tables
from ndp_edge.bench.net_parts import openvino_parts
from ndp_edge.bench.reference_work import ReferenceWork
from ndp_edge.bench.result import accuracy, key, result
from ndp_edge.bench.rounds import Row, Run
from ndp_edge.bench.sensors import Sensors
from ndp_edge.bench.torch_side import Infer
from ndp_edge.bundle import Bundle
from ndp_edge.console import (
    add_json_option,
    check_targets,
    emit_json,
    info,
    progress,
    run_verb,
    text_stream,
)
from ndp_edge.errors import GateError, InputError
from ndp_edge.files import write_atomic
from ndp_edge.model.config import PRESETS

Plant = Callable[[Infer], Infer]

EXTRA = 3
"""How often as many rounds again, at most, while a comparison is undecided."""

LATER = 5
"""A second look begins this many times --every after the first."""


def parser() -> argparse.ArgumentParser:
    """The options of the verb."""
    p = argparse.ArgumentParser(prog="python -m ndp_edge.bench", description=__doc__)
    p.add_argument("bundle", type=Path, nargs="?", metavar="BUNDLE", help="default: a preset's net")
    p.add_argument("--preset", choices=PRESETS, help="default: nano, the shipped net")
    p.add_argument("--engines", metavar="A,B", help='such as "openvino-int8"; default: all here')
    p.add_argument("--compile", action="store_true", help="torch.compile too (minutes on a CPU)")
    p.add_argument("--parts", action="store_true", help="time by part of the net too (OpenVINO)")
    p.add_argument("--peers", action="store_true", help="other papers' nets too")
    p.add_argument(
        "--draem", type=Path, metavar="RUN", help="with --peers: what peers.draem_train made"
    )
    p.add_argument("--batch", default="1", metavar="N,M", help="frames per call; default: 1")
    p.add_argument("--runs", type=int, default=8, help="timed calls per row and round")
    p.add_argument("--rounds", type=int, default=10, help="default: 10")
    p.add_argument(
        "--every",
        type=float,
        default=3.0,
        metavar="S",
        help="seconds from round to round",
    )
    p.add_argument("--threads", type=int, help="of a CPU; default: each backend's choice")
    p.add_argument("--baseline", type=Path, metavar="FILE", help="what --json saved earlier")
    p.add_argument(
        "--max-regress", type=float, default=0.10, metavar="R", help="slower by; default 0.10"
    )
    p.add_argument(
        "--max-drop", type=float, default=0.005, metavar="D", help="accuracy, as in build"
    )
    p.add_argument("--markdown", type=Path, metavar="FILE", help="a table for a pull request")
    add_json_option(p)
    return p


def check_options(args: argparse.Namespace) -> list[int]:
    """The batch sizes.

    Raises:
        InputError: an option out of its range, or two that exclude each other.
    """
    if args.bundle is not None and args.preset is not None:
        raise InputError("give a bundle or --preset, not both: a bundle has its own")
    if args.draem is not None and not (args.peers and args.bundle):
        raise InputError("--draem wants --peers and a bundle, beside whose accuracy it stands")
    for name, least in (("runs", 1), ("rounds", 3), ("threads", 1)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise InputError(f"--{name} {value}: at least {least}")
    for name in ("max_regress", "max_drop", "every"):
        value = getattr(args, name)
        if not (value >= 0 and math.isfinite(value)):
            raise InputError(f"--{name.replace('_', '-')} {value}: at least 0, such as 0.1")
    try:
        batches = list(dict.fromkeys(int(part) for part in args.batch.split(",")))
    except ValueError:
        raise InputError(f"--batch {args.batch}: numbers with commas, such as 1,8") from None
    if min(batches) < 1:
        raise InputError(f"--batch {args.batch}: at least 1")
    check_targets(args.json, args.markdown)
    return batches


def open_rows(
    args: argparse.Namespace,
    net: contenders.Net,
    batches: list[int],
    stack: ExitStack,
    plant: Plant | None,
) -> tuple[list[Row], list[str]]:
    """Every row of the run, ready, and notes on what is not among them."""
    asked = args.engines.split(",") if args.engines else []
    contenders.check_names(net, asked)
    chosen, notes = (asked, []) if asked else contenders.usual(net, compiled=args.compile)
    opened, told = contenders.open_all(chosen, bool(asked), net, stack, args.threads)
    others: dict[str, tuple[Infer, dict[str, Any]]] = {}
    if args.peers:
        others = peers.open_peers(net.config.image_size, args.threads, args.draem)
        notes.append(peers.NOTE)
    rows = [
        Row(name, batch, plant(infer) if plant else infer, about, most=most)
        for found, most in ((opened, None), (others, peers.CALLS))
        for name, (infer, about) in found.items()
        for batch in batches
    ]
    return rows, notes + told


def read_draem(folder: Path, bundle: Bundle | None) -> dict[str, Any]:
    """A run of `peers.draem_train`, judged on the bundle's own test pictures.

    Raises:
        InputError: it is none, or was judged on others.
    """
    judged = accuracy(bundle) or {}
    return peers.read_draem(folder, judged.get("pictures"))


def bench(args: argparse.Namespace, plant: Plant | None = None) -> dict[str, Any]:
    """The run's report, under "baseline" the comparison where one was asked for.

    Args:
        plant: goes around every engine's inference; `gate_trial` plants slow-downs with it.

    Raises:
        InputError, MachineError: options, bundle or baseline are wrong, or an engine that was
            asked for is not here.
    """
    batches = check_options(args)
    before = baseline.read_baseline(args.baseline) if args.baseline else None
    with ExitStack() as stack:
        bundle = Bundle.open(args.bundle) if args.bundle else None
        draem = read_draem(args.draem, bundle) if args.draem else None
        if bundle is not None:
            net = contenders.net_of_bundle(bundle)
        else:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ndp-edge-bench-"))
            net = contenders.net_of_preset(args.preset or "nano", Path(folder))
        rows, notes = open_rows(args, net, batches, stack, plant)
        if args.peers:
            notes.append(peers.draem_note(draem) if draem else peers.UNTRAINED)
        reference, sensors = ReferenceWork(), Sensors()
        if before is not None:  # before minutes are spent on figures that do not compare
            keys = {row.label: key(row, net.about, reference.about) for row in rows}
            baseline.check_keys(before, keys)
        parts = {}
        if args.parts:
            image = net.frames.square(0, 1)
            parts = {"net_parts_ms": openvino_parts(net.models, image, args.threads)}
        run = Run(rows, reference, net.frames, sensors)
        run.warm_up()
        meter = sensors.meter.source if sensors.meter else None
        settings = {"runs": args.runs, "every_s": args.every, "frames": len(net.frames.images)}

        def report() -> dict[str, Any]:
            found = result(run, net, reference.about, settings, meter, bundle, notes)
            if args.peers:
                peers.add_accuracy(found, draem)
            return found

        return measure(args, run, report, before) | parts


def measure(
    args: argparse.Namespace,
    run: Run,
    report: Callable[[], dict[str, Any]],
    before: dict[str, Any] | None,
) -> dict[str, Any]:
    """Rounds; more of them while a comparison is undecided, and a second look at an alarm."""

    def look(label: str) -> dict[str, Any]:
        rounds = progress(range(args.rounds), total=args.rounds, label=label)
        run.measure(rounds, args.runs, args.every)
        return report()

    found = look("timing")
    if before is None:
        return found
    limits = {"max_regress": args.max_regress, "max_drop": args.max_drop}
    compared = regression.compare(before, found, **limits)
    for _ in range(EXTRA):
        if not compared.undecided:
            break
        found = look("timing again, undecided")
        compared = regression.compare(before, found, **limits)
    if compared.slower:
        time.sleep(LATER * args.every)
        found = look("timing again, slower than the baseline")
        compared = regression.confirm(
            before, found, compared, args.rounds, max_regress=args.max_regress
        )
    return found | {"baseline": compared.to_dict()}


def run_bench(args: argparse.Namespace, plant: Plant | None = None) -> int:
    """The verb's body; `plant` as for `bench`.

    Raises:
        GateError: something regressed; the reports are written all the same.
    """
    report = bench(args, plant)
    print(tables.terminal(report), file=text_stream(args.json))
    emit_json(args.json, report)
    if args.markdown:
        write_atomic(args.markdown, tables.markdown(report).encode())
        info(f"markdown: {args.markdown}")
    compared = report.get("baseline")
    if compared and not compared["passed"]:
        raise GateError(f"regression: {compared['reason']}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point: exit 0 done, 1 a regression, 2 bad input or another key, 3 no engine."""
    args = parser().parse_args(argv)
    return run_verb(lambda: run_bench(args))


if __name__ == "__main__":
    raise SystemExit(main())
