"""`python -m ndp_edge.run`: a bundle on a source of frames, one verdict per frame.

Writes into --out: results.jsonl (one line per frame, in order, as soon as it is judged),
overlays/*.jpg (the frame with outlines beside its heat map), maps/*.tiff (float32),
summary.json, and drops.jsonl where frames were given up. A frame that cannot be judged is
rejected, with the reason in its line; the run goes on and ends with exit code 2. Ctrl-C and
SIGTERM finish what the engine has begun and still write the summary. --monitor PORT serves a
page for the person at the line.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import time
from collections.abc import Iterator
from typing import Any

from ndp_edge import run_options
from ndp_edge.bundle import Bundle
from ndp_edge.console import (
    bar,
    emit_json,
    info,
    json_text,
    run_verb,
    table,
    text_stream,
)
from ndp_edge.engines.base import Engine
from ndp_edge.errors import NdpError
from ndp_edge.files import write_atomic
from ndp_edge.image import read_marks
from ndp_edge.run_watching import Watch, watching
from ndp_edge.runtime.engine import open_engine, warm_up
from ndp_edge.runtime.inspect import Judge
from ndp_edge.runtime.layout import Layout
from ndp_edge.runtime.memory import resident_bytes
from ndp_edge.runtime.observing import Control
from ndp_edge.runtime.opening import is_camera, open_source, redact
from ndp_edge.runtime.outfolder import Past, check_out, clear_out, read_past
from ndp_edge.runtime.pacing import Paced
from ndp_edge.runtime.pipeline import Pipeline
from ndp_edge.runtime.sinks import RESULTS, SUMMARY, PictureSink
from ndp_edge.runtime.sources import Source
from ndp_edge.runtime.stopping import Stop
from ndp_edge.runtime.summary import Summary
from ndp_edge.runtime.writing import Writer


def parser() -> argparse.ArgumentParser:
    """The options of the verb."""
    return run_options.parser(__doc__)


def run(args: argparse.Namespace) -> int:
    """The verb's body.

    Raises:
        InputError: bundle, source, an option or --out are wrong.
        MachineError: the bundle's backend is not installed.
        OSError: the disk is full or gone.
    """
    # Everything that may complain does so before anything in --out is touched.
    check_out(args.out, force=args.force, resume=args.resume)
    bundle = Bundle.open(args.bundle)
    past = read_past(args.out, bundle.hash) if args.resume else Past()
    source = open_frames(args, past)
    size = bundle.config.image_size
    roi = None if args.roi is None else read_marks(args.roi)
    layout = Layout(size, args.layout, args.overlap, roi)
    control = Control(bundle.threshold if past.threshold is None else past.threshold)
    if control.threshold != bundle.threshold:
        info(f"the threshold stays where it was left, at {control.threshold:.6g}")
    stop = Stop()
    with (
        open_engine(bundle, args.in_flight) as engine,
        stop.listening(),
        watching(args, control, bundle) as watch,
    ):
        pipeline = Pipeline(
            engine,
            source,
            layout,
            Judge(control, bundle.hash),
            in_flight=args.in_flight,
            queue=args.queue,
            drop=args.drop,
            deadline_ms=args.deadline_ms,
            stop=lambda: stop.signal is not None,
        )
        warm_up(engine, pipeline.in_flight)
        about = describe(args, bundle, engine, pipeline)
        if not args.resume:
            clear_out(args.out)
        names = getattr(source, "names", None)
        writer = Writer(
            args.out,
            PictureSink(args.out, names, args.keep, masks=args.masks),
            control,
            past.summary,
            gauges=lambda: {**pipeline.gauges(), "resident_bytes": float(resident_bytes())},
            observers=watch.observers,
            deadline_ms=args.deadline_ms,
            sync_seconds=args.fsync,
        )
        with finishing(args, past.summary, about, stop, source, watch):
            inspect(pipeline, writer, source)
    return exit_code(past.summary, stop)


def open_frames(args: argparse.Namespace, past: Past) -> Source:
    """The source behind what is done already, paced where --fps says so.

    Raises:
        InputError: there is no such source, or options that do not go with it.
        MachineError: this machine lacks what opens it.
    """
    run_options.check(args, own_pace=args.watch or is_camera(args.source))
    source = open_source(
        args.source,
        skip=past.names,
        limit=args.max_frames,
        watch=args.watch,
        pixel=args.pixel,
        reconnect=args.reconnect,
        stall_seconds=args.stall,
    )
    return source if args.fps is None else Paced(source, args.fps)


def describe(
    args: argparse.Namespace, bundle: Bundle, engine: Engine, pipeline: Pipeline
) -> dict[str, Any]:
    """What summary.json says of the run beside its counts."""
    return {
        "source": redact(args.source),
        "bundle": bundle.hash,
        "threshold": bundle.threshold,
        **engine.describe(),
        "in_flight": pipeline.in_flight,
        **{key: getattr(args, key) for key in ("queue", "drop", "deadline_ms", "fps", "layout")},
        "started": _now(),
    }


def inspect(pipeline: Pipeline, writer: Writer, source: Source) -> None:
    """Write down what comes out of the pipeline until it ends.

    Raises:
        OSError: the disk is full or gone; what was written before it is whole, and what was
            captured and cannot be written is counted as dropped where it cannot be read again.
    """
    with pipeline, writer, bar(total=_length(source), label="frames") as told:
        items = iter(pipeline)
        for item in items:
            try:
                writer.write(item)
            except OSError:
                pipeline.stop()
                for left in (item, *items) if pipeline.live else ():
                    writer.give_up(left)
                raise
            told.update(item is not None)


def _length(source: Any) -> int | None:
    try:
        return len(source)
    except TypeError:  # a camera has no end, and a video does not know its own
        return None


@contextlib.contextmanager
def finishing(
    args: argparse.Namespace,
    summary: Summary,
    about: dict[str, Any],
    stop: Stop,
    source: Source,
    watch: Watch,
) -> Iterator[None]:
    """Write summary.json and tell the counts when the block ends, also by an error."""
    began, before = time.perf_counter(), summary.frames
    stopped: str | None = "error"
    try:
        yield
        stopped = stop.name
    except NdpError:  # the stages turn all others into verdicts
        stopped = "source"
        raise
    except OSError as error:
        stopped = "disk"
        error.filename = error.filename or str(args.out)  # a failed write names no file
        raise
    finally:
        seconds = time.perf_counter() - began
        report = {
            **summary.to_dict(),
            **about,
            "finished": _now(),
            "frames_per_second": (summary.frames - before) / seconds,
            "resident_bytes": resident_bytes(),
            "reconnects": getattr(source, "reconnects", 0),
            "stopped": stopped,
            **watch.report(),
        }
        # What went wrong first is what is told.
        with contextlib.suppress(OSError) if stopped == "disk" else contextlib.nullcontext():
            finish(args, report)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def finish(args: argparse.Namespace, report: dict[str, Any]) -> None:
    """Write summary.json, tell the counts."""
    write_atomic(args.out / SUMMARY, json_text(report).encode())
    emit_json(args.json, report)
    rows = [["stage", "p50", "p95", "p99 ms"]]
    for stage, ms in report["latency_ms"].items():
        rows.append([stage, *(f"{ms[part]:.2f}" for part in ("p50", "p95", "p99"))])
    rate = report["reject_rate"]
    share = "" if rate is None else f" ({100 * rate:.2f} %)"
    told = [
        f"{report['frames']} frames: {report['ok']} ok, {report['reject']} rejected{share}, "
        f"{report['errors']} of them not judged"
    ]
    if report["late"]:
        told.append(f"{report['late']} verdicts were late")
    if report["dropped"]:
        reasons = ", ".join(f"{count} {why}" for why, count in report["drops"].items())
        told.append(f"{report['dropped']} frames dropped ({reasons}); drops.jsonl names them")
    text = "\n".join([table(rows), *told, f"results: {args.out / RESULTS}"])
    print(text, file=text_stream(args.json))


def exit_code(summary: Summary, stop: Stop) -> int:
    """0, 2 when frames could not be judged, or 128 plus the signal that stopped the run."""
    if summary.errors:
        info(
            f"error: {summary.errors} of {summary.frames} frames could not be judged and were "
            'rejected; their lines in results.jsonl say why ("error")'
        )
    if stop.signal is not None:
        return 128 + stop.signal
    return 2 if summary.errors else 0


def main(argv: list[str] | None = None) -> int:
    """Entry point: exit 0 done, 2 bad input or frames not judged, 3 no backend."""
    args = parser().parse_args(argv)
    return run_verb(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
