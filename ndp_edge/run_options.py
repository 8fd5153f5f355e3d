"""The options of `python -m ndp_edge.run`, and what they must not ask for together."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

from ndp_edge.console import add_json_option
from ndp_edge.errors import InputError
from ndp_edge.runtime.feeding import DROPS
from ndp_edge.runtime.layout import MODES
from ndp_edge.runtime.linelog import SYNC_SECONDS
from ndp_edge.runtime.pipeline import QUEUE
from ndp_edge.runtime.reconnecting import STALL_SECONDS
from ndp_edge.runtime.sinks import KEEPS


def parser(about: str | None) -> argparse.ArgumentParser:
    """All options of the verb; `about` is what --help says first."""
    p = argparse.ArgumentParser(prog="python -m ndp_edge.run", description=about)
    p.add_argument("bundle", type=Path, metavar="BUNDLE")
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the results")
    again = p.add_mutually_exclusive_group()
    again.add_argument("--force", action="store_true", help="replace the results in --out")
    again.add_argument("--resume", action="store_true", help="go on behind the results in --out")
    add_json_option(p)
    _source(p.add_argument_group("frames"))
    _speed(p.add_argument_group("keeping up"))
    _results(p.add_argument_group("results"))
    _watching(p.add_argument_group("watching"))
    return p


def _source(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--source",
        required=True,
        metavar="WHAT",
        help="a folder of pictures; a list of them (.txt, .csv); a video; a camera: v4l2:0, "
        "rtsp://…, http://…, gst:PIPELINE, genicam:PRODUCER.cti[#CAMERA]",
    )
    group.add_argument(
        "--watch", action="store_true", help="the folder is being filled: go on with what comes"
    )
    group.add_argument(
        "--pixel",
        default="auto",
        metavar="FORMAT",
        help="what the pictures hold: mono, rggb, bggr, grbg, gbrg (Bayer), rgb or bgr, with "
        "its bits where they are not the type's (mono12, rggb10); auto takes gray and colour",
    )
    group.add_argument(
        "--no-reconnect",
        dest="reconnect",
        action="store_false",
        help="end when the camera or stream is lost",
    )
    group.add_argument(
        "--stall",
        type=_above(0),
        default=STALL_SECONDS,
        metavar="SECONDS",
        help=f"a camera without a frame for so long is lost, and opened again ({STALL_SECONDS:g})",
    )
    group.add_argument("--max-frames", type=_whole, metavar="N", help="judge the first N at most")
    group.add_argument("--fps", type=_above(0), metavar="N", help="play files as a camera would")
    group.add_argument(
        "--layout",
        choices=MODES,
        default="auto",
        help="shrink square frames to the net's size, as in training; or cut tiles at native "
        "scale. auto (default) shrinks square frames and tiles the others",
    )
    group.add_argument(
        "--overlap", type=int, default=32, metavar="PX", help="pixels that tiles share (32)"
    )
    group.add_argument(
        "--roi", type=Path, metavar="MASK", help="PNG of the frame's size; defects count where > 0"
    )


def _speed(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--deadline-ms",
        type=_above(0),
        metavar="N",
        help='a verdict later than this after its capture is marked ("late": true)',
    )
    group.add_argument(
        "--drop",
        choices=DROPS,
        default=DROPS[0],
        help="when the line is full: block lets the source wait (default); oldest gives up the "
        "frame that waited longest, and with --deadline-ms those that are too late already",
    )
    group.add_argument(
        "--queue", type=_whole, default=QUEUE, metavar="N", help=f"frames that may wait ({QUEUE})"
    )
    group.add_argument(
        "--in-flight",
        type=_whole,
        metavar="N",
        help="requests in the engine at once; 1 tunes it for latency, default for throughput",
    )


def _results(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--keep", choices=KEEPS, default=KEEPS[0], help="of which frames pictures are kept (all)"
    )
    group.add_argument("--masks", action="store_true", help="masks of the defects, too")
    group.add_argument(
        "--fsync",
        type=_above(-1e-9),
        default=SYNC_SECONDS,
        metavar="SECONDS",
        help=f"what a power cut may cost ({SYNC_SECONDS:g}); 0 flushes every line",
    )


def _watching(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--monitor", type=_port, metavar="PORT", help="a page for the line; 0 takes a free port"
    )
    group.add_argument(
        "--monitor-host",
        metavar="HOST",
        help="address to serve at; default 127.0.0.1: this machine only. 0.0.0.0 is everybody",
    )
    group.add_argument(
        "--monitor-read-only",
        action="store_true",
        help="nobody can turn the threshold on the page",
    )
    group.add_argument(
        "--metrics-port",
        type=_port,
        metavar="PORT",
        help="/metrics for Prometheus without the page; the page has it too",
    )
    group.add_argument(
        "--webhook", metavar="URL", help="POST every verdict's line of results.jsonl there"
    )
    group.add_argument(
        "--mqtt",
        metavar="HOST[:PORT]/TOPIC",
        help="publish it there; mqtts://USER:PASSWORD@HOST/TOPIC for TLS and a login",
    )
    group.add_argument(
        "--tell", choices=("all", "rejects"), default="all", help="which verdicts go there (all)"
    )


def check(args: argparse.Namespace, *, own_pace: bool) -> None:
    """Options that contradict each other, or say nothing alone.

    Args:
        args: parsed.
        own_pace: frames come when they come: a camera, a stream, a folder that is filled.

    Raises:
        InputError: which, and what to do.
    """
    if args.drop == "oldest" and not own_pace and args.fps is None:
        raise InputError(
            "--drop oldest on files would drop most of them, since nothing paces the reading; "
            "give --fps too, or leave it out"
        )
    if args.fps is not None and own_pace:
        raise InputError("--fps is for files; a camera or a watched folder has a pace of its own")
    shown = args.monitor is not None or args.metrics_port is not None
    if args.monitor_host is not None and not shown:
        raise InputError("--monitor-host goes with --monitor PORT or --metrics-port PORT")
    if args.monitor_read_only and args.monitor is None:
        raise InputError("--monitor-read-only goes with --monitor PORT")
    if args.tell != "all" and args.webhook is None and args.mqtt is None:
        raise InputError(f"--tell {args.tell} goes with --webhook URL or --mqtt HOST/TOPIC")
    if args.masks and args.keep == "none":
        raise InputError("--masks with --keep none writes none; take --keep rejects or all")


def _whole(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise ValueError(text)
    return number


def _above(bound: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = float(text)
        if not math.isfinite(value) or value <= bound:
            raise ValueError(text)
        return value

    return number
