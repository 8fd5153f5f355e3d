"""The faults of `bench.faults`: each brings one about and says what was seen."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ndp_edge.bench.fault_camera import Camera, Script, endless, garbage, resizes, stalls, stops
from ndp_edge.bench.fault_rig import KILLED, TERMINATED, Rig, Row
from ndp_edge.bench.stream_rig import growth
from ndp_edge.console import info

_FRAMES = 40
_SLOW_DISK = """
append = LineLog.append
def slow(self, line):
    time.sleep(0.3 if "verdict" in line else 0)
    append(self, line)
LineLog.append = slow
"""


def nothing(rig: Rig) -> list[Row]:
    """For comparison."""
    names = rig.fill(_FRAMES)
    code, _ = rig.go()
    return [rig.row("none", names, (code, 0))]


def torn_files(rig: Rig) -> list[Row]:
    """Torn, empty and senseless files between good ones."""
    rig.fill(_FRAMES)
    whole = (rig.frames / "00000.png").read_bytes()
    spoilt = {
        "00005.png": whole[: len(whole) // 2],
        "00011.png": b"",
        "00017.png": bytes(range(256)) * 40,
        "00023.png": whole[:1000] + b"\0" * 64 + whole[1064:],
    }
    for name, data in spoilt.items():
        (rig.frames / name).write_bytes(data)
    code, _ = rig.go("--keep", "none")
    rejected = {line["frame"] for line in rig.verdicts() if line["verdict"] == "reject"}
    broken = {line["frame"] for line in rig.verdicts() if "error" in line}
    return [
        rig.row(
            "garbage between good frames",
            rig.names(),
            (code, 2),
            "each broken frame is rejected, with its reason",
            rejected=set(spoilt) <= rejected,
            told=broken == set(spoilt),
        )
    ]


def sizes(rig: Rig) -> list[Row]:
    """256 x 256, then 384 x 256, then 256 x 256."""
    rig.fill(_FRAMES)
    names = rig.fill_wide(_FRAMES // 2, 10)
    code, _ = rig.go("--keep", "none")
    tiled = sum("tiles" in line for line in rig.verdicts())
    seen = f"{tiled} frames were tiled"
    return [rig.row("size changes mid-way", names, (code, 0), seen, tiled=tiled == 10)]


def slow_disk(rig: Rig) -> list[Row]:
    """300 ms a line."""
    names = rig.fill(_FRAMES)
    code, _ = rig.go("--keep", "none", breaking=_SLOW_DISK)
    rows = [rig.row("slow disk, block", names, (code, 0), "the source waits")]
    more = ("--keep", "none", "--fps", "20", "--drop", "oldest", "--force")
    code, _ = rig.go(*more, breaking=_SLOW_DISK)
    dropped = len(names) - len(rig.verdicts())
    seen = f"at 20 frames a second {dropped} are given up"
    return [*rows, rig.row("slow disk, oldest", names, (code, 0), seen, dropped=dropped > 0)]


@contextlib.contextmanager
def small_disk(rig: Rig, kilobytes: int) -> Iterator[bool]:
    """Let the run's folder lie on a file system of this size; False where nobody may mount."""
    with tempfile.TemporaryDirectory() as folder:
        size = f"size={kilobytes}k"
        command = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            yield False
            return
        try:
            rig.out = Path(folder) / "out"
            yield True
        finally:
            subprocess.run(["umount", folder], check=True, capture_output=True)


def full_disk(rig: Rig) -> list[Row]:
    """A real small file system; then it is made larger and the run goes on."""
    names = rig.fill(_FRAMES)
    with small_disk(rig, 4000) as mounted:
        if not mounted:
            info("full disk: not measured, mounting a small file system needs root")
            return []
        code, said = rig.go()
        told = "disk is full" in said
        first = rig.partial("full disk", (code, 2), "what was written is whole")
        parent = str(rig.out.parent)
        subprocess.run(["mount", "-o", "remount,size=64m", parent], check=True)
        code, _ = rig.go("--resume")
        then = rig.row("... space made, --resume", names, (code, 0), "", told=told)
    return [first, then]


def killed(rig: Rig) -> list[Row]:
    """SIGKILL in the middle, and --resume."""
    names = rig.fill(_FRAMES)
    process = rig.start()
    rig.interrupt(process, 12, signal.SIGKILL)
    code, _ = rig.end(process)
    first = rig.partial("kill -9 in the middle", (code, KILLED), "whole lines, whole pictures")
    code, _ = rig.go("--resume")
    return [first, rig.row("... --resume", names, (code, 0))]


def killed_overloaded(rig: Rig) -> list[Row]:
    """SIGKILL while frames are being given up, and --resume."""
    names = rig.fill(120)
    options = ("--keep", "none", "--fps", "60", "--drop", "oldest")
    process = rig.start(*options)
    rig.interrupt(process, 40, signal.SIGKILL)
    code, _ = rig.end(process)
    first = rig.partial("kill -9 in an overload", (code, KILLED), "drops are written as they come")
    code, _ = rig.go("--resume", "--keep", "none")
    seen = "what was given up stays given up"
    return [first, rig.row("... --resume", names, (code, 0), seen)]


def terminated(rig: Rig) -> list[Row]:
    """SIGTERM, and --resume."""
    names = rig.fill(_FRAMES)
    process = rig.start()
    rig.interrupt(process, 12, signal.SIGTERM)
    code, _ = rig.end(process)
    summary = (rig.out / "summary.json").read_text()
    told = '"stopped": "SIGTERM"' in summary
    first = rig.partial("SIGTERM", (code, TERMINATED), "stopped between frames")
    code, _ = rig.go("--resume")
    return [first, rig.row("... --resume", names, (code, 0), "", told=told)]


def overloaded(rig: Rig) -> list[Row]:
    """Twice what the engine manages, or more, with a deadline."""
    names, deadline, share = rig.fill(900), 500, 1.0
    rig.go("--keep", "none", "--max-frames", "60")
    stamps = [line["time"] + line["latency_ms"]["total"] / 1e3 for line in rig.verdicts()]
    rate = (len(stamps) - 10) / (stamps[-1] - stamps[9])
    tries = 0
    while share > 0.6 and tries < 3:  # a shared machine may be faster now than it was just then
        rate, tries = 2 * rate, tries + 1
        options = ("--fps", f"{rate:.3f}", "--drop", "oldest", "--deadline-ms", str(deadline))
        code, memory = rig.watched("--keep", "none", *options)
        share = len(rig.verdicts()) / len(names)
    grown = growth(memory)["growth"] if memory else math.inf
    p50, p99 = np.percentile([line["latency_ms"]["total"] for line in rig.verdicts()], (50, 99))
    late = sum(bool(line.get("late")) for line in rig.verdicts())
    seen = (
        f"{rate:.1f} frames/s offered, {share * rate:.1f} judged; deadline {deadline} ms: p50 "
        f"{p50:.0f}, p99 {p99:.0f} ms, {late} late; memory {100 * grown:+.1f} % from the second "
        "to the last quarter"
    )
    held = {
        "bounded": bool(p99 < 2 * deadline),
        "flat": grown < 0.02,
        "overloaded": share <= 0.6,
    }
    return [rig.row("twice the capacity, oldest", names, (code, 0), seen, **held)]


def two_runs(rig: Rig) -> list[Row]:
    """A second run into the folder of the first."""
    names = rig.fill(_FRAMES)
    process = rig.start("--keep", "none", "--fps", "2")  # still there when the second comes
    rig.interrupt(process, 3, 0)
    second, said = rig.go("--resume")
    code, _ = rig.end(process)
    refused = second == 2 and "another run" in said
    seen = f"the second is refused with exit code {second}"
    return [rig.row("two runs, one folder", names, (code, 0), seen, refused=refused)]


def webhook_down(rig: Rig) -> list[Row]:
    """Verdicts are to be sent where nobody listens."""
    names = rig.fill(_FRAMES)
    code, said = rig.go("--keep", "none", "--webhook", "http://127.0.0.1:9/verdicts")
    return [rig.row("a webhook that is down", names, (code, 0), said[:90])]


_STALL = 2
"""Seconds without a frame after which the camera of these cases counts as lost."""


def live(
    rig: Rig, fault: str, scripts: Sequence[Script], exit_code: int | None, *options: str
) -> tuple[Row, dict[str, Any]]:
    """A run on a network camera: every frame that it was numbered has one verdict or drop."""
    with Camera(scripts) as camera:
        more = ("--keep", "none", "--max-frames", "30", "--stall", str(_STALL), *options)
        code, said = rig.go(*more, source=camera.url)
    highest = max(int(line["frame"]) for line in rig.verdicts())
    summary = json.loads((rig.out / "summary.json").read_text())
    seen = f"{summary['reconnects']} reconnections"
    if exit_code is None:  # depends on how much of the garbage the decoder hands on
        exit_code = 2 if summary["errors"] else 0
    names = [f"{number:06}" for number in range(highest + 1)]
    row = rig.row(fault, names, (code, exit_code), seen if code == 0 else said[:90])
    return row, summary


def camera_stops(rig: Rig) -> list[Row]:
    """The connection is closed; the camera is back, or is not waited for."""
    row, summary = live(rig, "camera stops, comes back", [stops, endless], 0)
    held = row.holds and row.offered == 30 and summary["reconnects"] == 1
    gone, _ = live(rig, "camera stops, --no-reconnect", [stops], 2, "--no-reconnect", "--force")
    return [dataclasses.replace(row, holds=held), gone]


def camera_stalls(rig: Rig) -> list[Row]:
    """The connection stays open and gives nothing."""
    row, summary = live(rig, f"camera stalls, {_STALL} s", [stalls, endless], 0)
    held = row.holds and row.offered == 30 and summary["reconnects"] >= 1
    return [dataclasses.replace(row, holds=held)]


def camera_garbage(rig: Rig) -> list[Row]:
    """Torn pictures, noise and nothing between good frames."""
    row, summary = live(rig, "camera sends garbage", [garbage, endless], None)
    seen = f"{summary['ok']} ok; {summary['errors']} rejected, each with its reason"
    return [dataclasses.replace(row, holds=row.holds and row.offered == 30, seen=seen)]


def camera_resizes(rig: Rig) -> list[Row]:
    """256 x 256, then 384 x 256, then 256 x 256."""
    row, _ = live(rig, "camera changes its size", [resizes, endless], 0)
    tiled = sum("tiles" in line for line in rig.verdicts())
    held = row.holds and row.offered == 30 and tiled > 0
    return [dataclasses.replace(row, holds=held, seen=f"{tiled} frames were tiled, {row.seen}")]


CASES: dict[str, Callable[[Rig], list[Row]]] = {
    "none": nothing,
    "garbage": torn_files,
    "sizes": sizes,
    "slow disk": slow_disk,
    "full disk": full_disk,
    "kill -9": killed,
    "kill -9 overload": killed_overloaded,
    "SIGTERM": terminated,
    "overload": overloaded,
    "two runs": two_runs,
    "webhook": webhook_down,
    "camera stops": camera_stops,
    "camera stalls": camera_stalls,
    "camera garbage": camera_garbage,
    "camera resizes": camera_resizes,
}
"""Name -> what brings it about."""
