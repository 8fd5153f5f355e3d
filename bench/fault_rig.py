"""Runs of `python -m ndp_edge.run` in processes of their own, broken on purpose."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from ndp_edge.bench.stream_rig import Account, account, json_lines, pictures
from ndp_edge.errors import GateError, InputError
from ndp_edge.image import read_image, write_png
from ndp_edge.imagefile import check_complete
from ndp_edge.runtime.memory import resident_bytes
from ndp_edge.runtime.sinks import DROPS, MAPS, OVERLAYS, RESULTS

PATIENCE = 300.0
"""Seconds after which a run counts as hung."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        fault: what was broken.
        offered, verdicts, drops, errors: frames.
        exit: the run's exit code; negative is the signal that killed it.
        holds: nothing lost, nothing doubled, order kept, the exit code as it should be.
        seen: what else is worth telling.
    """

    fault: str
    offered: int
    verdicts: int
    drops: int
    errors: int
    exit: int
    holds: bool
    seen: str

    def cells(self) -> list[object]:
        """As the table shows them."""
        counts = (self.offered, self.verdicts, self.drops, self.errors)
        return [self.fault, *counts, self.exit, "yes" if self.holds else "**NO**", self.seen]


class Rig:
    """A bundle, and a folder to break things in."""

    def __init__(self, bundle: Path, folder: Path) -> None:
        self.bundle = bundle
        self.out = folder / "out"
        self.frames = folder / "frames"
        self.frames.mkdir()
        self._size = 256

    def fill(self, count: int) -> list[str]:
        """Write so many good frames; returns their names in order."""
        shown = pictures(min(count, 8), 0, self._size)
        for number in range(count):
            write_png(self.frames / f"{number:05}.png", shown[number % len(shown)])
        return self.names()

    def fill_wide(self, first: int, count: int) -> list[str]:
        """Frames one and a half times as wide, numbered from `first`; all names now there."""
        shown = np.concatenate(pictures(2, 0, self._size), axis=1)[:, : 3 * self._size // 2]
        for number in range(first, first + count):
            write_png(self.frames / f"{number:05}.png", np.ascontiguousarray(shown))
        return self.names()

    def names(self) -> list[str]:
        """The frames in the folder, in the order of the run."""
        return sorted(path.name for path in self.frames.iterdir())

    def start(self, *options: str, breaking: str = "", source: str = "") -> subprocess.Popen[str]:
        """Start a run; `breaking` is Python that is executed in its process before."""
        words = [str(self.bundle), "--source", source or str(self.frames), "--out", str(self.out)]
        code = (
            "import sys, time, os, errno\n"
            "from ndp_edge import run\n"
            "from ndp_edge.runtime.linelog import LineLog\n"
            f"{breaking}\n"
            f"sys.exit(run.main({[*words, *options]!r}))\n"
        )
        return subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def go(self, *options: str, breaking: str = "", source: str = "") -> tuple[int, str]:
        """A whole run: its exit code and the last line it said."""
        return self.end(self.start(*options, breaking=breaking, source=source))

    def watched(self, *options: str) -> tuple[int, list[float]]:
        """A whole run: its exit code, and its memory in MiB four times a second while it wrote.

        Earlier results go first: their lines would make the start look like a part of the run.
        """
        shutil.rmtree(self.out, ignore_errors=True)
        process, memory = self.start(*options), []
        until = time.monotonic() + PATIENCE
        while process.poll() is None and time.monotonic() < until:
            if self.lines():
                memory.append(resident_bytes(process.pid) / 2**20)
            time.sleep(0.25)
        return self.end(process)[0], memory

    def end(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        """Wait for a run.

        Raises:
            GateError: it hangs.
        """
        try:
            said = process.communicate(timeout=PATIENCE)[1].strip().splitlines()
        except subprocess.TimeoutExpired:
            process.kill()
            raise GateError("a run hangs") from None
        return process.returncode, said[-1] if said else ""

    def interrupt(self, process: subprocess.Popen[str], lines: int, kind: int) -> None:
        """Send a signal once so many lines are written, results and drops together.

        Raises:
            GateError: the run ended before, or hangs.
        """
        until = time.monotonic() + PATIENCE
        while self.lines() < lines:
            if process.poll() is not None or time.monotonic() > until:
                process.kill()
                raise GateError(f"{self.lines()} of {lines} lines, and no more to come")
            time.sleep(0.01)
        os.kill(process.pid, kind)

    def lines(self) -> int:
        """Lines written so far."""
        logs = [self.out / RESULTS, self.out / DROPS]
        return sum(log.read_bytes().count(b"\n") for log in logs if log.is_file())

    def verdicts(self) -> list[dict[str, Any]]:
        """The lines of results.jsonl."""
        return json_lines(self.out / RESULTS)

    def row(
        self, fault: str, offered: list[str], exits: tuple[int, int], seen: str = "", **more: bool
    ) -> Row:
        """Compare the folder with what was offered.

        Args:
            fault: what was broken.
            offered: names that must have a verdict or a drop each.
            exits: the exit code, and what it should be.
            seen: goes into the row.
            more: whatever else must be true.
        """
        found = account(self.out, offered)
        failed = [name for name, held in more.items() if not held]
        note = "; ".join([*([seen] if seen else []), *(f"not {name}" for name in failed)])
        holds = found.exact and exits[0] == exits[1] and not failed
        return Row(fault, *counts(found), exits[0], holds, note)

    def partial(self, fault: str, exits: tuple[int, int], seen: str) -> Row:
        """A run that was cut short: only what is written counts, and that must be whole.

        Every line must parse, and the pictures of every verdict must be there and decode.
        """
        written = [line["frame"] for line in self.verdicts()]
        written += [line["frame"] for line in json_lines(self.out / DROPS)]
        found = account(self.out, sorted(written))
        holds = found.doubled == 0 and found.in_order and exits[0] == exits[1]
        return Row(fault, *counts(found), exits[0], holds and self._pictures_whole(), seen)

    def _pictures_whole(self) -> bool:
        """Both pictures of every frame that has a line; True for a run that keeps none."""
        maps = self.out / MAPS
        if not maps.is_dir():
            return True
        try:
            for line in self.verdicts():
                stem = line["frame"].removesuffix(".png")
                read_image(self.out / OVERLAYS / f"{stem}.jpg")
                if check_complete((maps / f"{stem}.tiff").read_bytes()) is not None:
                    return False
        except (InputError, OSError):
            return False
        return True


def counts(found: Account) -> tuple[int, int, int, int]:
    """offered, verdicts, drops, errors."""
    return found.offered, found.verdicts, found.drops, found.errors


KILLED, TERMINATED = -signal.SIGKILL, 128 + signal.SIGTERM
