"""`python -m ndp_edge.run`: a bundle over a folder of frames, one verdict per frame.

Writes into --out: results.jsonl (one line per frame, as soon as it is judged), overlays/*.jpg
(the frame with outlines beside its heat map), maps/*.tiff (float32) and summary.json. A frame
that cannot be judged is rejected, with the reason in its line; the run goes on and ends with
exit code 2. Ctrl-C and SIGTERM stop between two frames and still write the summary.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from ndp_edge import engines
from ndp_edge.bundle import Bundle
from ndp_edge.console import (
    add_json_option,
    emit_json,
    info,
    json_text,
    progress,
    run_verb,
    table,
    text_stream,
)
from ndp_edge.errors import InputError
from ndp_edge.files import write_atomic
from ndp_edge.runtime.inspect import Judge
from ndp_edge.runtime.sinks import (
    MAPS,
    OVERLAYS,
    RESULTS,
    SUMMARY,
    PictureSink,
    ResultsLog,
    read_results,
    to_line,
)
from ndp_edge.runtime.sources import FolderSource, check_folder
from ndp_edge.runtime.summary import Summary


def parser() -> argparse.ArgumentParser:
    """The options of the verb."""
    p = argparse.ArgumentParser(prog="python -m ndp_edge.run", description=__doc__)
    p.add_argument("bundle", type=Path, metavar="BUNDLE")
    p.add_argument("--source", required=True, metavar="FOLDER", help="pictures, in sorted order")
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the results")
    p.add_argument("--max-frames", type=_positive, metavar="N", help="judge the first N at most")
    again = p.add_mutually_exclusive_group()
    again.add_argument("--force", action="store_true", help="replace the results in --out")
    again.add_argument("--resume", action="store_true", help="go on behind the results in --out")
    add_json_option(p)
    return p


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


class Stop:
    """Set by SIGINT or SIGTERM; a second signal ends the process at once."""

    def __init__(self) -> None:
        self.signal: int | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator[Stop]:
        """Catch both signals inside the block and restore the former handlers after it."""
        kinds = (signal.SIGINT, signal.SIGTERM)
        former = {kind: signal.signal(kind, self._on_signal) for kind in kinds}
        try:
            yield self
        finally:
            for kind, handler in former.items():
                signal.signal(kind, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.signal = number
        signal.signal(number, signal.SIG_DFL)


def prepare_out(out: Path, *, force: bool, resume: bool, bundle: str) -> list[dict[str, Any]]:
    """Make `out` ready and return the lines already there (with `resume` only).

    Raises:
        InputError: `out` holds something that this run must not touch.
    """
    results = out / RESULTS
    if resume:
        if not results.is_file():
            raise InputError(f"{out} holds no {RESULTS} to resume; leave out --resume")
        lines = read_results(results)
        if any(line["bundle"] != bundle for line in lines):
            raise InputError(f"{results} was made by another bundle; use another --out")
        return lines
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; name a folder")
    if results.exists():
        if not force:
            raise InputError(
                f"{out} holds results already; --resume goes on, --force replaces them"
            )
        for name in (RESULTS, SUMMARY):
            (out / name).unlink(missing_ok=True)
        for name in (OVERLAYS, MAPS):
            shutil.rmtree(out / name, ignore_errors=True)
    elif out.is_dir() and any(out.iterdir()):
        raise InputError(f"--out {out} is not empty and holds no results; name another folder")
    out.mkdir(parents=True, exist_ok=True)
    return []


def inspect_folder(
    judge: Judge, source: FolderSource, out: Path, summary: Summary, stop: Stop
) -> None:
    """Judge every frame and write it down; returns early when `stop` was signalled.

    Raises:
        OSError: the disk is full or gone; what was written before it is whole.
    """
    pictures = PictureSink(out, source.names)
    with ResultsLog(out / RESULTS) as log:
        for captured in progress(source, total=len(source), label="frames"):
            if stop.signal is not None:
                return
            result, smoothed = judge(captured)
            began = time.perf_counter()
            if captured.frame is not None and smoothed is not None:
                pictures.write(captured.frame, smoothed, judge.threshold)
            write_ms = 1e3 * (time.perf_counter() - began)
            times = {**result.latency_ms, "write": write_ms}
            line = to_line(dataclasses.replace(result, latency_ms=times))
            # Last, so that a line in the log means that its pictures are there.
            log.append(line)
            summary.add(line)


def run(args: argparse.Namespace) -> int:
    """The verb's body.

    Raises:
        InputError: bundle, source or --out are wrong.
        MachineError: the bundle's backend is not installed.
    """
    folder = check_folder(args.source)
    FolderSource(folder)  # this and the engine may complain before anything is replaced
    bundle = Bundle.open(args.bundle)
    backend, precision = bundle.default
    model = bundle.engine_path(backend, precision, engines.card_sm())
    size = bundle.config.image_size
    stop, summary = Stop(), Summary()
    with engines.open_engine(backend, model, precision=precision) as engine, stop.listening():
        done = prepare_out(args.out, force=args.force, resume=args.resume, bundle=bundle.hash)
        source = FolderSource(folder, [line["frame"] for line in done], args.max_frames)
        for line in done:
            summary.add(line)
        about = {
            "source": str(folder),
            "bundle": bundle.hash,
            "threshold": bundle.threshold,
            **engine.describe(),
            "started": _now(),
        }
        engine.infer(np.zeros((1, size, size, 3), np.uint8))  # the first call allocates
        judge = Judge(engine, size, bundle.threshold, bundle.hash)
        try:
            inspect_folder(judge, source, args.out, summary, stop)
        except OSError as error:
            error.filename = error.filename or str(args.out)  # a failed write names no file
            with contextlib.suppress(OSError):
                finish(args, summary, about, "disk")
            raise
        finish(args, summary, about, signal.Signals(stop.signal).name if stop.signal else None)
    return exit_code(summary, stop)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def finish(
    args: argparse.Namespace, summary: Summary, about: dict[str, Any], stopped: str | None
) -> None:
    """Write summary.json, tell the counts."""
    report = {**summary.to_dict(), **about, "finished": _now(), "stopped": stopped}
    write_atomic(args.out / SUMMARY, json_text(report).encode())
    emit_json(args.json, report)
    rows = [["stage", "p50", "p95", "p99 ms"]]
    for stage, ms in report["latency_ms"].items():
        rows.append([stage, *(f"{ms[part]:.2f}" for part in ("p50", "p95", "p99"))])
    rate = report["reject_rate"]
    share = "" if rate is None else f" ({100 * rate:.2f} %)"
    told = (
        f"{report['frames']} frames: {report['ok']} ok, {report['reject']} rejected{share}, "
        f"{report['errors']} of them not judged"
    )
    print(f"{table(rows)}\n{told}\nresults: {args.out / RESULTS}", file=text_stream(args.json))


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
